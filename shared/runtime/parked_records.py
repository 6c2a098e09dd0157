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
    ours: dict[str, str] = {}
    own: Headers = []
    for name, value in record.headers or ():
        if name in _OURS:
            ours[name] = (value or b"").decode("utf-8", "replace")
        else:
            own.append((name, value))
    try:
        return _entry(ours, own, record)
    except (ValueError, KeyError) as error:
        raise InvalidEnvelopeError(
            f"not an entry of a retry topic: {error}",
            hint="only its own worker and `omninode dlq` write to a retry topic",
        ) from None


def _entry(ours: Mapping[str, str], own: Headers, record: Record) -> Entry:
    state = ours.get(TransportHeader.PARKED_STATE)
    not_before = ours.get(TransportHeader.NOT_BEFORE)
    return Entry(
        state=None if state is None else ParkedState(state),
        group=ours.get(TransportHeader.REDRIVE_GROUP) or ours[TransportHeader.GROUP],
        written_by=ours.get(TransportHeader.PARKED_BY, ""),
        origin=Origin(
            topic=ours.get(TransportHeader.ORIGINAL_TOPIC, ""),
            partition=int(ours.get(TransportHeader.ORIGINAL_PARTITION, record.work.partition)),
            offset=int(ours[TransportHeader.ORIGINAL_OFFSET]),
            timestamp_ms=int(ours.get(TransportHeader.ORIGINAL_TIMESTAMP, record.timestamp_ms)),
            redrive_id=ours.get(TransportHeader.REDRIVE_ID, ""),
        ),
        attempts=int(ours.get(TransportHeader.ATTEMPT, "0")),
        not_before=clock.parse_rfc3339(not_before).timestamp() if not_before else 0.0,
        first_failed_at=ours.get(TransportHeader.FIRST_FAILED_AT, ""),
        own_headers=own or None,
    )


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
    headers = [*(record.headers or ()), *((name, value.encode()) for name, value in ours)]
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
