"""What would have been right, where a validation message does not say: the choices of a union, an enum or a model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import inspect

_PATH: Final = re.compile(r" - at `\$(?P<path>[^`]*)`")
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")


def expectation(model: Any, data: bytes, message: str) -> str:
    """Return what was expected at the place a msgspec validation message names; empty when the message says it.

    Args:
        model: the type the data was decoded to.
        data: the JSON that does not fit.
        message: with the place behind ` - at `.
    """
    try:
        value: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return ""
    found = _PATH.search(message)
    steps = list(_STEP.finditer(found["path"])) if found else []
    kind: inspect.Type | None = inspect.type_info(model)
    for step in steps:
        kind, value = _descend(kind, value, step)
    return _describe(kind, value, is_missing="missing required field" in message)


class _Tag(inspect.Type):
    """The place of a union's tag, which is a field of no model."""

    choices: tuple[Any, ...]


def _descend(kind: inspect.Type | None, value: Any, step: re.Match[str]) -> tuple[inspect.Type | None, Any]:
    """Return the type and value one step further into the document; no type where it cannot be told."""
    name = step["name"]
    if name is None:
        index = step["index"]
        items = value if isinstance(value, list) else []
        inner = items[int(index)] if index.isdigit() and int(index) < len(items) else None
        return _item_type(kind), inner
    structs = _structs(kind)
    inner = value.get(name) if isinstance(value, dict) else None
    if structs and name == structs[0].tag_field:
        return _Tag(tuple(struct.tag for struct in structs)), inner
    struct = _chosen(structs, value)
    if struct is None:
        return None, inner
    return next((field.type for field in struct.fields if field.encode_name == name), None), inner


def _item_type(kind: inspect.Type | None) -> inspect.Type | None:
    for option in _options(kind):
        if isinstance(option, inspect.CollectionType):
            return option.item_type
        if isinstance(option, inspect.DictType):
            return option.value_type
    return None


def _options(kind: inspect.Type | None) -> Sequence[inspect.Type]:
    return kind.types if isinstance(kind, inspect.UnionType) else () if kind is None else (kind,)


def _structs(kind: inspect.Type | None) -> list[inspect.StructType]:
    return [option for option in _options(kind) if isinstance(option, inspect.StructType)]


def _chosen(structs: Sequence[inspect.StructType], value: Any) -> inspect.StructType | None:
    if len(structs) == 1:
        return structs[0]
    return next((item for item in structs if isinstance(value, dict) and value.get(item.tag_field) == item.tag), None)


def _describe(kind: inspect.Type | None, value: Any, *, is_missing: bool) -> str:
    structs = _structs(kind)
    if is_missing and structs and (struct := _chosen(structs, value)) is not None:
        required = [field.encode_name for field in struct.fields if field.required]
        return f"required: {', '.join(required)}" if required else ""
    if is_missing and structs:
        return f"`{structs[0].tag_field}` is one of: {_listed(struct.tag for struct in structs)}"
    choices = _choices(kind)
    if not choices or value in choices:
        return ""
    close = difflib.get_close_matches(str(value), map(str, choices), n=1)
    expected = f"expected one of: {_listed(choices)}"
    return f"did you mean {close[0]!r}? {expected}" if close else expected


def _choices(kind: inspect.Type | None) -> Sequence[Any]:
    for option in _options(kind):
        if isinstance(option, inspect.LiteralType):
            return option.values
        if isinstance(option, inspect.EnumType):
            return [member.value for member in option.cls]
        if isinstance(option, _Tag):
            return option.choices
    return ()


def _listed(choices: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, choices)))
