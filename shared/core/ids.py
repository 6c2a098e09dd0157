"""Message ids: UUIDv7 for originals (RFC 9562), UUIDv5 for what another message caused."""

from __future__ import annotations

import os
import time
import uuid
from hashlib import sha1
from typing import Final

# UUIDv5 namespace of this project's derived ids; part of the wire format, never to change.
DERIVED_ID_NAMESPACE = uuid.UUID("5f0e6a3c-8f5b-5f0c-9a39-0d1f6c1f8e11")
_NAMESPACE_BYTES: Final = DERIVED_ID_NAMESPACE.bytes
# The digit that holds the variant (RFC 9562, section 4.1): its two high bits are 10.
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def original_id() -> str:
    """Return a new UUIDv7: sortable by its millisecond time stamp (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (random >> 68 & 0xFFF) << 64
    value |= 0b10 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF
    return str(uuid.UUID(int=value))


def derived_id(
    *, source: str, cause_id: str, worker: str, step: str, index: int, event_type: str, redrive_id: str = ""
) -> str:
    """Return the id of a message caused by (`source`, `cause_id`): equal inputs give equal ids.

    A redelivered or retried cause so produces the same output ids, which is what lets consumers drop repeats.
    """
    name = "\0".join((source, cause_id, worker, step, str(index), event_type, redrive_id))
    # `uuid.uuid5` written out, at half its cost: every answer takes one.
    text = sha1(_NAMESPACE_BYTES + name.encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def uuid7_milliseconds(value: str) -> int | None:
    """Return the Unix time in milliseconds inside a UUIDv7, or None when `value` is no UUIDv7."""
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        return None
    return parsed.int >> 80 if parsed.version == 7 else None
