"""Committed offsets of a worker's consumer group beside the logs they point into; and where a reset would move them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from omnibase_infra.shared.core.clock import parse_rfc3339
from omnibase_infra.shared.core.errors import ConfigurationError, GroupInUseError, TopicMissingError
from omnibase_infra.topics.catalogue import Reader
from omnibase_infra.topics.cluster import GroupState, Partition, TopicAdmin, Watermarks, existing_partitions
from omnibase_infra.topics.first_offsets import UNUSED
from omnibase_infra.topics.topic_registry import TopicRegistry

Standing = Literal["ok", "unused", "added", "unprepared", "missing", "below-log", "beyond-log"]
Target = Literal["earliest", "latest"] | int | datetime

CONSISTENT: frozenset[Standing] = frozenset(("ok", "unused", "added"))


class PartitionOffsets(msgspec.Struct, frozen=True):
    """A partition as a group stands in it.

    Attributes:
        committed: offset of the next record to process; None when there is no commit.
        low / high: first offset still kept, and offset of the next record to be written.
        standing: `ok`; `unused`: a retry topic without commits and records; `added`: no commit in a partition above
            those that have one, so a worker begins at its beginning; `unprepared`: no commit and never a record, which
            `omninode topics apply` mends; `missing`: no commit where there must be one; `below-log`: records between the
            commit and `low` are gone; `beyond-log`: the commit points behind the end.
    """

    topic: str
    partition: int
    committed: int | None
    low: int
    high: int
    standing: Standing

    @property
    def lag(self) -> int:
        """Return how many records are still to be read."""
        return max(0, self.high - max(self.low, self.committed or 0))


class GroupOffsets(msgspec.Struct, frozen=True):
    """A consumer group: its live members, its partitions, topics of its contract that do not exist, its state."""

    group: str
    members: int
    partitions: tuple[PartitionOffsets, ...]
    missing_topics: tuple[str, ...] = ()
    state: str = "absent"

    @property
    def is_consistent(self) -> bool:
        """Return whether a worker of the group can start without losing or repeating records unnoticed."""
        return not self.missing_topics and all(item.standing in CONSISTENT for item in self.partitions)


class Move(msgspec.Struct, frozen=True):
    """What a reset does to one partition."""

    partition: Partition
    before: int | None
    after: int


def show(
    admin: TopicAdmin, registry: TopicRegistry, reader: Reader, counts: Mapping[str, int] | None = None
) -> GroupOffsets:
    """Return where a group stands in every topic it reads; see `TopicAdmin` for what it raises.

    Args:
        admin: of the cluster.
        registry: of the realm.
        reader: the group.
        counts: partitions of the realm's topics, where they have been asked for already.
    """
    entries = registry.catalogue.readers().get(reader, ())
    topics = {entry.topic.physical(registry.realm): entry.source is not None for entry in entries}
    if counts is None:
        counts = admin.topics(f"{registry.realm}.")
    partitions = existing_partitions(counts, topics)
    group = reader.group(registry.realm)
    state = admin.group(group, partitions)
    marks = admin.watermarks(partitions)
    return GroupOffsets(
        group,
        state.members,
        tuple(_offsets(partition, state, marks[partition], topics[partition.topic]) for partition in partitions),
        tuple(topic for topic in topics if topic not in counts),
        state.state,
    )


def parse_target(text: str) -> Target:
    """Return where offsets are to go: `earliest`, `latest`, a number, or a time in RFC 3339.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    if text.isascii() and text.isdigit() and len(text) <= len(str(2**63)):
        return int(text)
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise ConfigurationError(
            f"--to: {text!r} is not earliest, latest, an offset or a time like 2026-01-31T12:00:00Z"
        ) from None


def plan_reset(
    admin: TopicAdmin,
    registry: TopicRegistry,
    reader: Reader,
    topic: str,
    target: Target,
    partitions: Collection[int] = (),
) -> list[Move]:
    """Return what a reset would do; nothing is changed.

    Args:
        admin: of the cluster.
        registry: of the realm.
        reader: whose offsets are moved.
        topic: logical name of a topic that the worker reads.
        target: where to.
        partitions: which ones; none means all.

    Raises:
        ConfigurationError: the worker does not read the topic, it has no such partition, or the offset is outside it.
        TopicMissingError: the topic does not exist.
        GroupInUseError: the group has live members.
    """
    places = _chosen(admin, registry, reader, topic, partitions)
    state = admin.group(reader.group(registry.realm), places)
    if state.members:
        members = f"{state.members} live member{'s' if state.members > 1 else ''}"
        raise GroupInUseError(
            f"group {reader.group(registry.realm)} has {members}; offsets move only while it has none",
            hint="stop its workers first",
        )
    offsets = _targets(admin, places, target)
    return [Move(place, state.committed.get(place), offsets[place]) for place in places]


def reset(admin: TopicAdmin, registry: TopicRegistry, reader: Reader, moves: Sequence[Move]) -> None:
    """Commit what was planned.

    Raises:
        GroupInUseError: a worker has joined the group meanwhile.
    """
    admin.commit(reader.group(registry.realm), {move.partition: move.after for move in moves})


def _offsets(partition: Partition, state: GroupState, marks: Watermarks, is_retry: bool) -> PartitionOffsets:
    committed = state.committed.get(partition)
    standing = _standing(partition, state, marks, is_retry)
    return PartitionOffsets(partition.topic, partition.number, committed, marks.low, marks.high, standing)


def _standing(partition: Partition, state: GroupState, marks: Watermarks, is_retry: bool) -> Standing:
    committed = state.committed.get(partition)
    if committed is None:
        others = [other.number for other in state.committed if other.topic == partition.topic]
        if others and partition.number > max(others):
            return "added"
        if marks != UNUSED:
            return "missing"
        return "unused" if is_retry else "unprepared"
    if committed < marks.low:
        return "below-log"
    return "beyond-log" if committed > marks.high else "ok"


def _chosen(
    admin: TopicAdmin, registry: TopicRegistry, reader: Reader, topic: str, partitions: Collection[int]
) -> list[Partition]:
    entry = registry.entry(topic)
    if reader not in entry.readers:
        read = ", ".join(str(item.topic) for item in registry.read_by(reader.worker))
        raise ConfigurationError(f"{reader.worker} does not read {topic}, only {read}")
    physical = entry.topic.physical(registry.realm)
    there = existing_partitions(admin.topics(physical), [physical])
    if not there:
        raise TopicMissingError(f"the topic {physical} does not exist", hint="run `omninode topics apply`")
    if unknown := sorted(set(partitions) - {place.number for place in there}):
        raise ConfigurationError(f"{physical} has partitions 0 to {len(there) - 1}, not {', '.join(map(str, unknown))}")
    return [place for place in there if not partitions or place.number in partitions]


def _targets(admin: TopicAdmin, places: Sequence[Partition], target: Target) -> Mapping[Partition, int]:
    if isinstance(target, datetime):
        return admin.offsets_at(places, round(target.timestamp() * 1000))
    marks = admin.watermarks(places)
    if target == "earliest":
        return {place: marks[place].low for place in places}
    if target == "latest":
        return {place: marks[place].high for place in places}
    offset = int(target)
    for place in places:
        if not marks[place].low <= offset <= marks[place].high:
            raise ConfigurationError(f"{place} holds offsets {marks[place].low} to {marks[place].high}, not {offset}")
    return dict.fromkeys(places, offset)
