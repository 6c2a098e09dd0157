"""A Kafka consumer that does what a test says, in the order it says it; for tests of what polls one.

It answers from memory where the client asks a broker, and runs callbacks inside `poll`, as the client does.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

Place = tuple[str, int]


class ScriptedMessage:
    """A message, or an error in place of one, with the client's methods."""

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        value: bytes | None = b"{}",
        key: bytes | None = None,
        error: KafkaError | None = None,
        headers: list[tuple[str, bytes | None]] | None = None,
    ) -> None:
        self._topic, self._partition, self._offset = topic, partition, offset
        self._value, self._key, self._error, self._headers = value, key, error, headers

    def topic(self) -> str:
        """Return the physical topic."""
        return self._topic

    def partition(self) -> int:
        """Return the partition."""
        return self._partition

    def offset(self) -> int:
        """Return the offset."""
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        """Return type and milliseconds of the time stamp."""
        return 1, 0

    def key(self) -> bytes | None:
        """Return the key."""
        return self._key

    def value(self) -> bytes | None:
        """Return the value."""
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        """Return the headers, None when there are none."""
        return self._headers

    def error(self) -> KafkaError | None:
        """Return the error this stands for."""
        return self._error


class ScriptedConsumer:
    """Implements what the runtime uses of `confluent_kafka.Consumer`.

    Attributes:
        offsets: committed offsets by place; asynchronous commits arrive at the next poll.
        beginnings: low watermarks by place, 0 where nothing is said; `ends` likewise.
        metadata: what was committed beside the offsets.
        seeks: what was asked to be read again.
        partitions: how many each topic has.
        assigned / paused: places now.
        on_commit: told of each asynchronous commit.
        refuse_commits: error that commits fail with while it is set.
    """

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self.partitions = dict(partitions)
        # Each topic has a worker's retry topic beside it, as after `topics apply`.
        retries = {_retry_topic(topic): count for topic, count in partitions.items() if ".onex.cmd." in topic}
        self.partitions |= retries
        self.offsets: dict[Place, int] = {
            (topic, n): 0 for topic, count in self.partitions.items() for n in range(count)
        }
        self.beginnings: dict[Place, int] = {}
        self.ends: dict[Place, int] = {}
        self.metadata: dict[Place, str] = {}
        self.seeks: list[tuple[str, int, int]] = []
        self.assigned: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self.refuse_commits: KafkaError | None = None
        self.commits: list[tuple[str, dict[Place, int]]] = []
        self.closed = False
        # What a rebalance that ends while the consumer is closed gives it, before all is taken away.
        self.given_at_close: tuple[Place, ...] = ()
        self._closing = False
        self.on_commit: Callable[..., None] | None = None
        self._script: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._callbacks: dict[str, Callable[..., None]] = {}

    # -- what a test says -------------------------------------------------------------------------------------------

    def then(self, *steps: ScriptedMessage | Callable[[], None] | BaseException) -> None:
        """Let the next polls return messages, call functions, or raise."""
        for step in steps:
            self._script.put(step)

    def assign(self, *places: Place) -> None:
        """Let a poll hand partitions to the member."""
        self.then(lambda: self._call("on_assign", places))

    def revoke(self, *places: Place) -> None:
        """Let a poll take partitions away."""
        self.then(lambda: self._call("on_revoke", places))

    def lose(self, *places: Place) -> None:
        """Let a poll say that partitions are another member's already."""
        self.then(lambda: self._call("on_lost", places))

    def _call(self, callback: str, places: Sequence[Place]) -> None:
        self._callbacks[callback](self, [TopicPartition(*place) for place in places])

    # -- what the client offers -------------------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str], **callbacks: Callable[..., None]) -> None:  # noqa: ARG002 - the client's
        """Keep the callbacks."""
        self._callbacks = callbacks

    def poll(self, timeout: float) -> ScriptedMessage | None:
        """Do the next step of the script."""
        try:
            step = self._script.get(timeout=timeout) if timeout else self._script.get_nowait()
        except queue.Empty:
            return None
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, ScriptedMessage):
            return step
        step()
        return None

    def consume(self, number: int, timeout: float) -> list[ScriptedMessage]:  # noqa: ARG002 - the client's
        """Return nothing more: one step a turn keeps a script in order."""
        return []

    def incremental_assign(self, places: Sequence[TopicPartition]) -> None:
        """Own partitions; a pause from an earlier time still holds, as in the client."""
        self.assigned |= {(one.topic, one.partition): one.offset for one in places}

    def incremental_unassign(self, places: Sequence[TopicPartition]) -> None:
        """Own them no more."""
        self._must_own(places)
        for one in places:
            self.assigned.pop((one.topic, one.partition), None)

    def pause(self, places: Sequence[TopicPartition]) -> None:
        """Pause partitions that are owned."""
        self._must_own(places)
        self.paused |= {(one.topic, one.partition) for one in places}

    def resume(self, places: Sequence[TopicPartition]) -> None:
        """Resume partitions that are owned."""
        self._must_own(places)
        self.paused -= {(one.topic, one.partition) for one in places}

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> list[TopicPartition] | None:
        """Commit now, or at the next poll with a call of `on_commit`."""
        wanted = {(one.topic, one.partition): one.offset for one in offsets}
        refused = self.refuse_commits
        self.commits.append(("asynchronous" if asynchronous else "synchronous", wanted))
        if asynchronous:
            self.then(lambda: self._answer_commit(refused, offsets, wanted))
            return None
        if refused is not None:
            raise KafkaException(refused)
        self._keep(wanted, offsets)
        return list(offsets)

    def committed(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002 - the client's
        """Return committed offsets; while the consumer is closed the client answers no such question."""
        if self._closing:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [
            TopicPartition(
                one.topic,
                one.partition,
                self.offsets.get((one.topic, one.partition), OFFSET_INVALID),
                self.metadata.get((one.topic, one.partition), ""),
            )
            for one in places
        ]

    def offsets_for_times(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002 - the client's
        """Return the ends of partitions, which is what the runtime asks for."""
        return [
            TopicPartition(one.topic, one.partition, self.ends.get((one.topic, one.partition), 0)) for one in places
        ]

    def seek(self, place: TopicPartition) -> None:
        """Note where a partition is to be read again from."""
        self._must_own([place])
        self.seeks.append((place.topic, place.partition, place.offset))

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:  # noqa: ARG002 - the client's
        """Return the beginning and some end."""
        low = self.beginnings.get((place.topic, place.partition), 0)
        return low, low

    def list_topics(self, topic: str, timeout: float) -> Any:  # noqa: ARG002 - the client's
        """Return metadata of a topic, with an error where there is none."""
        count = self.partitions.get(topic)
        return _ClusterMetadata({topic: _TopicMetadata(count)})

    def close(self) -> None:
        """End a rebalance that is under way, then take everything away, as the client does."""
        self._closing = True
        if self.given_at_close:
            self._call("on_assign", self.given_at_close)
        if given := [*self.assigned, *(one for one in self.given_at_close if one not in self.assigned)]:
            self._call("on_revoke", given)
        self.closed = True

    def _answer_commit(
        self, refused: KafkaError | None, offsets: Sequence[TopicPartition], wanted: Mapping[Place, int]
    ) -> None:
        if refused is None:
            self._keep(wanted, offsets)
        if self.on_commit is not None:
            self.on_commit(refused, list(offsets))

    def _keep(self, wanted: Mapping[Place, int], offsets: Sequence[TopicPartition]) -> None:
        self.offsets |= wanted
        self.metadata |= {(one.topic, one.partition): one.metadata or "" for one in offsets}

    def _must_own(self, places: Sequence[TopicPartition]) -> None:
        for one in places:
            if (one.topic, one.partition) not in self.assigned:
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))


class _TopicMetadata:
    def __init__(self, partitions: int | None) -> None:
        self.partitions = dict.fromkeys(range(partitions or 0))
        self.error = None if partitions is not None else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)


class _ClusterMetadata:
    def __init__(self, topics: dict[str, _TopicMetadata]) -> None:
        self.topics = topics


def _retry_topic(command_topic: str) -> str:
    """Return the name of the retry topic of the worker that a command topic is for."""
    return command_topic.replace(".onex.cmd.", ".onex.retry.", 1)
