"""Bounds of scalar values, lengths and choices: whether all that may be written lies within what is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from omnibase_infra.shared.contracts.schema_branches import NOT_JUDGED, Branch

Reason = tuple[str, str, str]

# By type, since a keyword says nothing about values of other types: the bound from below and the one from above.
_LENGTHS: Final[Mapping[str, tuple[str, str]]] = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}
# What cannot be compared but for being the same.
_SAME: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("pattern", "format", "contentEncoding"),
    "array": ("uniqueItems",),
    "object": ("propertyNames",),
}


def range_reasons(writer: Branch, reader: Branch, path: str) -> Iterator[Reason]:
    """Yield why values of a written branch may lie outside of a reader's branch of the same type."""
    if reader.values is not None:
        yield from _choices(writer, reader, path)
        return
    if writer.values is not None:
        for value in writer.values:
            yield from _value(value, reader.schema, path)
        return
    yield from _numbers(writer, reader, path)
    for keyword, side in zip(_LENGTHS.get(reader.kind, ()), ("lower", "upper"), strict=False):
        yield from _length(keyword, side, writer.schema, reader.schema, path)
    for keyword in (*_SAME.get(reader.kind, ()), *NOT_JUDGED):
        wanted, given = reader.schema.get(keyword), writer.schema.get(keyword)
        if wanted is not None and wanted != given and wanted is not False:
            was = "nothing like it" if given is None else repr(given)
            yield path, f"{_kebab(keyword)}-changed", f"the reader asks for {keyword} {wanted!r}, written is {was}"


def _choices(writer: Branch, reader: Branch, path: str) -> Iterator[Reason]:
    choices = reader.values or ()
    shown = ", ".join(repr(value) for value in choices)
    if writer.values is None:
        if writer.kind == "boolean" and {True, False} <= set(choices):
            return
        if writer.kind != "null":
            yield path, "choices-narrowed", f"any {writer.kind} is written and only {shown} is read"
        return
    for value in writer.values:
        # 1 and True are equal in Python and not in JSON.
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            yield path, "choice-removed", f"{value!r} is written and only {shown} is read"


def _numbers(writer: Branch, reader: Branch, path: str) -> Iterator[Reason]:
    if reader.kind not in ("integer", "number"):
        return
    whole = writer.kind == "integer"
    for low in (True, False):
        wanted, given = _bound(reader.schema, low=low, whole=whole), _bound(writer.schema, low=low, whole=whole)
        if wanted is None:
            continue
        if given is None or (given < wanted if low else given > wanted):
            word = "at least" if low else "at most"
            was = "no such bound" if given is None else _bound_text(given, word)
            yield path, "range-narrowed", f"the reader asks for {_bound_text(wanted, word)}, written is {was}"
    step, given_step = reader.schema.get("multipleOf"), writer.schema.get("multipleOf")
    if step is not None and (given_step is None or given_step % step != 0) and not (whole and step == 1):
        yield path, "multiple-of-changed", f"the reader asks for multiples of {step}, written are those of {given_step}"


def _bound(schema: Mapping[str, Any], *, low: bool, whole: bool) -> tuple[float, int] | None:
    """Return the bound that holds, as (value, how far beyond it is still outside): (3, 1) is more than 3."""
    name, strict = ("minimum", "exclusiveMinimum") if low else ("maximum", "exclusiveMaximum")
    step = 1 if low else -1
    found: list[tuple[float, int]] = []
    if name in schema:
        found.append((schema[name], 0))
    if strict in schema:
        value = schema[strict]
        found.append((value + step, 0) if whole and value == int(value) else (value, step))
    if not found:
        return None
    return max(found) if low else min(found)


def _bound_text(bound: tuple[float, int], word: str) -> str:
    value, beyond = bound
    return f"{word} {value}" if not beyond else f"{'more' if beyond > 0 else 'less'} than {value}"


def _length(
    keyword: str, side: str, writer: Mapping[str, Any], reader: Mapping[str, Any], path: str
) -> Iterator[Reason]:
    wanted, given = reader.get(keyword), writer.get(keyword)
    if wanted is None or (side == "lower" and wanted == 0):
        return
    if given is None or (given < wanted if side == "lower" else given > wanted):
        was = "not bounded" if given is None else given
        yield path, f"{_kebab(keyword)}-changed", f"the reader asks for {keyword} {wanted}, written is {was}"


def _value(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[Reason]:
    """Yield why one value does not fit a scalar schema. What cannot be told for one value counts as not fitting."""
    for problem in _problems(value, schema):
        yield path, "choice-outside", f"{value!r} is written and does not fit {problem}"


def _problems(value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(value, str):
        yield from _text_problems(value, schema)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = _bound(schema, low=True, whole=False), _bound(schema, low=False, whole=False)
        if low is not None and (value, 0) < low:
            yield _bound_text(low, "at least")
        if high is not None and (value, 0) > high:
            yield _bound_text(high, "at most")
        if "multipleOf" in schema and value % schema["multipleOf"] != 0:
            yield f"multiples of {schema['multipleOf']}"


def _text_problems(value: str, schema: Mapping[str, Any]) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"minLength {schema['minLength']}"
    if len(value) > schema.get("maxLength", len(value)):
        yield f"maxLength {schema['maxLength']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"the pattern {schema['pattern']!r}"
    for keyword in ("format", "contentEncoding"):
        if keyword in schema:
            yield f"{keyword} {schema[keyword]!r}"


def _kebab(keyword: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", keyword).lower()
