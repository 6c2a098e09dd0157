"""A cluster in memory behind the `TopicAdmin` port: for tests of what is planned and applied, without a broker."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from omnibase_infra.shared.core.errors import ClusterRefusedError, GroupInUseError
from omnibase_infra.topics.cluster import GroupState, Partition, TopicState, Watermarks

# What a broker answers for a topic that sets nothing itself.
BROKER_DEFAULTS = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "1",
    "retention.ms": "604800000",
}


class InMemoryCluster:
    """Implements `TopicAdmin`. Single-threaded; a test moves the world by `write`, `join`, `leave` and `forget`."""

    def __init__(self, brokers: int = 1) -> None:
        self.brokers = brokers
        self.calls: list[str] = []
        self._topics: dict[str, TopicState] = {}
        self._records: dict[Partition, list[int]] = {}
        self._low: dict[Partition, int] = {}
        self._committed: dict[str, dict[Partition, int]] = {}
        self._members: dict[str, int] = {}

    def write(self, topic: str, partition: int, count: int = 1, unix_milliseconds: int = 0) -> None:
        """Append records that carry this time."""
        self._records[Partition(topic, partition)] += [unix_milliseconds] * count

    def expire(self, topic: str, partition: int, low: int) -> None:
        """Let retention remove the records below an offset."""
        self._low[Partition(topic, partition)] = low

    def join(self, group: str, members: int = 1) -> None:
        """Give a group live members."""
        self._members[group] = members

    def leave(self, group: str) -> None:
        """Take all members of a group away."""
        self._members[group] = 0

    def forget(self, group: str, *partitions: Partition) -> None:
        """Lose committed offsets: these, or all."""
        for partition in partitions or list(self._committed.get(group, {})):
            self._committed[group].pop(partition, None)

    def topics(self, prefix: str) -> Mapping[str, int]:
        """See `TopicAdmin`."""
        return {name: state.partitions for name, state in sorted(self._topics.items()) if name.startswith(prefix)}

    def describe(self, topics: Collection[str]) -> Mapping[str, TopicState]:
        """See `TopicAdmin`."""
        return {name: self._topics[name] for name in sorted(topics) if name in self._topics}

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """See `TopicAdmin`."""
        self.calls.append(f"create {topic}")
        if topic in self._topics:
            return False
        if replication > self.brokers:
            raise ClusterRefusedError(f"creating {topic}: {replication} copies need as many brokers")
        self._topics[topic] = TopicState(partitions, replication, BROKER_DEFAULTS | dict(config))
        self._records |= {Partition(topic, number): [] for number in range(partitions)}
        return True

    def add_partitions(self, topic: str, total: int) -> bool:
        """See `TopicAdmin`."""
        self.calls.append(f"add partitions {topic}")
        state = self._existing(topic)
        if state.partitions >= total:
            return False
        self._topics[topic] = TopicState(total, state.replication, state.config)
        self._records |= {Partition(topic, number): [] for number in range(state.partitions, total)}
        return True

    def alter(self, topic: str, config: Mapping[str, str]) -> None:
        """See `TopicAdmin`."""
        self.calls.append(f"alter {topic}")
        state = self._existing(topic)
        self._topics[topic] = TopicState(state.partitions, state.replication, {**state.config, **config})

    def group(self, group: str, partitions: Collection[Partition]) -> GroupState:
        """See `TopicAdmin`."""
        committed = self._committed.get(group, {})
        found = {partition: committed[partition] for partition in partitions if partition in committed}
        members = self._members.get(group, 0)
        state = "stable" if members else "empty" if committed or group in self._members else "absent"
        return GroupState(found, members, state)

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """See `TopicAdmin`."""
        self.calls.append(f"commit {group}")
        if self._members.get(group):
            raise GroupInUseError(f"committing offsets of {group}: the group has live members")
        for partition in offsets:
            self._log(partition)
        self._committed.setdefault(group, {}).update(offsets)

    def watermarks(self, partitions: Collection[Partition]) -> Mapping[Partition, Watermarks]:
        """See `TopicAdmin`."""
        return {
            partition: Watermarks(self._low.get(partition, 0), len(self._log(partition))) for partition in partitions
        }

    def offsets_at(self, partitions: Collection[Partition], unix_milliseconds: int) -> Mapping[Partition, int]:
        """See `TopicAdmin`."""
        found = {}
        for partition in partitions:
            low, times = self._low.get(partition, 0), self._log(partition)
            later = (offset for offset in range(low, len(times)) if times[offset] >= unix_milliseconds)
            found[partition] = next(later, len(times))
        return found

    def _existing(self, topic: str) -> TopicState:
        if topic not in self._topics:
            raise ClusterRefusedError(f"the topic {topic} does not exist")
        return self._topics[topic]

    def _log(self, partition: Partition) -> list[int]:
        if partition not in self._records:
            raise ClusterRefusedError(f"the partition {partition} does not exist")
        return self._records[partition]
