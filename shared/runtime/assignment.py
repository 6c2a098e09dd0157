"""What it takes to own a partition: its start, its retry partition beside it, and a word that its owner is alive.

A retry topic is not subscribed to: its partitions follow those of their source, number by number, so that one member
owns both. That a member may assign and commit partitions outside its subscription was tried with the classic protocol
and with KIP-848.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.runtime import crash_record
from omnibase_infra.shared.runtime.commits import Committing
from omnibase_infra.shared.runtime.parked_keys import PartitionParking
from omnibase_infra.shared.runtime.records import PartitionWork
from omnibase_infra.shared.runtime.start_positions import commit_positions, end_offsets, start_positions
from omnibase_infra.shared.runtime.topic_watch import replaced


class OpenParking(Protocol):
    """Makes what keeps the parked records of a partition pair."""

    def __call__(self, source: PartitionWork, retry: PartitionWork, *, start: int, folded: bool) -> PartitionParking:
        """Return it; `folded` says that the retry partition holds nothing."""
        ...


class RetryTopic(NamedTuple):
    """The retry topic of a source topic: its logical name, and its name on the cluster."""

    topic: TopicName
    physical: str


class Assignment:
    """Takes partitions. Consumer thread, inside the assign callback."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        topics: Mapping[str, TopicName],
        retries: Mapping[str, RetryTopic],
        group: str,
        commits: Committing,
        open_parking: OpenParking | None,
        topic_ids: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._consumer = consumer
        self._topics = topics
        self._retries = retries
        self._group = group
        self._commits = commits
        self._open_parking = open_parking
        self._topic_ids = topic_ids
        self._ids: Mapping[str, str] = {}

    def take(self, partitions: Sequence[TopicPartition]) -> dict[tuple[str, int], PartitionWork]:
        """Begin to read partitions and their retry partitions where the group stands; return their work.

        Raises:
            OffsetMissingError, TopicMissingError, DependencyUnavailableError: see `start_positions`.
            TopicReplacedError: an offset was committed for another topic of the same name.
        """
        if not partitions:
            self._consumer.incremental_assign([])
            return {}
        positions = start_positions(self._consumer, self.with_retries(partitions), self._group)
        self._check_identity(positions)
        ends = end_offsets(self._consumer, positions)
        at = {(one.topic, one.partition): one for one in positions}
        works: dict[tuple[str, int], PartitionWork] = {}
        for one in partitions:
            source = self._work(at[one.topic, one.partition], ends, self._topics[one.topic])
            works[one.topic, one.partition] = source
            if (following := self._retries.get(one.topic)) is not None and self._open_parking is not None:
                place = at[following.physical, one.partition]
                retry = self._work(place, ends, following.topic, self._topics[one.topic])
                works[following.physical, one.partition] = retry
                folded = ends.get((following.physical, one.partition)) == place.offset
                start = at[one.topic, one.partition].offset
                source.parking = retry.parking = self._open_parking(source, retry, start=start, folded=folded)
        self._consumer.incremental_assign(positions)
        # The client remembers a pause beyond the loss of a partition; we start with none.
        self._consumer.resume(positions)
        self._announce(works, at)
        return works

    def with_retries(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Return source partitions with the retry partitions that follow them."""
        followers = [
            TopicPartition(following.physical, one.partition)
            for one in partitions
            if (following := self._retries.get(one.topic)) is not None
        ]
        return [*partitions, *followers]

    def _check_identity(self, positions: Sequence[TopicPartition]) -> None:
        self._ids = self._topic_ids()
        for one in positions:
            committed_for, id_now = crash_record.topic_id(one.metadata), self._ids.get(one.topic)
            if committed_for and id_now and committed_for != id_now:
                raise replaced(one.topic)

    def _work(
        self,
        place: TopicPartition,
        ends: Mapping[tuple[str, int], int],
        topic: TopicName,
        source: TopicName | None = None,
    ) -> PartitionWork:
        work = PartitionWork(topic, place.topic, place.partition, source=source, start=place.offset)
        end = ends.get((place.topic, place.partition))
        known_id = self._ids.get(place.topic) or crash_record.topic_id(place.metadata)
        work.crash = crash_record.after(place.metadata, place.offset, end, known_id)
        return work

    def _announce(
        self, works: Mapping[tuple[str, int], PartitionWork], at: Mapping[tuple[str, int], TopicPartition]
    ) -> None:
        """Commit, before anything runs, that an owner is at work; what it leaves behind then tells its death."""
        if self._commits.held:
            return
        marks = [
            TopicPartition(topic, number, at[topic, number].offset, work.crash.metadata(at[topic, number].offset))
            for (topic, number), work in works.items()
        ]
        try:
            commit_positions(self._consumer, marks)
        except KafkaException as error:
            # The next commit carries them; a death before it is one that is not counted.
            self._commits.failed(error.args[0], len(marks))
            return
        for mark in marks:
            self._commits.began(works[mark.topic, mark.partition], mark.offset, mark.metadata or "")
