"""What is asked of a cluster: the port that the Kafka client implements, and the state a plan is made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.topics.catalogue import Catalogue, Reader


class Partition(NamedTuple):
    """A partition of a physical topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class Watermarks(NamedTuple):
    """First offset still kept, and the offset of the next record."""

    low: int
    high: int


class TopicState(msgspec.Struct, frozen=True):
    """A topic as it is. `config` holds effective values; `replication` the smallest number of copies."""

    partitions: int
    replication: int
    config: Mapping[str, str]


class GroupState(msgspec.Struct, frozen=True):
    """A consumer group as it is; of one that does not exist, nothing. Partitions without a commit are left out.

    `state` is the broker's word in kebab case: `stable`, `empty`, `preparing-rebalancing`, …, or `absent`.
    """

    committed: Mapping[Partition, int] = {}
    members: int = 0
    state: str = "absent"


class TopicAdmin(Protocol):
    """Administration of a cluster. Every call blocks, within a time-out, and works on physical names.

    Any call raises:
        DependencyUnavailableError: no broker answers.
        KafkaAccessError: one does, to say that we may not come in.
        ClusterRefusedError: the cluster said no: authorisation, a policy of its own, a wrong value.
    """

    def topics(self, prefix: str) -> Mapping[str, int]:
        """Return the partition counts of every topic whose name starts with `prefix`."""
        ...

    def describe(self, topics: Collection[str]) -> Mapping[str, TopicState]:
        """Return the state of those of the topics that exist."""
        ...

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """Create a topic; return False when it already exists. When it returns, the topic can be used."""
        ...

    def add_partitions(self, topic: str, total: int) -> bool:
        """Grow a topic; return False when it already has that many. When it returns, they can be used."""
        ...

    def alter(self, topic: str, config: Mapping[str, str]) -> None:
        """Set these settings and leave all others."""
        ...

    def group(self, group: str, partitions: Collection[Partition]) -> GroupState:
        """Return what a consumer group has committed on these partitions, and how many members it has."""
        ...

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets for a group without members.

        Raises:
            GroupInUseError: it has members.
        """
        ...

    def watermarks(self, partitions: Collection[Partition]) -> Mapping[Partition, Watermarks]:
        """Return the first and next offsets of partitions that exist."""
        ...

    def offsets_at(self, partitions: Collection[Partition], unix_milliseconds: int) -> Mapping[Partition, int]:
        """Return the offset of the first record at or after a time; the next offset where there is none."""
        ...


class ClusterState(msgspec.Struct, frozen=True):
    """What a plan needs to know.

    Attributes:
        topics: those of the catalogue that exist.
        partitions: of every topic of the realm, also those that no contract lists.
        groups: of every reader of the catalogue.
        watermarks: of partitions that lack a commit.
    """

    topics: Mapping[str, TopicState]
    partitions: Mapping[str, int]
    groups: Mapping[Reader, GroupState]
    watermarks: Mapping[Partition, Watermarks] = {}


def read_state(admin: TopicAdmin, catalogue: Catalogue, realm: Realm) -> ClusterState:
    """Ask a cluster for what `plan` needs; see `TopicAdmin` for what it raises."""
    partitions = admin.topics(f"{realm}.")
    wanted = [name for entry in catalogue.entries if (name := entry.topic.physical(realm)) in partitions]
    groups: dict[Reader, GroupState] = {}
    without: set[Partition] = set()
    for reader, entries in catalogue.readers().items():
        read = existing_partitions(partitions, (entry.topic.physical(realm) for entry in entries))
        groups[reader] = admin.group(reader.group(realm), read)
        without |= set(read) - set(groups[reader].committed)
    watermarks = admin.watermarks(sorted(without)) if without else {}
    return ClusterState(admin.describe(wanted) if wanted else {}, partitions, groups, watermarks)


def existing_partitions(counts: Mapping[str, int], topics: Iterable[str]) -> list[Partition]:
    """Return the partitions that topics have on the cluster."""
    return [Partition(topic, number) for topic in topics for number in range(counts.get(topic, 0))]
