"""The consumer thread: polls, hands batches over, pauses and resumes, commits, answers rebalances.

It owns the confluent consumer; no other thread touches it but for metadata queries. It waits on the event loop
only while partitions are taken away, and then within a budget, so that membership never depends on a handler.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from omnibase_infra.shared.core.errors import (
    CorruptLogError,
    DependencyUnavailableError,
    OffsetOutOfRangeError,
    OmnibaseError,
    TopicMissingError,
)
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.flow_control import FlowControl
from omnibase_infra.shared.runtime.records import NO_OFFSET, PartitionWork, Record
from omnibase_infra.shared.runtime.start_positions import start_positions

BATCH_RECORDS: Final = 500
POLL_SECONDS: Final = 0.1
COMMIT_SECONDS: Final = 1.0
# Finished records kept behind one that is not; beyond it their partition waits, or memory would grow without bound.
LEDGER_RECORDS: Final = 50_000
_OFFSET_ERRORS: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_TOPIC_ERRORS: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
# Records that the client could not read and goes past: what comes after them must not be committed.
_DATA_ERRORS: Final = frozenset(
    {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG, KafkaError.INVALID_MSG_SIZE}
)
_AUTHORISATION_ERRORS: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})


class Loop(Protocol):
    """What the thread tells the event loop. Every call returns at once but for `drain`."""

    def received(self, records: list[Record]) -> None:
        """Take a batch."""
        ...

    def drain(self, works: Sequence[PartitionWork]) -> None:
        """Drop what has not started of these partitions and wait, within the revoke budget, for what has."""
        ...

    def lose(self, works: Sequence[PartitionWork]) -> None:
        """Drop all work of partitions that another member may own already."""
        ...

    def assignment_changed(self) -> None:
        """Note that the assignment is another one now."""
        ...

    def failed(self, error: BaseException) -> None:
        """Stop the worker: the thread ended with this error."""
        ...


class ConsumerThread(threading.Thread):
    """Runs one consumer until `stop`. Started once; `stop` then `join` ends it in bounded time."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        topics: Mapping[str, TopicName],
        group: str,
        loop: Loop,
        flow: FlowControl,
        metrics: WorkerMetrics,
        log: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the consumer, the topics by their names on the cluster, and what the thread reports to."""
        super().__init__(name="kafka-consumer", daemon=True)
        self._consumer = consumer
        self._topics = topics
        self._group = group
        self._loop = loop
        self._flow = flow
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._stop_requested = threading.Event()
        self._paused: frozenset[tuple[str, int]] = frozenset()
        self._held_up: frozenset[tuple[str, int]] = frozenset()
        self._committed: dict[tuple[str, int], int] = {}
        self._last_commit = clock()
        self.works: dict[tuple[str, int], PartitionWork] = {}
        self.polled_at = clock()
        # Whether the group has given this member its share, which may be none.
        self.assigned = False

    def stop(self) -> None:
        """Ask the thread to drain, commit, leave the group and end."""
        self._stop_requested.set()
        self._flow.interrupt()

    def run(self) -> None:
        """Poll until stopped or failed."""
        try:
            self._consumer.subscribe(
                list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop_requested.is_set():
                self._turn()
        except BaseException as error:  # noqa: BLE001 - reported to the loop, which stops the worker with it
            self._loop.failed(_named(error))
        try:
            self._close()
        except BaseException as error:  # noqa: BLE001 - likewise: nobody reads what a thread raises
            self._loop.failed(_named(error))

    def _turn(self) -> None:
        self.polled_at = self._clock()
        room = self._flow.wait_for_room(POLL_SECONDS)
        self._apply_pauses(room)
        # Without room it has waited already, and nothing but callbacks can come.
        first = self._consumer.poll(POLL_SECONDS if room else 0.0)
        if first is not None:
            messages = [first]
            messages.extend(self._consumer.consume(BATCH_RECORDS - 1, 0))
            self._hand_over(messages)
        if self._clock() - self._last_commit >= COMMIT_SECONDS:
            self._commit(self.works.values(), wait=False)

    def _hand_over(self, messages: Sequence[Message]) -> None:
        records: list[Record] = []
        batches: dict[PartitionWork, list[Record]] = {}
        works = self.works
        size = 0
        for message in messages:
            if message.error() is not None:
                self._check(message)
                continue
            work = works.get((message.topic(), message.partition()))  # type: ignore[arg-type]
            if work is None or work.closed:
                continue  # taken away between fetch and poll: its next owner reads it
            record = Record(
                work,
                message.offset(),  # type: ignore[arg-type]  # None only for a message of an error
                message.timestamp()[1],
                message.key(),
                message.value(),
                message.headers(),  # type: ignore[arg-type]  # consumed headers are a list of (name, bytes)
            )
            records.append(record)
            size += record.size
            if work in batches:
                batches[work].append(record)
            else:
                batches[work] = [record]
        if records:
            for work, batch in batches.items():
                work.enter(batch)
                self._metrics.topics[work.topic].consumed.inc(len(batch))
            self._flow.entered(len(records), size)
            self._loop.received(records)

    def _check(self, message: Message) -> None:
        """Stop on what a restart or a person must mend; the client retries the rest by itself."""
        error = message.error()
        assert error is not None
        place = f"{message.topic()}[{message.partition()}]"
        if error.code() in _OFFSET_ERRORS:
            raise OffsetOutOfRangeError(
                f"{place}: the committed offset is outside the log: {error.str()}",
                hint="records may be lost to retention: look with `omninode offsets show`, then `omninode offsets reset`",
            )
        if error.code() in _TOPIC_ERRORS:
            raise TopicMissingError(f"{message.topic()} does not exist", hint="run `omninode topics apply`")
        if error.code() in _DATA_ERRORS:
            raise CorruptLogError(
                f"{place}: records cannot be read: {error.str()}",
                hint="mend the log or the brokers, or go past them with `omninode offsets reset`",
            )
        if error.fatal() or error.code() in _AUTHORISATION_ERRORS:
            raise KafkaException(error)
        self._log.warning(LogEvent.BROKER_ERROR, place=place, error=error.str())

    def _apply_pauses(self, room: bool) -> None:
        """Bring the paused set to what flow control and open breakers ask for."""
        blocked, held_up = self._flow.blocked_topics, self._find_held_up()
        if room and not blocked and not held_up and not self._paused:
            return
        wanted = held_up.union(key for key, work in self.works.items() if not room or work.topic in blocked)
        if wanted == self._paused:
            return
        pause, resume = wanted - self._paused, (self._paused - wanted) & self.works.keys()
        if pause:
            self._consumer.pause([TopicPartition(*key) for key in pause])
        if resume:
            self._consumer.resume([TopicPartition(*key) for key in resume])
        self._paused = wanted
        self._metrics.paused_partitions.set(len(wanted))

    def _find_held_up(self) -> frozenset[tuple[str, int]]:
        """Return the partitions in which one record has been unfinished while very many after it were finished."""
        held_up = frozenset(key for key, work in self.works.items() if work.holds_more_than(LEDGER_RECORDS))
        if held_up - self._held_up:
            self._log.error(
                LogEvent.PARTITIONS_PAUSED,
                partitions=[f"{topic}[{number}]" for topic, number in sorted(held_up)],
                reason="a record stays unfinished; earlier lines say why",
            )
        self._held_up = held_up
        return held_up

    def _commit(self, works: Iterable[PartitionWork], *, wait: bool) -> None:
        """Commit what is finished and was not committed yet; a failed commit is repeated with the next one."""
        self._last_commit = self._clock()
        offsets: list[TopicPartition] = []
        for work in works:
            key = (work.physical, work.partition)
            position = work.advance()
            if position != NO_OFFSET and position != self._committed.get(key):
                offsets.append(TopicPartition(work.physical, work.partition, position))
        if not offsets:
            return
        try:
            if wait:
                for answer in self._consumer.commit(offsets=offsets, asynchronous=False) or []:
                    if answer.error is not None:
                        raise KafkaException(answer.error)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._metrics.commit_failures.inc()
            self._log.warning(LogEvent.COMMIT_FAILED, error=error.args[0].str(), partitions=len(offsets))
            return
        self._metrics.commits.inc()
        for offset in offsets:
            self._committed[offset.topic, offset.partition] = offset.offset

    def on_commit(self, error: KafkaError | None, offsets: Sequence[TopicPartition]) -> None:
        """Forget positions whose asynchronous commit failed, so that the next commit carries them again."""
        failed = [(one, reason) for one in offsets if (reason := error or one.error) is not None]
        if failed:
            self._metrics.commit_failures.inc()
            self._log.warning(LogEvent.COMMIT_FAILED, error=failed[0][1].str(), partitions=len(failed))
            for one, _ in failed:
                self._committed.pop((one.topic, one.partition), None)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        began = self._clock()
        positions = start_positions(consumer, partitions, self._group) if partitions else []
        for partition in positions:
            topic = self._topics[partition.topic]
            self.works[partition.topic, partition.partition] = PartitionWork(
                topic, partition.topic, partition.partition
            )
        consumer.incremental_assign(positions)
        if positions:
            # The client remembers a pause beyond the loss of a partition; we start with none.
            consumer.resume(positions)
        self.assigned = True
        self._rebalanced("assigned", LogEvent.PARTITIONS_ASSIGNED, partitions, began)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        began = self._clock()
        self._finish(self._given_up(partitions))
        self._forget(partitions)
        consumer.incremental_unassign(partitions)
        self._rebalanced("revoked", LogEvent.PARTITIONS_REVOKED, partitions, began)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        began = self._clock()
        works = self._given_up(partitions)
        for work in works:
            work.closed = True  # another member may own it already: nothing of it is committed from here
        self._loop.lose(works)
        self._forget(partitions)
        consumer.incremental_unassign(partitions)
        self.assigned = False
        self._rebalanced("lost", LogEvent.PARTITIONS_LOST, partitions, began)

    def _given_up(self, partitions: Sequence[TopicPartition]) -> list[PartitionWork]:
        keys = [(one.topic, one.partition) for one in partitions]
        return [self.works[key] for key in keys if key in self.works]

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for one in partitions:
            self.works.pop((one.topic, one.partition), None)
            self._committed.pop((one.topic, one.partition), None)
            self._metrics.forget_lag(str(self._topics[one.topic]), one.partition)
        self._paused = frozenset(key for key in self._paused if key in self.works)

    def _rebalanced(self, event: Any, name: LogEvent, partitions: Sequence[TopicPartition], began: float) -> None:
        seconds = self._clock() - began
        self._metrics.rebalances[event].inc()
        self._metrics.rebalance_seconds.observe(seconds)
        self._metrics.assigned_partitions.set(len(self.works))
        self._loop.assignment_changed()
        self._log.info(
            name,
            partitions=[f"{one.topic}[{one.partition}]" for one in partitions],
            seconds=round(seconds, 3),
            owned=len(self.works),
        )

    def _finish(self, works: Iterable[PartitionWork]) -> None:
        """Drain partitions and commit what is finished; once only, though closing the consumer revokes them again."""
        left = [work for work in works if not work.closed]
        if left:
            for work in left:
                work.closed = True
            self._loop.drain(left)
            self._commit(left, wait=True)

    def _close(self) -> None:
        """Commit what is finished and leave the group; the next owner goes on from there."""
        try:
            self._finish(self.works.values())
        finally:
            self._consumer.close()


def _named(error: BaseException) -> BaseException:
    """Return an error of our tree for what the Kafka client raised."""
    if isinstance(error, OmnibaseError) or not isinstance(error, KafkaException):
        return error
    cause = error.args[0]
    named = DependencyUnavailableError(f"the Kafka consumer failed: {cause.str()}", dependency="kafka")
    named.__cause__ = error
    return named
