"""What changes to a payload break whom, and that nothing which is called compatible ever breaks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnibase_infra.shared.contracts.compatibility import Mode, incompatibilities

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["id", "quantity"],
    "properties": {
        "id": {"type": "string", "maxLength": 20},
        "quantity": {"type": "integer", "minimum": 1, "maximum": 100},
        "state": {"enum": ["open", "closed"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        "note": {"type": ["string", "null"]},
    },
}


def _changed(name: str, schema: Any) -> dict[str, Any]:
    return {**ORDER, "properties": {**ORDER["properties"], name: schema}}


def _without(name: str) -> dict[str, Any]:
    return {**ORDER, "properties": {key: value for key, value in ORDER["properties"].items() if key != name}}


@pytest.mark.parametrize(
    ("new", "breaks"),
    [
        (ORDER, set()),
        (_changed("colour", {"type": "string"}), set()),
        ({**_changed("colour", {"type": "string"}), "required": ["id", "quantity", "colour"]}, {"BACKWARD $.colour property-required"}),
        ({**ORDER, "required": ["id", "quantity", "state"]}, {"BACKWARD $.state property-required"}),
        ({**ORDER, "required": ["id"]}, {"FORWARD $.quantity property-required"}),
        (_without("state"), set()),
        ({**_without("quantity"), "required": ["id"]}, {"FORWARD $.quantity property-required"}),
        ({**ORDER, "additionalProperties": False}, set()),
        ({**_without("state"), "additionalProperties": False}, {"BACKWARD $.state property-refused"}),
        (_changed("id", {"type": "string", "maxLength": 10}), {"BACKWARD $.id max-length-changed"}),
        (_changed("id", {"type": "string"}), {"FORWARD $.id max-length-changed"}),
        (_changed("id", {"type": "integer"}), {"BACKWARD $.id type-changed", "FORWARD $.id type-changed"}),
        (_changed("id", {"type": "string", "maxLength": 20, "pattern": "^a"}), {"BACKWARD $.id pattern-changed"}),
        (_changed("quantity", {"type": "integer", "minimum": 2, "maximum": 100}), {"BACKWARD $.quantity range-narrowed"}),
        (_changed("quantity", {"type": "integer", "exclusiveMinimum": 0, "maximum": 100}), set()),
        (_changed("quantity", {"type": "number", "minimum": 1, "maximum": 100}), {"FORWARD $.quantity type-changed"}),
        (_changed("state", {"enum": ["open", "closed", "lost"]}), {"FORWARD $.state choice-removed"}),
        (_changed("state", {"enum": ["open"]}), {"BACKWARD $.state choice-removed"}),
        (_changed("state", {"type": "string"}), {"FORWARD $.state choices-narrowed"}),
        (_changed("tags", {"type": "array", "items": {"type": "integer"}, "maxItems": 5}), {"BACKWARD $.tags[] type-changed", "FORWARD $.tags[] type-changed"}),
        (_changed("tags", {"type": "array", "items": {"type": "string"}, "maxItems": 9}), {"FORWARD $.tags max-items-changed"}),
        (_changed("note", {"type": "string"}), {"BACKWARD $.note type-changed"}),
        (_changed("note", {}), {"FORWARD $.note type-changed"}),
    ],
)  # fmt: skip
def test_a_change_breaks_what_is_named_with_its_path(new: dict[str, Any], breaks: set[str]) -> None:
    found = {f"{item.direction} {item.path} {item.rule}" for item in incompatibilities(ORDER, new, "FULL")}
    assert found == breaks
    for mode in ("BACKWARD", "FORWARD"):
        expected = {item for item in breaks if item.startswith(mode)}
        assert {f"{i.direction} {i.path} {i.rule}" for i in incompatibilities(ORDER, new, mode)} == expected
    assert incompatibilities(ORDER, new, "NONE") == []


class Insert(msgspec.Struct, tag_field="statement", tag="insert"):
    value: int


class Delete(msgspec.Struct, tag_field="statement", tag="delete"):
    key: str


class Update(msgspec.Struct, tag_field="statement", tag="update"):
    key: str


def test_alternatives_of_a_tagged_union_are_told_apart_by_their_tag() -> None:
    two, three = msgspec.json.schema(Insert | Delete), msgspec.json.schema(Insert | Delete | Update)
    assert incompatibilities(two, three, "BACKWARD") == []
    (broken,) = incompatibilities(three, two, "BACKWARD")
    assert str(broken) == "$: Update is written and not among what is read [alternative-removed, breaks BACKWARD]"


def test_a_model_that_contains_itself_is_compared_once() -> None:
    tree = {"$ref": "#/$defs/T", "$defs": {"T": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/T"}}}}}}  # fmt: skip
    assert incompatibilities(tree, tree) == []


def test_a_map_of_any_values_cannot_be_read_as_a_map_of_numbers() -> None:
    (broken,) = incompatibilities({"type": "object"}, {"type": "object", "additionalProperties": {"type": "integer"}}, "BACKWARD")  # fmt: skip
    assert (broken.path, broken.rule) == ("$.*", "type-changed")


# -- nothing that is called compatible breaks --------------------------------------------------------------------------

NAMES = ("a", "b", "c")
ENUM = ("x", "yy", 1, 2, True, None)
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


class Schemas:
    """Makes schemas, changes one thing about them, and makes values that they may write.

    By a plain random generator: a property holds for thousands of pairs in the time Hypothesis draws a hundred.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def any(self, depth: int = 2) -> dict[str, Any]:
        """Return a schema."""
        makers = [self._number, self._text, self._enum, lambda: {"type": self._pick(("boolean", "null"))}]
        if depth:
            nested: list[Callable[[int], dict[str, Any]]] = [self._object, self._array, self._union, self._map]
            makers += [partial(make, depth - 1) for make in nested]
        make: Callable[[], dict[str, Any]] = self._pick(makers)
        return make()

    def changed(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema with one thing about it, or somewhere in it, changed."""
        changes = [
            self._with_other_bound,
            self._with_other_choices,
            self._with_other_properties,
            self._with_inner_change,
        ]
        for change in self._random.sample(changes, len(changes)):
            found = change(dict(schema))
            if found != schema:
                return found
        return self.any()

    def value(self, schema: dict[str, Any]) -> Any:
        """Return a value of the schema's shape, within its bounds or beyond; only properties that it names."""
        if "enum" in schema:
            return self._pick(schema["enum"])
        if "anyOf" in schema:
            return self.value(self._pick(schema["anyOf"]))
        kind = schema["type"] if isinstance(schema["type"], str) else self._pick(schema["type"])
        if kind == "object" and "properties" in schema:
            required = schema["required"]
            chosen = [name for name in schema["properties"] if name in required or self._chance()]
            return {name: self.value(schema["properties"][name]) for name in chosen}
        if kind == "object":
            return {name: self.value(schema["additionalProperties"]) for name in NAMES if self._chance()}
        if kind == "array":
            return [self.value(schema["items"]) for _ in range(self._random.randint(0, 3))]
        scalars: dict[str, Callable[[], Any]] = {
            "integer": lambda: self._random.randint(-6, 6),
            "number": lambda: self._random.randint(-12, 12) / 2,
            "string": lambda: "x" * self._random.randint(0, 5),
            "boolean": self._chance,
            "null": lambda: None,
        }
        return scalars[kind]()

    def _pick(self, choices: Sequence[Any]) -> Any:
        return self._random.choice(choices)

    def _chance(self) -> bool:
        return self._random.random() < 0.5

    def _number(self) -> dict[str, Any]:
        bounds = {key: self._random.randint(-4, 4) for key in self._random.sample(BOUNDS, self._random.randint(0, 2))}
        return {"type": self._pick(("integer", "number")), **bounds}

    def _text(self) -> dict[str, Any]:
        bounds = {key: self._random.randint(0, 4) for key in ("minLength", "maxLength") if self._chance()}
        return {"type": "string" if self._chance() else ["string", "null"], **bounds}

    def _enum(self) -> dict[str, Any]:
        return {"enum": self._random.sample(ENUM, self._random.randint(1, 4))}

    def _object(self, depth: int) -> dict[str, Any]:
        properties = {name: self.any(depth) for name in NAMES if self._chance()}
        schema = {"type": "object", "properties": properties, "required": [n for n in properties if self._chance()]}
        return schema if self._chance() else {**schema, "additionalProperties": False}

    def _array(self, depth: int) -> dict[str, Any]:
        return {"type": "array", "items": self.any(depth), "maxItems": self._random.randint(0, 3)}

    def _union(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.any(depth) for _ in range(self._random.randint(1, 3))]}

    def _map(self, depth: int) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.any(depth)}

    def _with_other_bound(self, schema: dict[str, Any]) -> dict[str, Any]:
        if isinstance(schema.get("type"), list):
            return {**schema, "type": "string"}
        keys = {"string": ("minLength", "maxLength"), "array": ("maxItems",)}.get(str(schema.get("type")), BOUNDS)
        if schema.get("type") not in ("integer", "number", "string", "array"):
            return schema
        key = self._pick(keys)
        if key in schema and self._chance():
            del schema[key]
        else:
            least = -5 if keys is BOUNDS else 0
            schema[key] = max(least, schema.get(key, 1) + self._pick((-1, 1)))
        if schema["type"] in ("integer", "number") and self._random.random() < 0.2:
            schema["type"] = self._pick(("integer", "number"))
        return schema

    def _with_other_choices(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "enum" in schema:
            return {"enum": self._random.sample(ENUM, self._random.randint(1, 4))}
        if "anyOf" in schema:
            members = list(schema["anyOf"])
            if len(members) > 1 and self._chance():
                members.pop(self._random.randrange(len(members)))
            else:
                members.append(self.any(1))
            return {"anyOf": members}
        return schema

    def _with_other_properties(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "properties" not in schema:
            return schema
        name = self._pick(NAMES)
        properties, required = dict(schema["properties"]), list(schema["required"])
        if name not in properties:
            properties[name] = self.any(1)
        elif self._chance():
            del properties[name]
        if name in properties and name not in required:
            required.append(name)
        else:
            required = [item for item in required if item != name]
        if self._random.random() < 0.2:
            return {"type": "object", "properties": properties, "required": required}
        return {**schema, "properties": properties, "required": required}

    def _with_inner_change(self, schema: dict[str, Any]) -> dict[str, Any]:
        if schema.get("properties"):
            name = self._pick(sorted(schema["properties"]))
            return {**schema, "properties": {**schema["properties"], name: self.changed(schema["properties"][name])}}
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                return {**schema, key: self.changed(schema[key])}
        return schema


def _is_valid(value: Any, schema: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def _closed(schema: Any) -> Any:
    """Return what a writer may send: the properties that its schema names, and no others."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return {**closed, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else closed


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(min_value=0), mode=st.sampled_from(("BACKWARD", "FORWARD", "FULL")))
def test_a_value_that_is_valid_for_the_writer_is_valid_for_the_reader_when_the_change_is_called_compatible(
    seed: int, mode: Mode
) -> None:
    schemas = Schemas(seed)
    for _ in range(60):
        old = schemas.any()
        new = schemas.changed(old)
        if incompatibilities(old, new, mode):
            continue
        for writer, reader in {"BACKWARD": [(old, new)], "FORWARD": [(new, old)], "FULL": [(old, new), (new, old)]}[
            mode
        ]:
            for value in [schemas.value(writer) for _ in range(12)]:
                if _is_valid(value, _closed(writer)):
                    assert _is_valid(value, reader), (mode, writer, reader, value)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(min_value=0))
def test_a_schema_is_compatible_with_itself(seed: int) -> None:
    schemas = Schemas(seed)
    for schema in [schemas.any(3) for _ in range(20)]:
        assert incompatibilities(schema, schema, "FULL") == [], schema
