"""Payload models in JSON Schema: what models can express, and whether a payload could ever pass.

Supported: object, string, integer, number, boolean, array, enum, const, nullable by a type list, `$ref` to
another definition, the formats uuid, date-time, date and decimal, and bounds.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Protocol

from omnibase_infra.shared.contracts.draft import Draft
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.schema_check import did_you_mean, not_one_of
from omnibase_infra.shared.contracts.yaml_source import Path

REFERENCE_PREFIX: Final = "#/definitions/"
FORMATS: Final = ("uuid", "date-time", "date", "decimal")
_TYPES: Final = ("object", "string", "integer", "number", "boolean", "array")

_ANNOTATIONS: Final = frozenset(("title", "description", "default", "examples"))
_KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset(("required", "properties", "additionalProperties")),
    "string": frozenset(("minLength", "maxLength", "pattern", "format")),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "boolean": frozenset(),
    "array": frozenset(("items", "minItems", "maxItems")),
}
_ALL_KEYWORDS: Final = _ANNOTATIONS.union(("type", "enum", "const", "$ref"), *_KEYWORDS.values())
_COUNTS: Final = frozenset(("minLength", "maxLength", "minItems", "maxItems"))
_NUMBERS: Final = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_ORDERED: Final = (
    ("minimum", "maximum", False),
    ("exclusiveMinimum", "exclusiveMaximum", True),
    ("exclusiveMinimum", "maximum", True),
    ("minimum", "exclusiveMaximum", True),
    ("minLength", "maxLength", False),
    ("minItems", "maxItems", False),
)
_FIELD: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*\Z", re.ASCII)


class Report(Protocol):
    """Adds a problem at a value of the document, or at its key."""

    def __call__(self, rule: Rule, message: str, path: Path, *, of_key: bool = False) -> None:
        """Add a problem of a rule at a path."""
        ...


def check_definitions(draft: Draft) -> None:
    """Check every definition, and that each one referred to exists and each one there is used."""
    definitions = draft.contract.definitions
    references = _check_each(definitions, draft.report)
    for operation, path in draft.operations:
        kit = draft.kits.get(operation.kit)
        for key, option in (kit.options if kit else {}).items():
            value = operation.options.get(key)
            if option.role == "definition" and isinstance(value, str):
                references.append((value, (*path, key)))
    declared = draft.source.data.get("definitions")
    names = set(declared) if isinstance(declared, dict) else set(definitions)
    for name, path in references:
        if name not in names and draft.readable(("definitions",)):
            _report_missing(name, names, draft.report, path)
    _check_unused(draft, {name for name, _ in references})
    _check_cycles(definitions, draft.report)


def check_models(definitions: Mapping[str, Any], report: Report) -> None:
    """Check definitions that stand for themselves, without a node: each one, what they refer to, and cycles."""
    for name, path in _check_each(definitions, report):
        if name not in definitions:
            _report_missing(name, definitions, report, path)
    _check_cycles(definitions, report)


def _check_each(definitions: Mapping[str, Any], report: Report) -> list[tuple[str, Path]]:
    """Check each definition by itself; return what they refer to, with the places."""
    references: list[tuple[str, Path]] = []
    for name, schema in definitions.items():
        checker = _SchemaChecker(report, references)
        checker.check(schema, ("definitions", name))
        if isinstance(schema.get("type"), str) and schema["type"] != "object":
            message = f"a payload is an object; {name} is {schema['type']}"
            report(Rule.DEFINITION_UNSUPPORTED, message, ("definitions", name, "type"))
        elif "type" not in schema and "$ref" not in schema:
            report(Rule.DEFINITION_UNSUPPORTED, f"{name} lacks `type: object`", ("definitions", name))
    return references


def _report_missing(name: str, names: Collection[str], report: Report, path: Path) -> None:
    hint = did_you_mean(name, names) or (f", there are: {', '.join(sorted(names))}" if names else "")
    report(Rule.DEFINITION_MISSING, f"there is no definition {name!r}{hint}", path)


def _check_unused(draft: Draft, used: set[str]) -> None:
    kits_are_known = all(operation.kit in draft.kits for operation, _ in draft.operations)
    if not kits_are_known or not draft.operations or not draft.whole(("io_operations",)):
        return  # who would refer to it cannot be told
    for name in draft.contract.definitions:
        if name not in used:
            message = f"nothing refers to {name}; remove it, or name it in an operation"
            draft.report(Rule.DEFINITION_UNUSED, message, ("definitions", name), of_key=True)


def _check_cycles(definitions: Mapping[str, Any], report: Report) -> None:
    edges = {name: [target for target, _ in _references(schema, ())] for name, schema in definitions.items()}
    for name in definitions:
        reached: set[str] = set()
        frontier = list(edges[name])
        while frontier:
            target = frontier.pop()
            if target not in reached:
                reached.add(target)
                frontier.extend(edges.get(target, ()))
        if name in reached:
            message = f"{name} contains itself; payloads are bounded, so break the cycle"
            report(Rule.DEFINITION_CYCLE, message, ("definitions", name), of_key=True)


def _references(schema: Any, path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the definitions that a schema refers to, with the place of each `$ref`."""
    if not isinstance(schema, dict):
        return
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith(REFERENCE_PREFIX):
        yield reference.removeprefix(REFERENCE_PREFIX), (*path, "$ref")
    properties = schema.get("properties")
    for key, child in properties.items() if isinstance(properties, dict) else ():
        yield from _references(child, (*path, "properties", key))
    for key in ("items", "additionalProperties"):
        yield from _references(schema.get(key), (*path, key))


