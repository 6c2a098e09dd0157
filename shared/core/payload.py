"""Decode payloads into their models, with errors that say where. Used by every generated handler and by the client."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from omnibase_infra.shared.core.errors import InvalidPayloadError

T = TypeVar("T")


def decode_payload(decoder: msgspec.json.Decoder[T], data: msgspec.Raw | bytes) -> T:
    """Return the payload as its model.

    Raises:
        InvalidPayloadError: holds the path (`$.parameters.quantity`) and what was expected, never the value.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise InvalidPayloadError(f"payload does not fit its model: {error}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidPayloadError(f"payload is missing or not JSON: {error}") from None
