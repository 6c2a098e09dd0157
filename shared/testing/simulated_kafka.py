"""A Kafka cluster in memory: logs, committed offsets, and a coordinator that moves partitions as it pleases.

For simulations in virtual time. Consumers and producers of it are in `simulated_consumer` and `simulated_producer`.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol
from zlib import crc32

from omnibase_infra.shared.testing.virtual_loop import EPOCH, VirtualLoop, VirtualScheduler

Place = tuple[str, int]
Headers = Sequence[tuple[str, bytes | None]]


class StoredRecord(NamedTuple):
    """A record in a log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Commit(NamedTuple):
    """A committed offset with the text beside it."""

    offset: int
    metadata: str


class PartitionLog:
    """The records of one partition. Offsets may have gaps, as after compaction."""

    def __init__(self) -> None:
        self.records: list[StoredRecord] = []
        self.end = 0
        self._offsets: list[int] = []

    def append(self, record: StoredRecord) -> None:
        """Add a record at its offset."""
        self.records.append(record)
        self._offsets.append(record.offset)
        self.end = record.offset + 1

    def index(self, offset: int) -> int:
        """Return the index of the first record at or after an offset."""
        return bisect.bisect_left(self._offsets, offset)

    def before(self, offset: int) -> list[StoredRecord]:
        """Return the records below an offset."""
        return self.records[: self.index(offset)]


class SimulatedCluster:
    """Brokers as one thing: either they answer or they do not.

    Attributes:
        away: nothing is appended, committed or fetched.
        gap: chance that an append leaves an offset out.
        on_append / on_commit: told of every append and every commit that was accepted.
    """

    def __init__(self, scheduler: VirtualScheduler) -> None:
        self.scheduler = scheduler
        self.loop = VirtualLoop(scheduler, "cluster")  # type: ignore[abstract]  # in typeshed only
        self.away = False
        self.gap = 0.0
        self.logs: dict[Place, PartitionLog] = {}
        self.counts: dict[str, int] = {}
        self.committed: dict[str, dict[Place, Commit]] = {}
        self.on_append: list[Callable[[StoredRecord], None]] = []
        self.on_commit: list[Callable[[str, Place, Commit, str], None]] = []

    def create(self, topic: str, partitions: int) -> None:
        """Create a topic by its name on the cluster."""
        self.counts[topic] = partitions
        self.logs |= {(topic, number): PartitionLog() for number in range(partitions)}

    def places(self, topic: str) -> list[Place]:
        """Return the partitions of a topic."""
        return [(topic, number) for number in range(self.counts[topic])]

    def partition_of(self, topic: str, key: bytes | None) -> int:
        """Return where a record goes: by its key, or anywhere."""
        count = self.counts[topic]
        return self.scheduler.random.randrange(count) if key is None else crc32(key) % count

    def append(
        self, topic: str, partition: int | None, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> StoredRecord:
        """Append a record now."""
        number = self.partition_of(topic, key) if partition is None else partition
        log = self.logs[topic, number]
        offset = log.end + (1 if self.gap and self.scheduler.random.random() < self.gap else 0)
        now_ms = int((EPOCH + self.scheduler.now) * 1000)
        record = StoredRecord(topic, number, offset, now_ms, key, value, tuple(headers))
        log.append(record)
        for listener in self.on_append:
            listener(record)
        return record

    def commit(self, group: str, offsets: Mapping[Place, Commit], by: str = "operator") -> None:
        """Commit now, for a member or an operator."""
        self.committed.setdefault(group, {}).update(offsets)
        for place, commit in offsets.items():
            for listener in self.on_commit:
                listener(group, place, commit, by)

    def position(self, group: str, place: Place) -> int:
        """Return the committed offset, 0 for none."""
        commit = self.committed.get(group, {}).get(place)
        return 0 if commit is None else commit.offset

    def lag(self, group: str, topic: str) -> int:
        """Return how many records of a topic are not committed."""
        return sum(
            len(self.logs[place].records) - self.logs[place].index(self.position(group, place))
            for place in self.places(topic)
        )


class Member(Protocol):
    """What the coordinator knows of a consumer."""

    name: str
    fenced: bool
    news: deque[tuple[str, list[Place]]]

    def wake(self) -> None:
        """Let it poll soon."""
        ...


class SimulatedCoordinator:
    """Moves partitions between members as a cooperative rebalance does: revoked here first, then assigned there.

    Attributes:
        busy: the member whose callback runs; others get theirs afterwards.
    """

    def __init__(self, cluster: SimulatedCluster, group: str, topics: Iterable[str]) -> None:
        self.cluster = cluster
        self.group = group
        self.topics = tuple(topics)
        self.busy: Member | None = None
        self.members: list[Member] = []
        self.owner: dict[Place, Member] = {}
        self._leaving: set[Place] = set()

    def join(self, member: Member) -> None:
        """Take a member in."""
        member.fenced = False
        if member not in self.members:
            self.members.append(member)
        self.rebalance()

    def leave(self, member: Member) -> None:
        """Let a member go that gave everything back."""
        self._remove(member)
        self.rebalance()

    def expel(self, member: Member) -> None:
        """End the session of a member: all it has is another's now, which it hears when it polls again."""
        if member not in self.members:
            return
        self._remove(member)
        member.fenced = True
        member.news.clear()
        member.news.append(("lost", []))
        member.wake()
        self.rebalance()

    def released(self, member: Member, places: Iterable[Place]) -> None:
        """Note that a member has given partitions back."""
        for place in places:
            self._leaving.discard(place)
            if self.owner.get(place) is member:
                del self.owner[place]
        self._soon()

    def rebalance(self, *, stir: float = 0.0) -> None:
        """Aim at a balanced assignment, with this chance for each partition to go anywhere instead."""
        if not self.members:
            return
        aim = self._aim(stir)
        given: dict[str, list[Place]] = {member.name: [] for member in self.members}
        taken: dict[str, list[Place]] = {}
        for place, member in aim.items():
            owner = self.owner.get(place)
            if owner is None:
                self.owner[place] = member
                given[member.name].append(place)
            elif owner is not member and place not in self._leaving:
                self._leaving.add(place)
                taken.setdefault(owner.name, []).append(place)
        for member in self.members:
            if places := taken.get(member.name):
                member.news.append(("revoke", places))
            member.news.append(("assign", given[member.name]))
            member.wake()

    def _aim(self, stir: float) -> dict[Place, Member]:
        chance = self.cluster.scheduler.random
        places = [place for topic in self.topics for place in self.cluster.places(topic)]
        most = math.ceil(len(places) / len(self.members))
        load = {member.name: 0 for member in self.members}
        aim: dict[Place, Member] = {}
        for place in places:
            owner = self.owner.get(place)
            if place in self._leaving and owner is not None:
                aim[place] = owner  # on its way already
            elif stir and chance.random() < stir:
                aim[place] = chance.choice(self.members)
            elif owner is not None and load[owner.name] < most:
                aim[place] = owner
            else:
                continue
            load[aim[place].name] += 1
        for place in places:
            if place not in aim:
                fewest = min(load.values())
                aim[place] = chance.choice([one for one in self.members if load[one.name] == fewest])
                load[aim[place].name] += 1
        return aim

    def _remove(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
        for place in [place for place, owner in self.owner.items() if owner is member]:
            del self.owner[place]
            self._leaving.discard(place)

    def _soon(self) -> None:
        """Give what is free to others after the time that a rebalance takes."""
        self.cluster.loop.call_later(self.cluster.scheduler.random.uniform(0.0, 0.3), self.rebalance)