class _SchemaChecker:
    """Walks one definition. Depth is bounded by the reader of the file."""

    def __init__(self, report: Report, references: list[tuple[str, Path]]) -> None:
        self._report = report
        self._references = references

    def check(self, schema: Any, path: Path) -> None:
        if not isinstance(schema, dict):
            self._unsupported("a schema is a mapping here, like {type: string}", path)
            return
        if "$ref" in schema:
            self._check_reference(schema, path)
            return
        types = self._types(schema, path)
        allowed = _ANNOTATIONS.union(("type", "enum", "const"), *(_KEYWORDS[kind] for kind in types))
        for key in schema:
            if key not in _ALL_KEYWORDS:
                hint = (
                    did_you_mean(key, _ALL_KEYWORDS)
                    or f", expected {', '.join(sorted(allowed if types else _ALL_KEYWORDS))}"
                )
                message = f"{key!r} has no form in a model{hint}"
                self._report(Rule.DEFINITION_UNSUPPORTED, message, (*path, key), of_key=True)
            elif key not in allowed and types:
                message = f"{key!r} says nothing about {types[0]}"
                self._report(Rule.DEFINITION_CONTRADICTION, message, (*path, key), of_key=True)
        self._check_values(schema, path)
        self._check_bounds(schema, path)
        if "object" in types:
            self._check_object(schema, path)
        if "array" in types:
            self._check_array(schema, path)
        if "string" in types:
            self._check_string(schema, path)

    def _unsupported(self, message: str, path: Path) -> None:
        self._report(Rule.DEFINITION_UNSUPPORTED, message, path)

    def _check_reference(self, schema: Mapping[str, Any], path: Path) -> None:
        reference = schema["$ref"]
        if isinstance(reference, str) and reference.startswith(REFERENCE_PREFIX):
            self._references.append((reference.removeprefix(REFERENCE_PREFIX), (*path, "$ref")))
        else:
            self._unsupported("a reference is written '#/definitions/ModelName'", (*path, "$ref"))
        for key in schema:
            if key not in ("$ref", "description", "title"):
                self._unsupported(
                    f"{key!r} beside $ref has no form in a model; put it into the definition", (*path, key)
                )

    def _types(self, schema: Mapping[str, Any], path: Path) -> tuple[str, ...]:
        """Return the one type besides null, or none where it is wrong or follows from enum or const."""
        place = (*path, "type")
        stated = schema.get("type")
        if stated is None:
            if "enum" not in schema and "const" not in schema and schema.keys() <= _ALL_KEYWORDS:
                self._unsupported(f"a schema states its `type`: {', '.join(_TYPES)}, or enum, const or $ref", path)
            return ()
        names = stated if isinstance(stated, list) else [stated]
        for index, name in enumerate(names):
            if name not in (*_TYPES, "null"):
                where = (*place, index) if isinstance(stated, list) else place
                self._unsupported(not_one_of(name, (*_TYPES, "null")), where)
        others = [name for name in names if name in _TYPES]
        if not others and "null" in names:
            self._unsupported("a value that is always null says nothing; name its other type, too", place)
        if len(others) > 1:
            self._unsupported(
                f"{' or '.join(others)} has no form in a model, expected one type, and null or not", place
            )
        return tuple(others[:1])

    def _check_values(self, schema: Mapping[str, Any], path: Path) -> None:
        constant = schema.get("const")
        if "const" in schema and not isinstance(constant, (str, int)):
            self._unsupported("const is a text, a whole number, true or false", (*path, "const"))
        values = schema.get("enum")
        if values is None:
            return
        place = (*path, "enum")
        if not isinstance(values, list) or not values:
            self._unsupported("enum is a list of values, at least one", place)
            return
        for index, value in enumerate(values):
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                self._unsupported("enum values are texts or whole numbers", (*place, index))
            elif value in values[:index]:
                self._report(Rule.REPEATED, f"the value {value!r} is listed twice", (*place, index))
        if len({type(value) for value in values if isinstance(value, (str, int))}) > 1:
            self._unsupported("enum values are all texts or all whole numbers", place)

    def _check_bounds(self, schema: Mapping[str, Any], path: Path) -> None:
        numeric: dict[str, float] = {}
        for key in sorted((_COUNTS | _NUMBERS) & schema.keys()):
            value = schema[key]
            whole = key in _COUNTS
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                expected = "a whole number" if whole else "a number"
                self._report(Rule.WRONG_TYPE, f"{key} is {expected}", (*path, key))
            elif (whole and value < 0) or (key == "multipleOf" and value <= 0):
                self._report(Rule.OUT_OF_RANGE, f"{key} is {value}, expected more", (*path, key))
            else:
                numeric[key] = value
        for low, high, strict in _ORDERED:
            if low in numeric and high in numeric:
                least, most = numeric[low], numeric[high]
                if least > most or (strict and least == most):
                    message = f"{low} {least} and {high} {most} leave no value"
                    self._report(Rule.DEFINITION_CONTRADICTION, message, (*path, low))

    def _check_object(self, schema: Mapping[str, Any], path: Path) -> None:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            self._unsupported("properties is a mapping of names to schemas", (*path, "properties"))
            properties = {}
        for name, child in properties.items():
            place = (*path, "properties", name)
            if not _FIELD.match(name):
                message = f"the property {name!r} is not snake case, expected one like customer_id"
                self._report(Rule.MALFORMED, message, place, of_key=True)
            self.check(child, place)
        self._check_required(schema, properties, path)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            if properties:
                message = "additionalProperties with a schema has no form in a model that has properties"
                self._unsupported(message, (*path, "additionalProperties"))
            self.check(extra, (*path, "additionalProperties"))
        elif extra is not None and not isinstance(extra, bool):
            self._unsupported("additionalProperties is true, false or a schema", (*path, "additionalProperties"))

    def _check_required(self, schema: Mapping[str, Any], properties: Mapping[str, Any], path: Path) -> None:
        required = schema.get("required", [])
        place = (*path, "required")
        if not isinstance(required, list):
            self._unsupported("required is a list of property names", place)
            return
        for index, name in enumerate(required):
            if not isinstance(name, str) or name not in properties:
                hint = did_you_mean(name, properties) if isinstance(name, str) else ""
                message = f"{name!r} is required and not among the properties{hint}"
                self._report(Rule.DEFINITION_CONTRADICTION, message, (*place, index))
            elif name in required[:index]:
                self._report(Rule.REPEATED, f"{name!r} is listed twice", (*place, index))

    def _check_array(self, schema: Mapping[str, Any], path: Path) -> None:
        if "items" not in schema:
            self._unsupported("an array states its `items`", path)
        elif schema["items"] != {}:  # `{}` is any value: what it is, is the business of whoever reads it
            self.check(schema["items"], (*path, "items"))

    def _check_string(self, schema: Mapping[str, Any], path: Path) -> None:
        kind = schema.get("format")
        if kind is not None and kind not in FORMATS:
            self._unsupported(not_one_of(kind, FORMATS), (*path, "format"))
        pattern = schema.get("pattern")
        if pattern is None:
            return
        if kind is not None:
            self._unsupported("a pattern beside a format has no form in a model; remove one", (*path, "pattern"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what Python warns about will mean something else one day
                re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError, Warning) as error:
            self._report(Rule.MALFORMED, f"the pattern is no regular expression: {error}", (*path, "pattern"))
