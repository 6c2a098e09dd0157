"""A key of which something is parked, a record that is, and what both ask of the worker."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from omnibase_infra.shared.runtime.parked_records import Identity
from omnibase_infra.shared.runtime.records import Record

if TYPE_CHECKING:
    from omnibase_infra.shared.runtime.parked_keys import PartitionParking

# A key, or the identity of a record that has no order.
Slot = bytes | Identity


class Host(Protocol):
    """What a partition asks of the worker."""

    def now(self, topic: str) -> float:
        """Return seconds on the topic's own clock, which stands still while the topic waits for a dependency."""
        ...

    def seconds_until(self, not_before: float) -> float:
        """Return how long until this Unix time, at least 0 and at most the longest delay there is."""
        ...

    def has_room(self, *, due: bool = False) -> bool:
        """Return whether more records may be kept in memory; for those that are due there is twice the room."""
        ...

    def make_room(self) -> None:
        """Let go of contents that cannot run now, of all partitions; not often."""
        ...

    def start(self, record: Record) -> None:
        """Let a parked record run."""
        ...

    def go_on(self, followers: Iterable[Record]) -> None:
        """Run records of the source whose key is not parked any more, in this order."""
        ...

    def skip(self, record: Record) -> None:
        """Finish a record without running it: it is known, or it is a marker that has been read."""
        ...

    def refuse(self, record: Record, error: Exception) -> None:
        """Give up on a parked record that cannot be run."""
        ...

    def unload(self, record: Record) -> None:
        """Forget a waiting record's content; it is read again when it is due."""
        ...

    def sweep(self, parking: PartitionParking, offset: int) -> None:
        """Read the retry partition again from here."""
        ...

    def park_followers(self, parking: PartitionParking, key: ParkedKey) -> None:
        """Write the records of the source that follow this key to the retry topic."""
        ...

    def void(self, record: Record) -> None:
        """Say in the retry topic that this entry, of an owner before us, stands for nothing any more."""
        ...


class ParkedRecord:
    """A record in the retry topic that has not ended."""

    __slots__ = ("attempts", "due", "first_failed_at", "identity", "loaded", "record", "refusal")

    def __init__(self, identity: Identity, attempts: int, due: float, first_failed_at: str) -> None:
        self.identity = identity
        self.attempts = attempts
        self.due = due
        self.first_failed_at = first_failed_at
        self.record: Record | None = None  # None until it was read from the retry topic
        self.loaded = False
        self.refusal: Exception | None = None


class ParkedKey:
    """The records of one key that must run before any other of it.

    Attributes:
        followers: records of the source, in memory, behind all that is parked.
        delivering: source records on their way into the retry topic.
        running: the one that has been let run.
        highest: the largest original offset that was parked.
        held: original offsets of dead letters that somebody has to decide on first.
        alarm: when it is looked at next because its head is due then.
    """

    __slots__ = ("_order", "alarm", "delivering", "followers", "held", "highest", "records", "running", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.records: dict[Identity, ParkedRecord] = {}
        self.followers: deque[Record] = deque()
        self.delivering: dict[Identity, Record] = {}
        self.running: ParkedRecord | None = None
        self.held: dict[int, Record | None] = {}
        self.highest = -1
        self.alarm = math.inf
        self._order: list[Identity] = []

    def add(self, parked: ParkedRecord) -> None:
        """Put a record in its place."""
        self.records[parked.identity] = parked
        self.highest = max(self.highest, parked.identity[0])
        heapq.heappush(self._order, parked.identity)

    def head(self) -> ParkedRecord | None:
        """Return the record that is to run next."""
        order = self._order
        while order and order[0] not in self.records:
            heapq.heappop(order)
        return self.records[order[0]] if order else None

    def may_run(self, parked: ParkedRecord) -> bool:
        """Return whether nothing of the key holds its head back but time."""
        if self.running is not None:
            return False
        offset, redrive_id = parked.identity
        if self.held and offset >= min(self.held) and not (redrive_id and offset in self.held):
            return False
        if not redrive_id and self.followers and self.followers[0].offset < offset:
            return False  # it is about to be parked before this one
        # One on its way that belongs before it: its write failed in part and is being repeated.
        return not self.delivering or min(self.delivering) > parked.identity
