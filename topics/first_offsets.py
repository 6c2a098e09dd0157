"""Where consumer groups begin: the first offsets of new groups, subscriptions and partitions, and nothing else.

A missing commit of a known group means that offsets expired or were deleted; committing one silently would skip or
repeat records, so it is refused and left to `omninode offsets reset`. What is known is read from the cluster itself: a
retry topic is created after the first offsets on its source, and a group's dead-letter topic after all of its first
offsets. Where both exist, the group's subscription had been prepared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from omnibase_infra.shared.core.naming import Realm, dead_letter_topic, retry_topic
from omnibase_infra.topics.catalogue import Catalogue, Reader, TopicEntry
from omnibase_infra.topics.changes import CommitFirstOffsets, Refusal
from omnibase_infra.topics.cluster import ClusterState, GroupState, Partition, Watermarks

UNUSED: Final = Watermarks(0, 0)


def first_offsets(
    catalogue: Catalogue, state: ClusterState, realm: Realm, partitions: Mapping[str, int]
) -> tuple[list[CommitFirstOffsets], list[Refusal], frozenset[str]]:
    """Return the commits to make, the missing ones that are not made, and the topics that so stay unprepared.

    Args:
        catalogue: the topics and their readers.
        state: the cluster before anything is changed.
        realm: of the topics and groups.
        partitions: how many partitions each physical topic is going to have.
    """
    commits: list[CommitFirstOffsets] = []
    refusals: list[Refusal] = []
    unprepared: set[str] = set()
    for reader, entries in catalogue.readers().items():
        subject = _Group(reader, state, realm)
        for entry in entries:
            count = partitions.get(entry.topic.physical(realm), 0)
            offsets, missing = subject.offsets(entry, count)
            if offsets and not subject.state.members:
                commits.append(CommitFirstOffsets(subject.name, entry.topic.physical(realm), offsets))
            elif offsets and subject.needs_commit(entry):
                refusals.append(subject.in_use(entry))
                unprepared.add(entry.topic.physical(realm))
            if missing:
                refusals.append(subject.lost(entry, missing))
    return commits, refusals, frozenset(unprepared)


class _Group(msgspec.Struct, frozen=True):
    """One consumer group and what is known about it."""

    reader: Reader
    cluster: ClusterState
    realm: Realm

    @property
    def name(self) -> str:
        return self.reader.group(self.realm)

    @property
    def state(self) -> GroupState:
        return self.cluster.groups[self.reader]

    def offsets(self, entry: TopicEntry, count: int) -> tuple[dict[int, int], list[int]]:
        """Return first offsets by partition, and the partitions whose commit was lost."""
        topic = entry.topic.physical(self.realm)
        committed = self._committed(topic)
        is_new = not committed and self._is_new(entry)
        offsets: dict[int, int] = {}
        lost: list[int] = []
        for partition in self._without_commit(topic, count):
            marks = self.cluster.watermarks.get(partition, UNUSED)
            if is_new:
                offsets[partition.number] = marks.high if self._starts_late(entry) else marks.low
            # A partition above those with commits was added later; in one never written to, nothing can be skipped.
            elif marks == UNUSED or (committed and partition.number > max(committed)):
                offsets[partition.number] = marks.low
            else:
                lost.append(partition.number)
        return offsets, lost

    def needs_commit(self, entry: TopicEntry) -> bool:
        """Return whether a live member would stop without one: it starts partitions that were added by itself."""
        return entry.source is None and not self._committed(entry.topic.physical(self.realm))

    def _committed(self, topic: str) -> list[int]:
        return [partition.number for partition in self.state.committed if partition.topic == topic]

    def _without_commit(self, topic: str, count: int) -> Iterator[Partition]:
        for number in range(count):
            if (partition := Partition(topic, number)) not in self.state.committed:
                yield partition

    def _is_new(self, entry: TopicEntry) -> bool:
        """Return whether the group, or its subscription to the topic, was never prepared."""
        retry = retry_topic(self.reader.worker, entry.source or entry.topic)
        dead_letters = dead_letter_topic(self.reader.worker, self.reader.major)
        return not all(topic.physical(self.realm) in self.cluster.partitions for topic in (retry, dead_letters))

    def _starts_late(self, entry: TopicEntry) -> bool:
        return self.reader in entry.late_readers

    def in_use(self, entry: TopicEntry) -> Refusal:
        """Return why a live group's first offsets on a topic are not committed."""
        return Refusal(
            self.name,
            f"is to begin on {entry.topic}, and offsets cannot be committed for it while it has "
            f"{self.state.members} live member{'s' if self.state.members > 1 else ''}",
            hint="stop its workers, apply again, then start them",
        )

    def lost(self, entry: TopicEntry, partitions: list[int]) -> Refusal:
        """Return why commits that are missing are not made."""
        numbers = ", ".join(map(str, partitions))
        return Refusal(
            self.name,
            f"is known and has no committed offset on {entry.topic.physical(self.realm)}[{numbers}]: "
            "offsets expired or were deleted",
            hint=f"look with `omninode offsets show {self.reader.worker}`, then decide with `omninode offsets reset`",
        )
