"""What the client's opaque group metadata says: whether it stands for a member at all."""

from __future__ import annotations

import struct
from typing import Final

_MAGIC: Final = b"CGMDv2:"
_GENERATION: Final = struct.Struct("<i")


def is_member(metadata: bytes) -> bool:
    """Return whether `Consumer.consumer_group_metadata()` is a member's, whose commits a coordinator can refuse.

    A client that was put out of its group returns metadata without a member or generation, which a coordinator
    takes for a consumer outside any group and does not refuse.

    Raises:
        ValueError: the client library has another format now.
    """
    start = len(_MAGIC) + _GENERATION.size
    if not metadata.startswith(_MAGIC) or len(metadata) < start:
        raise ValueError(f"group metadata of an unknown format: {metadata[:20]!r}")
    (generation,) = _GENERATION.unpack_from(metadata, len(_MAGIC))
    _, _, rest = metadata[start:].partition(b"\0")
    member, _, _ = rest.partition(b"\0")
    return bool(generation > 0 and member)
