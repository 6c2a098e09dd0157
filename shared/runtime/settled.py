"""What becomes of a record: its identity for the inbox, and its durable outcome with the outputs to produce."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from omnibase_infra.shared.core.errors import IdReusedError
from omnibase_infra.shared.core.ids import uuid7_milliseconds
from omnibase_infra.shared.core.ports import AlreadyProcessed, InboxMessage, StoredOutput
from omnibase_infra.shared.runtime.records import Record

_LAST_DAY_MS = 253_402_128_000_000  # 9999-12-30; the day after stands for infinity in some drivers


class Settled(msgspec.Struct, gc=False):
    """A record whose outcome is durable, or needs no durability: its outputs may be produced.

    Nothing refers back to it, so it cannot be part of a cycle and the collector need not look at it.

    Attributes:
        refused: set when the record itself goes to the dead-letter topic instead.
        failed / repeated: whether the answer is a failure; whether it was answered from the inbox.
    """

    record: Record
    outputs: Sequence[StoredOutput]
    refused: IdReusedError | None = None
    failed: bool = False
    repeated: bool = False


def inbox_message(record: Record) -> InboxMessage:
    """Return the record's identity for the inbox; its day comes from the id's own time, so it never moves.

    A record read from a retry topic is the one of its source topic, with that one's time stamp.
    """
    envelope, origin = record.envelope, record.origin
    own_ms = uuid7_milliseconds(envelope.id)
    if origin is None:
        topic, partition, offset, timestamp_ms = (
            record.work.physical,
            record.work.partition,
            record.offset,
            record.timestamp_ms,
        )
    else:
        topic, partition, offset, timestamp_ms = origin.topic, origin.partition, origin.offset, origin.timestamp_ms
    day_ms = own_ms if own_ms is not None else max(timestamp_ms, 0)
    return InboxMessage(
        source=envelope.source,
        message_id=envelope.id,
        redrive_id=record.redrive_id,
        payload_hash=hashlib.blake2b(bytes(envelope.data), digest_size=16).digest(),
        topic=topic,
        partition=partition,
        offset=offset,
        # A UUIDv7 reaches beyond the calendar; a record with such an id must not fail for ever.
        day_ms=min(day_ms, _LAST_DAY_MS),
        timed=own_ms is not None,
    )


def settled_before(record: Record, claim: object) -> Settled:
    """Return what an earlier delivery of the message left to do: send its outputs again, or refuse a reused id."""
    if isinstance(claim, AlreadyProcessed):
        return Settled(record, claim.outputs, repeated=True)
    envelope = record.envelope
    return Settled(
        record,
        (),
        refused=IdReusedError(
            f"id {envelope.id[:80]!r} of {envelope.source[:120]!r} was used before with another payload",
            hint="a new message needs a new id",
        ),
    )
