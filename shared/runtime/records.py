"""A consumed record and the partition it came from, as they travel through the worker.

Made on the consumer thread, handed to the event loop once per batch; after that only the loop changes them,
but for `PartitionWork.advance`, which only the consumer thread calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.runtime.crash_record import CrashRecord

if TYPE_CHECKING:
    from omnibase_infra.shared.core.envelope import Envelope
    from omnibase_infra.shared.core.errors import OperationRejectedError
    from omnibase_infra.shared.runtime.lanes import Lane
    from omnibase_infra.shared.runtime.parked_keys import PartitionParking

# Stages of a record. It leaves the worker exactly once, by becoming DONE (committable) or GONE (not ours any more).
WAITING: Final = 0
RUNNING: Final = 1
DONE: Final = 2
GONE: Final = 3

Headers = list[tuple[str, bytes | None]]
NO_OFFSET: Final = -1001


class Origin(msgspec.Struct, frozen=True):
    """Where a record that was read from a retry topic came from, and which redrive put it there, if one did."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    redrive_id: str = ""


class Record:
    """One record in flight. Mutable and slotted: a few hundred thousand of these are made per second."""

    __slots__ = (
        "admitted",
        "attempts",
        "envelope",
        "first_failed_at",
        "headers",
        "key",
        "lane",
        "offset",
        "origin",
        "refusal",
        "size",
        "stage",
        "timestamp_ms",
        "value",
        "work",
    )

    def __init__(
        self,
        work: PartitionWork,
        offset: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
    ) -> None:
        self.work = work
        self.offset = offset
        self.timestamp_ms = timestamp_ms
        self.key = key
        self.value = value
        self.headers = headers
        # The header that most records have is too small to count.
        if value is not None and key is not None and (not headers or headers == STRUCTURED_HEADERS):
            self.size = len(value) + len(key)
        else:
            self.size = _size(key, value, headers)
        self.stage = WAITING
        self.attempts = 0
        self.first_failed_at = ""
        self.admitted = False  # whether the rate limits have given it its place; later attempts need no other
        self.refusal: OperationRejectedError | None = None  # what it is answered with instead of being run
        self.envelope: Envelope = None  # type: ignore[assignment]  # set by intake before anything reads it
        self.lane: Lane | None = None  # None for a record that no operation may see
        self.origin: Origin | None = None  # set on records read from a retry topic

    @property
    def redrive_id(self) -> str:
        """Return the id of the redrive this is an attempt of, else nothing."""
        return self.origin.redrive_id if self.origin is not None else ""

    def forget_content(self) -> None:
        """Drop what only running it takes: a finished record may stay in the ledger behind one that is not."""
        self.key = self.value = self.headers = None
        self.envelope = None  # type: ignore[assignment]  # nothing reads it any more

    def __repr__(self) -> str:
        return f"{self.work.physical}[{self.work.partition}]@{self.offset}"


def _size(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """Return the bytes that hold memory."""
    size = len(value) if value is not None else 0
    if key is not None:
        size += len(key)
    if headers and headers != STRUCTURED_HEADERS:
        size += sum([len(name) + len(content or b"") for name, content in headers])
    return size


class PartitionWork:
    """The work of one assigned partition: its offset ledger and its busy keys.

    The ledger is the records in offset order. An offset is committable when its record and all before it are
    done; offsets that never came (compaction, transaction markers) are not in it and so never waited for.

    Attributes:
        topic / physical / partition: where the records come from; `topic` is logical.
        source_topic: the topic whose operations the records ask for: of a retry topic its source, else `topic`.
        busy: per key the records that wait behind the one in flight; a key is present while it has one in flight.
        running: records handed to a handler and not finished.
        closed: the partition is being given up; records not yet started are dropped.
        is_retry: whether this is a retry topic's partition.
        last_entered: offset of the newest record in the ledger.
        parking: what is parked of this source partition; the retry partition shares it. None without retry topics.
        crash: what its commits say about processes that died with it.
    """

    __slots__ = (
        "_committable",
        "_ledger",
        "busy",
        "closed",
        "crash",
        "is_retry",
        "last_entered",
        "parking",
        "partition",
        "physical",
        "running",
        "source_topic",
        "topic",
    )

    def __init__(
        self,
        topic: TopicName,
        physical: str,
        partition: int,
        *,
        source: TopicName | None = None,
        start: int = NO_OFFSET,
    ) -> None:
        """Begin with a partition at its committed offset; `source` is set for one of a retry topic."""
        self.topic = str(topic)
        self.is_retry = source is not None
        self.source_topic = self.topic if source is None else str(source)
        self.physical = physical
        self.partition = partition
        self.busy: dict[bytes, deque[Record] | None] = {}
        self.running = 0
        self.closed = False
        self.parking: PartitionParking | None = None
        self.crash = CrashRecord()
        self._ledger: deque[Record] = deque()
        self._committable = start
        self.last_entered = NO_OFFSET

    @property
    def finished_to(self) -> int:
        """Return the offset to commit as it was last looked at, or `NO_OFFSET`."""
        return self._committable

    def enter(self, records: Iterable[Record]) -> None:
        """Append records in offset order. Consumer thread, before the hand-over."""
        self._ledger.extend(records)
        self.last_entered = self._ledger[-1].offset

    def advance(self) -> int:
        """Return the offset to commit (the last finished one plus one), or `NO_OFFSET` when none is. Consumer thread.

        Safe beside the loop: the loop only sets stages, this only removes from the left.
        """
        ledger = self._ledger
        while ledger and ledger[0].stage == DONE:
            self._committable = ledger.popleft().offset + 1
        return self._committable

    def reached_end(self, offset: int) -> None:
        """Go up to the end of the log where nothing is left to finish: what lies between is no records. Consumer thread.

        Call it after the records before the end have entered.
        """
        self.advance()
        if not self._ledger and offset > self._committable:
            self._committable = offset

    def holds_more_than(self, limit: int) -> bool:
        """Return whether more records than that are kept for the first unfinished one. Consumer thread."""
        if len(self._ledger) <= limit:
            return False
        self.advance()
        return len(self._ledger) > limit

    def waiting(self) -> list[Record]:
        """Return the records that have not started."""
        return [record for record in list(self._ledger) if record.stage == WAITING]

    @property
    def unfinished(self) -> int:
        """Return how many records are in the ledger, an upper bound on those in flight."""
        return len(self._ledger)

    def describe(self) -> dict[str, Any]:
        """Return what `/info` shows of the partition."""
        parked = self.parking.size if self.parking is not None else 0
        return {"topic": self.physical, "partition": self.partition, "in_flight": self.unfinished, "parked": parked}
