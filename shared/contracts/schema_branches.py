"""A JSON Schema taken apart into the alternatives it allows, each of one type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

_TYPES: Final = ("object", "array", "string", "integer", "number", "boolean", "null")
_UNIONS: Final = ("anyOf", "oneOf")
# What says something about values, and is not taken into account: a schema with it cannot be judged.
NOT_JUDGED: Final = ("allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties")


class Branch(msgspec.Struct, frozen=True):
    """One alternative of a schema.

    Attributes:
        kind: its JSON type, or `any`.
        schema: its keywords.
        values: the only ones there are, for enum and const.
        tag: the property and value that tell it from other alternatives; empty when there is none.
        name: for people.
    """

    kind: str
    schema: Mapping[str, Any]
    values: tuple[Any, ...] | None = None
    tag: tuple[tuple[str, Any], ...] = ()
    name: str = ""

    def may_take(self, written: Branch) -> bool:
        """Return whether values of a written branch may be of this one's type."""
        return self.kind in ("any", written.kind) or (self.kind == "number" and written.kind == "integer")


def resolver_of(document: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return what follows local references of a schema document.

    It raises `LookupError` for a reference that leads nowhere.
    """

    def resolve(schema: Any) -> Any:
        seen: set[str] = set()
        while isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str):
            if reference in seen or not reference.startswith("#/"):
                raise LookupError(f"the reference {reference!r} leads nowhere in this schema")
            seen.add(reference)
            target: Any = document
            for part in reference[2:].split("/"):
                name = part.replace("~1", "/").replace("~0", "~")
                if not isinstance(target, Mapping) or name not in target:
                    raise LookupError(f"the reference {reference!r} leads nowhere in this schema")
                target = target[name]
            schema = target
        return schema

    return resolve


def branches_of(schema: Any, resolve: Callable[[Any], Any]) -> Iterator[Branch]:
    """Yield the alternatives of a schema, those of unions within unions too."""
    schema = resolve(schema)
    if schema is True or schema == {}:
        yield Branch("any", {}, name="any value")
        return
    if not isinstance(schema, Mapping):
        return  # `false`: nothing is allowed
    for union in _UNIONS:
        if union in schema:
            for member in schema[union]:
                yield from branches_of(member, resolve)
            return
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        yield from _of_values(schema, values)
        return
    stated = schema.get("type", "any" if not schema.keys() & {"properties", "required"} else "object")
    for kind in [stated] if isinstance(stated, str) else stated:
        yield Branch(kind, schema, tag=_tag(schema, resolve), name=_name(kind, schema, resolve))


def _of_values(schema: Mapping[str, Any], values: list[Any]) -> Iterator[Branch]:
    by_kind: dict[str, list[Any]] = {}
    for value in values:
        by_kind.setdefault(kind_of(value), []).append(value)
    for kind, own in by_kind.items():
        shown = ", ".join(repr(value) for value in own)
        yield Branch(kind, schema, values=tuple(own), name=f"one of {shown}")


def kind_of(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _tag(schema: Mapping[str, Any], resolve: Callable[[Any], Any]) -> tuple[tuple[str, Any], ...]:
    """Return the required properties with a single value."""
    found = []
    for name, stated in schema.get("properties", {}).items():
        child = resolve(stated)
        if name in schema.get("required", ()) and isinstance(child, Mapping):
            values = [child["const"]] if "const" in child else child.get("enum", ())
            if len(values) == 1:
                found.append((name, values[0]))
    return tuple(sorted(found, key=str))


def _name(kind: str, schema: Mapping[str, Any], resolve: Callable[[Any], Any]) -> str:
    if kind == "any":
        return "any value"
    title = schema.get("title")
    if title:
        return str(title)
    tag = _tag(schema, resolve)
    return f"{kind} with {tag[0][0]} {tag[0][1]!r}" if tag else kind
