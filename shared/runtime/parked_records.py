"""What lies in a retry topic, as bytes: parked records and markers. The protocol is decision 0012.

A parked record is the original's key, value and own headers, with ours behind them. A marker has no value; it says
what became of a parked record since, so that a new owner of the partition knows it without a database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core.errors import InvalidEnvelopeError
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.runtime.records import Headers, Origin, Record

# Of a record inside one retry partition: its original offset, and the redrive that put it there if one did.
Identity = tuple[int, str]
_OURS: Final = frozenset(header.value for header in TransportHeader)
_ORIGIN: Final = (
    TransportHeader.ORIGINAL_TOPIC,
    TransportHeader.ORIGINAL_PARTITION,
    TransportHeader.ORIGINAL_OFFSET,
    TransportHeader.ORIGINAL_TIMESTAMP,
)


class ParkedState(StrEnum):
    """What a marker says of its record."""

    DONE = "done"  # it has ended: completed, failed or dead
    RETRY = "retry"  # it failed once more and is due later
    HELD = "held"  # it is done, dead, and the later records of its key wait for somebody to decide
    RELEASED = "released"  # somebody has decided


_STATES: Final = tuple(state.value for state in ParkedState)


class Entry(msgspec.Struct, frozen=True):
    """One record of a retry topic, read.

    Attributes:
        state: of a marker; None for a parked record.
        group: whose it is; another worker's major version may share the topic.
        written_by: the assignment that wrote it; empty for a redriven record.
        not_before: Unix seconds before which it is not tried again.
        own_headers: the original's.
    """

    state: ParkedState | None
    group: str
    written_by: str
    origin: Origin
    attempts: int
    not_before: float
    first_failed_at: str
    own_headers: Headers | None

    @property
    def identity(self) -> Identity:
        """Return what the entry is known by in its partition."""
        return self.origin.offset, self.origin.redrive_id


def read_entry(record: Record) -> Entry:
    """Return what a record of a retry topic is.

    Raises:
        InvalidEnvelopeError: it lacks what every entry has; somebody else wrote it.
    """
    ours = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers or () if name in _OURS}
    try:
        return _entry(ours, record)
    except ValueError as error:
        raise InvalidEnvelopeError(
            f"not an entry of a retry topic: {error}",
            hint="only its own worker and `omninode dlq` write to a retry topic",
        ) from None


def _entry(ours: Mapping[str, str], record: Record) -> Entry:
    state = ours.get(TransportHeader.PARKED_STATE)
    origin = Origin(
        topic=ours.get(TransportHeader.ORIGINAL_TOPIC, ""),
        partition=_number(ours, TransportHeader.ORIGINAL_PARTITION, record.work.partition),
        offset=_number(ours, TransportHeader.ORIGINAL_OFFSET),
        timestamp_ms=_number(ours, TransportHeader.ORIGINAL_TIMESTAMP, record.timestamp_ms),
        redrive_id=ours.get(TransportHeader.REDRIVE_ID, ""),
    )
    group = ours.get(TransportHeader.REDRIVE_GROUP) or ours.get(TransportHeader.GROUP)
    if not group:
        raise ValueError(f"it has no header {TransportHeader.GROUP}")
    if state is not None and state not in _STATES:
        raise ValueError(f"header {TransportHeader.PARKED_STATE} is {state[:60]!r}, expected {', '.join(_STATES)}")
    return Entry(
        state=None if state is None else ParkedState(state),
        group=group,
        written_by=ours.get(TransportHeader.PARKED_BY, ""),
        origin=origin,
        attempts=_number(ours, TransportHeader.ATTEMPT, 0),
        not_before=_time(ours, TransportHeader.NOT_BEFORE),
        first_failed_at=ours.get(TransportHeader.FIRST_FAILED_AT, ""),
        own_headers=own_headers(record.headers) or None,
    )


def _number(ours: Mapping[str, str], header: TransportHeader, default: int | None = None) -> int:
    value = ours.get(header)
    if value is None and default is not None:
        return default
    if value is None:
        raise ValueError(f"it has no header {header}")
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"header {header} is {value[:60]!r}, no number") from None


def _time(ours: Mapping[str, str], header: TransportHeader) -> float:
    value = ours.get(header)
    try:
        return clock.parse_rfc3339(value).timestamp() if value else 0.0
    except ValueError as error:
        raise ValueError(f"header {header}: {error}") from None


def own_headers(headers: Headers | None) -> Headers:
    """Return the headers that are not ours."""
    return [(name, value) for name, value in headers or () if name not in _OURS]


def origin_of(record: Record) -> Origin:
    """Return where a record came from first: of one that was parked the place it was parked from."""
    if record.origin is not None:
        return record.origin
    return Origin(record.work.physical, record.work.partition, record.offset, record.timestamp_ms)


def origin_headers(origin: Origin) -> list[tuple[str, str]]:
    """Return the headers that say where a record came from."""
    values = (origin.topic, str(origin.partition), str(origin.offset), str(origin.timestamp_ms))
    return [(name.value, value) for name, value in zip(_ORIGIN, values, strict=True)]


def parked_record(
    topic: str, record: Record, why: Sequence[tuple[str, str]], *, not_before: float, written_by: str
) -> OutboundRecord:
    """Return a record of a source topic as it is parked.

    Args:
        topic: logical retry topic.
        record: as consumed.
        why: the headers that say who failed and how, from `DeadLetters.failure_headers`.
        not_before: Unix seconds.
        written_by: id of the assignment.
    """
    ours = [
        *origin_headers(origin_of(record)),
        *why,
        (TransportHeader.NOT_BEFORE.value, clock.rfc3339(not_before)),
        (TransportHeader.PARKED_BY.value, written_by),
    ]
    # A dead letter that somebody sent to the source again has headers of ours, of another life.
    headers = [*own_headers(record.headers), *((name, value.encode()) for name, value in ours)]
    return OutboundRecord(topic, record.value, record.key, headers, record.work.partition)


def marker(
    topic: str,
    record: Record,
    state: ParkedState,
    *,
    group: str,
    written_by: str,
    attempts: int = 0,
    not_before: float = 0.0,
) -> OutboundRecord:
    """Return a marker about a record, parked or about to hold its key back."""
    origin = origin_of(record)
    ours = [
        (TransportHeader.PARKED_STATE, state.value),
        (TransportHeader.ORIGINAL_OFFSET, str(origin.offset)),
        (TransportHeader.GROUP, group),
        (TransportHeader.PARKED_BY, written_by),
    ]
    if origin.redrive_id:
        ours.append((TransportHeader.REDRIVE_ID, origin.redrive_id))
    if state is ParkedState.RETRY:
        ours.append((TransportHeader.ATTEMPT, str(attempts)))
        ours.append((TransportHeader.NOT_BEFORE, clock.rfc3339(not_before)))
        ours.append((TransportHeader.FIRST_FAILED_AT, record.first_failed_at))
    headers = [(name.value, value.encode()) for name, value in ours]
    return OutboundRecord(topic, None, record.key, headers, record.work.partition)
