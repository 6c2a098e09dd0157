"""Read topics to their end, and single records out of them, for commands. Blocks, within bounds; no group is joined."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from omnibase_infra.shared.core.errors import CorruptLogError, DependencyUnavailableError, TopicMissingError
from omnibase_infra.shared.runtime.dead_letter_view import Place

REQUEST_SECONDS: Final = 10.0
# Without a record for so long, the brokers count as gone.
STALL_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.5
BATCH_RECORDS: Final = 5_000
# Reading over a few records is cheaper than starting to fetch anew.
SEEK_GAP: Final = 20_000

_TOPIC_ERRORS: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_FINAL_ERRORS: Final = _TOPIC_ERRORS | {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError._BAD_MSG,
}


class TopicReader:
    """Reads with one consumer for `replay`. Belongs to one thread.

    Committed transactions only, so what a redrive that died had written is never seen.
    """

    def __init__(self, consumer: Consumer, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._consumer = consumer
        self._monotonic = monotonic
        self._unread: deque[Message] = deque()
        self._position: tuple[str, int, int] | None = None
        self._at_end = False

    def partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic, by its physical name.

        Raises:
            TopicMissingError: it does not exist, or this client may not see it.
            DependencyUnavailableError: no broker answered in time.
        """
        try:
            found = self._consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
        except KafkaException as error:
            raise unavailable(error.args[0], topic) from error
        if found.error is not None and found.error.code() not in _TOPIC_ERRORS:
            raise unavailable(found.error, topic)
        if found.error is not None or not found.partitions:
            raise TopicMissingError(f"the topic {topic} does not exist", hint="run `omninode topics apply`")
        return sorted(found.partitions)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset that is still in the log, and the one that the next record will have.

        Raises:
            DependencyUnavailableError: no broker answered in time.
        """
        place = TopicPartition(topic, partition)
        try:
            marks = self._consumer.get_watermark_offsets(place, timeout=REQUEST_SECONDS)
        except KafkaException as error:
            raise unavailable(error.args[0], topic) from error
        if marks is None:
            raise DependencyUnavailableError(
                f"no Kafka broker told the offsets of {topic} within {REQUEST_SECONDS:g} s", dependency="kafka"
            )
        return marks

    def read(self, topic: str) -> Iterator[Sequence[Message]]:
        """Yield what is in a topic now, in batches: a partition in order, partitions interleaved.

        Raises:
            TopicMissingError: it does not exist.
            DependencyUnavailableError: no broker answers any more.
            CorruptLogError: it cannot be read on.
        """
        unfinished = set(self.partitions(topic))
        self._forget()
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unfinished])
        try:
            deadline = self._monotonic() + STALL_SECONDS
            while unfinished:
                records, ended = self._poll(topic)
                unfinished -= ended
                if records or ended:
                    deadline = self._monotonic() + STALL_SECONDS
                elif self._monotonic() > deadline:
                    raise _stalled(topic)
                if records:
                    yield records
        finally:
            self._consumer.unassign()

    def fetch(self, topic: str, places: Iterable[Place]) -> dict[Place, Message]:
        """Return the records at these places; those that retention has removed are left out.

        Quick when called again with places behind the last ones: reading goes on where it stopped.

        Raises:
            DependencyUnavailableError, CorruptLogError: as for `read`.
        """
        by_partition: dict[int, list[int]] = {}
        for place in places:
            by_partition.setdefault(place.partition, []).append(place.offset)
        found: dict[Place, Message] = {}
        for partition, offsets in sorted(by_partition.items()):
            self._fetch(topic, partition, sorted(offsets), found)
        return found

    def _fetch(self, topic: str, partition: int, offsets: Sequence[int], found: dict[Place, Message]) -> None:
        first, end = self.bounds(topic, partition)
        wanted = deque(offset for offset in offsets if first <= offset < end)
        deadline = self._monotonic() + STALL_SECONDS
        while wanted:
            self._go_to(topic, partition, wanted[0])
            if not self._unread:
                if self._at_end:
                    # What is still wanted was removed meanwhile: it lies before the end.
                    return
                records, ended = self._poll(topic)
                self._unread.extend(records)
                self._at_end = bool(ended)
                if records or ended:
                    deadline = self._monotonic() + STALL_SECONDS
                elif self._monotonic() > deadline:
                    raise _stalled(topic)
            while self._unread and wanted:
                message = self._unread.popleft()
                offset = message.offset() or 0
                self._position = (topic, partition, offset + 1)
                while wanted and wanted[0] < offset:
                    wanted.popleft()
                if wanted and wanted[0] == offset:
                    found[Place(partition, wanted.popleft())] = message

    def _go_to(self, topic: str, partition: int, offset: int) -> None:
        """Make the record at `offset` one of the next to be read."""
        if self._position is not None:
            at_topic, at_partition, at = self._position
            if (at_topic, at_partition) == (topic, partition) and at <= offset <= at + SEEK_GAP:
                return
        self._forget()
        self._consumer.assign([TopicPartition(topic, partition, offset)])
        self._position = (topic, partition, offset)

    def _forget(self) -> None:
        self._unread.clear()
        self._position = None
        self._at_end = False

    def _poll(self, topic: str) -> tuple[list[Message], set[int]]:
        """Return the records that are there, and the partitions that were read to their end."""
        first = self._consumer.poll(POLL_SECONDS)
        if first is None:
            return [], set()
        records: list[Message] = []
        ended: set[int] = set()
        for message in (first, *self._consumer.consume(BATCH_RECORDS - 1, 0)):
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition() or 0)
            elif error.fatal() or error.code() in _FINAL_ERRORS:
                raise CorruptLogError(
                    f"{message.topic() or topic} cannot be read: {error.str()}",
                    hint="retention may have removed records meanwhile: try again",
                )
        return records, ended


def unavailable(error: KafkaError, topic: str) -> DependencyUnavailableError:
    """Return the error for brokers that do not answer about a topic."""
    return DependencyUnavailableError(
        f"no Kafka broker answered about {topic} within {REQUEST_SECONDS:g} s: {error.str()}", dependency="kafka"
    )


def _stalled(topic: str) -> DependencyUnavailableError:
    return DependencyUnavailableError(f"{topic}: nothing came for {STALL_SECONDS:g} s", dependency="kafka")
