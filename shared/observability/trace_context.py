"""Trace context by hand: what a `traceparent` says, and which ids our own spans get. Imports no tracing library.

Ids are derived where they can be, so that a redelivered message continues the trace of its first delivery, repeats
the same outputs, and a later attempt can name the first one without having kept it.
"""

from __future__ import annotations

import re
import uuid
import zlib
from hashlib import blake2b
from typing import Final, NamedTuple

SAMPLED: Final = 0x01
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z", re.DOTALL)
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16


class TraceParent(NamedTuple):
    """A W3C `traceparent`: ids in lower-case hex, as they are on the wire."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """Return whether the caller keeps its part of the trace."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse_traceparent(text: str | None) -> TraceParent | None:
    """Return what the attribute says; None when it is missing or no `traceparent`, which begins a new trace."""
    match = _FORM.match(text) if text is not None else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    # A later version may say more behind what we know, version 00 may not.
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceParent(trace_id, span_id, int(flags, 16))


def trace_id_of(conversation: str) -> str:
    """Return the id of a trace that begins with a message: the correlation id, where that is a UUID.

    Whoever has the one so has the other.
    """
    try:
        found = uuid.UUID(conversation).hex
    except ValueError:
        found = _NO_TRACE
    return found if found != _NO_TRACE else blake2b(conversation.encode(), digest_size=16).hexdigest()


def first_span_id(worker: str, source: str, message_id: str, redrive_id: str = "") -> str:
    """Return the id of the span of a message's first attempt in a worker; a redrive is a new attempt."""
    text = "\0".join((worker, source, message_id, redrive_id))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class RootSampler:
    """Decides on conversations that nobody has decided on: the same conversation alike in every process.

    So an untraced message carries nothing, and a worker behind another one still traces what that one traced.
    """

    __slots__ = ("_bound", "ratio")

    def __init__(self, ratio: float) -> None:
        """Take the share of conversations to trace, 0 to 1."""
        self.ratio: Final = ratio
        self._bound = round(ratio * 2**32)

    def wants(self, conversation: str) -> bool:
        """Return whether the conversation is traced. A hash: ids of other producers may be anything but random."""
        return zlib.crc32(conversation.encode("utf-8", "surrogatepass")) < self._bound
