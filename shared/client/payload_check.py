"""Payloads are refused here rather than by the worker: with the path, what was expected, and what was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from omnibase_infra.shared.client.payload_expectation import expectation
from omnibase_infra.shared.core.errors import InvalidPayloadError, UndecodableError
from omnibase_infra.shared.core.limits import DecodeLimits
from omnibase_infra.shared.core.payload import decode_payload

_ENCODER = msgspec.json.Encoder()


def check_payload(decoder: msgspec.json.Decoder[Any], payload: Any, limits: DecodeLimits) -> msgspec.Raw:
    """Return the payload as compact JSON that fits the decoder's type.

    Args:
        decoder: of the request model.
        payload: a model instance, plain data, or JSON as text or bytes.
        limits: what the worker decodes at most.

    Raises:
        InvalidPayloadError: holds the path, what was expected and, as the hint, what there is to choose from.
    """
    is_text = isinstance(payload, str | bytes | bytearray | memoryview)
    data = _json_text(payload, limits) if is_text else _encoded(payload)
    try:
        request = decode_payload(decoder, data)
    except InvalidPayloadError as error:
        # msgspec names no place for the document as a whole.
        message = error.message if " at `$" in error.message else f"{error.message} - at `$`"
        raise InvalidPayloadError(message, hint=expectation(decoder.type, data, message)) from None
    if not isinstance(payload, msgspec.Struct):
        _refuse_unknown_fields(data, request)
    # Text is written anew: white space and escapes would cost the worker its fast path.
    return msgspec.Raw(_ENCODER.encode(request) if is_text else data)


def _encoded(payload: Any) -> bytes:
    try:
        return _ENCODER.encode(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidPayloadError(f"payload cannot be written as JSON: {error}") from None


def _json_text(payload: str | bytes | bytearray | memoryview, limits: DecodeLimits) -> bytes:
    try:
        data = payload.encode() if isinstance(payload, str) else bytes(payload)
        limits.check(data)
    except UnicodeEncodeError as error:
        raise InvalidPayloadError(f"payload is not valid Unicode: {error.reason}") from None
    except UndecodableError as error:
        text = error.message if data else "it is empty"
        raise InvalidPayloadError(f"payload is not acceptable JSON: {text}") from None
    return data


def _refuse_unknown_fields(data: bytes, request: Any) -> None:
    """Refuse fields the model does not have: the worker would ignore them, and so a typing mistake."""
    for path, name, known in _unknown_fields(msgspec.json.decode(data), request, "$"):
        close = difflib.get_close_matches(name, known, n=1)
        raise InvalidPayloadError(
            f"payload does not fit its model: unknown field `{name}` - at `{path}`",
            hint=f"did you mean `{close[0]}`?" if close else f"there are: {', '.join(known) or 'no fields'}",
        )


def _unknown_fields(value: Any, model: Any, path: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield path, name and the known names of each field in the JSON value that the model built from it lacks."""
    if isinstance(value, list) and isinstance(model, list | tuple):
        for index, (item, its_model) in enumerate(zip(value, model, strict=False)):
            yield from _unknown_fields(item, its_model, f"{path}[{index}]")
    elif isinstance(value, dict) and isinstance(model, msgspec.Struct):
        known = _attributes(type(model))
        for name, item in value.items():
            if name not in known:
                yield path, name, list(known)
            elif attribute := known[name]:
                yield from _unknown_fields(item, getattr(model, attribute), f"{path}.{name}")
    elif isinstance(value, dict) and isinstance(model, dict):
        for name, item in value.items():
            if name in model:
                yield from _unknown_fields(item, model[name], f"{path}.{name}")


@cache
def _attributes(model: type[msgspec.Struct]) -> dict[str, str]:
    """Return attribute names by JSON names; the tag of a union has no attribute."""
    names = dict(zip(model.__struct_encode_fields__, model.__struct_fields__, strict=True))
    tag = model.__struct_config__.tag_field
    return {tag: "", **names} if tag else names
