"""The fleet at a glance: per worker its consumer group, what is still to be read, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, Literal

import msgspec

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.naming import dead_letter_topic
from omnibase_infra.topics.catalogue import Reader, TopicEntry
from omnibase_infra.topics.cluster import TopicAdmin, existing_partitions
from omnibase_infra.topics.offsets import CONSISTENT, GroupOffsets, PartitionOffsets, show
from omnibase_infra.topics.topic_registry import TopicRegistry

_AT_ONCE: Final = 8

# Takes a worker's group and how many dead letters its topic keeps; returns how many are open, None when unknown.
OpenDeadLetters = Callable[[Reader, int], int | None]


class TopicStatus(msgspec.Struct, frozen=True):
    """A topic that a worker reads.

    Attributes:
        kind: `retry` for the topic in which its own records wait to be tried again.
        lag: records still to be read.
        standings: how many partitions stand otherwise than well, by `PartitionOffsets.standing`.
    """

    topic: str
    kind: Literal["source", "retry"]
    partitions: int
    lag: int
    standings: Mapping[str, int] = {}


class WorkerStatus(msgspec.Struct, frozen=True):
    """A major version of a worker.

    Attributes:
        state: of its group: `stable`, `empty`, `preparing-rebalancing`, …, or `absent`.
        members: live processes.
        missing_topics: that it reads, writes or owns, and the cluster lacks.
        dead_letters: records its dead-letter topic keeps, settled ones and the marks of transactions included.
        open_dead_letters: those nobody has redriven or discarded; None when that was not found out.
    """

    worker: str
    major: int
    group: str
    state: str
    members: int
    topics: tuple[TopicStatus, ...] = ()
    missing_topics: tuple[str, ...] = ()
    dead_letters: int = 0
    open_dead_letters: int | None = 0

    @property
    def lag(self) -> int:
        """Return how many new records are still to be read."""
        return sum(topic.lag for topic in self.topics if topic.kind == "source")

    @property
    def retry_lag(self) -> int:
        """Return how many records of its retry topics, marks of their progress included, are not behind it."""
        return sum(topic.lag for topic in self.topics if topic.kind == "retry")

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, each with what to do."""
        found = [f"the topic {topic} does not exist; run `omninode topics apply`" for topic in self.missing_topics]
        for topic in self.topics:
            found += [
                f"{topic.topic}: {count} of {topic.partitions} partitions {standing}; see `omninode offsets show`"
                for standing, count in topic.standings.items()
            ]
        if not self.members and (waiting := self.lag + self.retry_lag):
            found.append(f"{waiting} records wait and no process runs; start it with `omninode run`")
        if self.open_dead_letters:
            found.append(f"{self.open_dead_letters} open dead letters; see `omninode dlq group`")
        elif self.open_dead_letters is None:
            found.append(f"up to {self.dead_letters} open dead letters; see `omninode dlq group`")
        return tuple(found)


def fleet_status(
    admin: TopicAdmin,
    registry: TopicRegistry,
    open_dead_letters: OpenDeadLetters = lambda _reader, kept: kept,
    *,
    workers: Collection[str] = (),
    timeout_seconds: float = 30.0,
) -> list[WorkerStatus]:
    """Ask a cluster how each worker of the fleet is.

    Args:
        admin: of the cluster; used from several threads.
        registry: of the realm.
        open_dead_letters: finds out how many dead letters are open; asked only where there are any.
        workers: only these; none means all.
        timeout_seconds: for all of them together.

    Raises:
        DependencyUnavailableError: no broker answers, or not in time.
        ClusterRefusedError: the cluster said no.
    """
    counts = admin.topics(f"{registry.realm}.")
    readers = [reader for reader in registry.catalogue.readers() if not workers or reader.worker in workers]
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fleet-status")
    try:
        asked = [pool.submit(_worker_status, admin, registry, reader, counts, open_dead_letters) for reader in readers]
        return _answers(asked, readers, timeout_seconds)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answers(
    asked: Sequence[Future[WorkerStatus]], readers: Sequence[Reader], timeout_seconds: float
) -> list[WorkerStatus]:
    _, late = wait(asked, timeout_seconds)
    if late:
        names = ", ".join(reader.worker for reader, future in zip(readers, asked, strict=True) if future in late)
        raise DependencyUnavailableError(
            f"the cluster did not say within {timeout_seconds:g} s how these are: {names}", dependency="kafka"
        )
    return [future.result() for future in asked]


def _worker_status(
    admin: TopicAdmin,
    registry: TopicRegistry,
    reader: Reader,
    counts: Mapping[str, int],
    open_dead_letters: OpenDeadLetters,
) -> WorkerStatus:
    found = show(admin, registry, reader, counts)
    kept = _kept(admin, dead_letter_topic(reader.worker, reader.major).physical(registry.realm), counts)
    return WorkerStatus(
        worker=reader.worker,
        major=reader.major,
        group=found.group,
        state=found.state,
        members=found.members,
        topics=tuple(_topic_status(entry, registry, found) for entry in registry.catalogue.readers()[reader]),
        missing_topics=_missing(registry, reader, counts),
        dead_letters=kept,
        open_dead_letters=open_dead_letters(reader, kept) if kept else 0,
    )


def _topic_status(entry: TopicEntry, registry: TopicRegistry, found: GroupOffsets) -> TopicStatus:
    physical = entry.topic.physical(registry.realm)
    partitions = [item for item in found.partitions if item.topic == physical]
    return TopicStatus(
        topic=str(entry.topic),
        kind="source" if entry.source is None else "retry",
        partitions=len(partitions),
        lag=sum(item.lag for item in partitions),
        standings=_standings(partitions),
    )


def _standings(partitions: Sequence[PartitionOffsets]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in partitions:
        if item.standing not in CONSISTENT:
            counts[item.standing] = counts.get(item.standing, 0) + 1
    return counts


def _missing(registry: TopicRegistry, reader: Reader, counts: Mapping[str, int]) -> tuple[str, ...]:
    needed = registry.catalogue.of_workers({reader.worker}).entries
    return tuple(str(entry.topic) for entry in needed if entry.topic.physical(registry.realm) not in counts)


def _kept(admin: TopicAdmin, topic: str, counts: Mapping[str, int]) -> int:
    places = existing_partitions(counts, [topic])
    return sum(marks.high - marks.low for marks in admin.watermarks(places).values()) if places else 0
