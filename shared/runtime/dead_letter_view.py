"""A dead letter as people look at it: where it came from and why it is here, read from its headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import RecordRefusedError, UndecodableError
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.limits import DecodeLimits
from omnibase_infra.shared.core.redaction import MASK, is_secret_key, redact_mapping, redact_text

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

# What workers and redrives write; everything else is the record's own.
TRANSPORT_HEADERS: Final = frozenset(TransportHeader)
_BINARY_TYPE: Final = "ce_type"
_LONGEST_NUMBER: Final = len(str(2**63))


class Place(NamedTuple):
    """Where a dead letter lies in the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Parse `<partition>/<offset>`, or an offset in partition 0.

        Raises:
            ValueError: it is neither.
        """
        partition, slash, offset = text.partition("/")
        first, second = _number(partition), _number(offset) if slash else 0
        if first is None or second is None:
            raise ValueError(f"{text!r} is no place, expected OFFSET or PARTITION/OFFSET, such as 17 or 0/17")
        return cls(first, second) if slash else cls(0, first)


class OriginalPlace(msgspec.Struct, frozen=True, gc=False):
    """The record that was given up: physical topic, partition, offset, and its time stamp in Unix milliseconds.

    The time stamp tells records apart that have the same place because the topic was deleted and made anew.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int = -1

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Attempt(NamedTuple):
    """What was given up: a record, or its redrive. Two dead letters of one attempt are one failure, written twice."""

    original: OriginalPlace
    redrive_id: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the headers of a dead letter say. Text that a header lacks is empty.

    Attributes:
        place: where it lies in the dead-letter topic.
        timestamp_ms: when it was written there, Unix milliseconds.
        size: bytes of key and value.
        event_type: CloudEvents type of the message; empty when it has none that can be read.
        original: where the record came from; None when the headers do not say, so that it is no worker's dead letter.
        redrive_id: of the redrive that failed, when it had been redriven before.
        attempts: how often it was tried.
    """

    place: Place
    timestamp_ms: int
    key: bytes | None
    size: int
    event_type: str = ""
    original: OriginalPlace | None = None
    worker: str = ""
    group: str = ""
    attempts: int = 0
    first_failed_at: str = ""
    failed_at: str = ""
    code: str = ""
    error_type: str = ""
    message: str = ""
    fingerprint: str = ""
    redrive_id: str = ""

    @property
    def attempt(self) -> Attempt | None:
        """Return what was given up; None when the headers do not say."""
        return None if self.original is None else Attempt(self.original, self.redrive_id)


class _Typed(msgspec.Struct):
    type: str = ""


_TYPE: Final = msgspec.json.Decoder(_Typed)


def parse_dead_letter(
    place: Place, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers
) -> DeadLetter:
    """Return what a record of a dead-letter topic says about itself. Never fails: what cannot be read is left out."""
    found: dict[str, bytes] = {}
    binary_type = b""
    for name, content in headers:
        # Our headers come after the record's own, so the last of a name is the one that counts.
        if name in TRANSPORT_HEADERS:
            found[name] = content or b""
        elif name == _BINARY_TYPE:
            binary_type = content or b""
    return DeadLetter(
        place=place,
        timestamp_ms=timestamp_ms,
        key=key,
        size=len(value or b"") + len(key or b""),
        event_type=_name(binary_type) if binary_type else _event_type(value),
        original=_original(found),
        worker=_name(found.get(TransportHeader.WORKER, b"")),
        group=_name(found.get(TransportHeader.GROUP, b"")),
        attempts=_number(_name(found.get(TransportHeader.ATTEMPT, b""))) or 0,
        first_failed_at=_text(found.get(TransportHeader.FIRST_FAILED_AT, b"")),
        failed_at=_text(found.get(TransportHeader.FAILED_AT, b"")),
        code=_name(found.get(TransportHeader.ERROR_CODE, b"")),
        error_type=_name(found.get(TransportHeader.ERROR_TYPE, b"")),
        message=_text(found.get(TransportHeader.ERROR_MESSAGE, b"")),
        fingerprint=_name(found.get(TransportHeader.ERROR_FINGERPRINT, b"")),
        redrive_id=_text(found.get(TransportHeader.REDRIVE_ID, b"")),
    )


def _original(found: dict[str, bytes]) -> OriginalPlace | None:
    topic = _name(found.get(TransportHeader.ORIGINAL_TOPIC, b""))
    partition = _number(_name(found.get(TransportHeader.ORIGINAL_PARTITION, b"")))
    offset = _number(_text(found.get(TransportHeader.ORIGINAL_OFFSET, b"")))
    if not topic or partition is None or offset is None:
        return None
    timestamp = _number(_text(found.get(TransportHeader.ORIGINAL_TIMESTAMP, b"")))
    return OriginalPlace(topic, partition, offset, -1 if timestamp is None else timestamp)


def _event_type(value: bytes | None) -> str:
    try:
        return _TYPE.decode(value or b"").type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


@lru_cache(maxsize=4096)
def _name(content: bytes) -> str:
    """Return text of which there are few: kept once for all dead letters."""
    return content.decode("utf-8", "backslashreplace")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER else None


class ReadableDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter whole, fit to be shown: values of secret names and tokens are masked everywhere.

    Attributes:
        headers: the record's own and ours, in order.
        envelope: attributes without the payload; None when the value is no envelope.
        problem: why there is no envelope.
        payload: the payload, or the whole value where there is no envelope, as JSON values.
        text: the value where it is not even JSON; what is not UTF-8 is escaped.
    """

    letter: DeadLetter
    headers: tuple[tuple[str, str], ...]
    envelope: dict[str, Any] | None = None
    problem: str = ""
    payload: Any = None
    text: str | None = None


def readable(letter: DeadLetter, value: bytes | None, headers: Headers, limits: DecodeLimits) -> ReadableDeadLetter:
    """Return a dead letter fit to be shown to people.

    Args:
        letter: what its headers say.
        value: of the record.
        headers: of the record.
        limits: what the worker decodes at most.
    """
    shown = tuple(_shown_headers(headers))
    problem, envelope, is_json = "", None, True
    try:
        decoded = envelopes.decode(value, list(headers), limits)
    except RecordRefusedError as error:
        problem, content = error.message, value
        # Beyond the limits it may be too deep for whatever walks it.
        is_json = not isinstance(error, UndecodableError)
    else:
        envelope, content = redact_mapping(_attributes(decoded)), bytes(decoded.data)
    if not content:
        return ReadableDeadLetter(letter=letter, headers=shown, envelope=envelope, problem=problem)
    payload, text = _masked(content, is_json=is_json)
    return ReadableDeadLetter(
        letter=letter, headers=shown, envelope=envelope, problem=problem, payload=payload, text=text
    )


def _masked(content: bytes, *, is_json: bool) -> tuple[Any, str | None]:
    """Return content as JSON values, or, where it is none, as text; without secrets."""
    if is_json:
        try:
            return redact_mapping({"": msgspec.json.decode(content)})[""], None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # Data of a binary-mode envelope need not be JSON.
            return None, redact_text(_text(content))
    return None, redact_text(_text(content))


def _attributes(envelope: Envelope) -> dict[str, Any]:
    fields = msgspec.structs.asdict(envelope)
    return {name: value for name, value in fields.items() if name != "data" and value is not None}


def _shown_headers(headers: Headers) -> Iterable[tuple[str, str]]:
    for name, content in headers:
        yield name, MASK if is_secret_key(name) else redact_text(_text(content or b""))
