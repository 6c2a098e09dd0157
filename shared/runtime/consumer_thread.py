"""The consumer thread: polls, hands batches over, pauses and resumes, commits, answers rebalances.

It owns the confluent consumer; no other thread touches it but for metadata queries. It waits on the event loop
only while partitions are taken away, and then within a budget, so that membership never depends on a handler.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from omnibase_infra.shared.core.errors import (
    ClusterRefusedError,
    CorruptLogError,
    DependencyUnavailableError,
    OffsetOutOfRangeError,
    OmnibaseError,
    TopicMissingError,
)
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.kafka.security import GRANT_HINT
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.assignment import Assignment, OpenParking, RetryTopic
from omnibase_infra.shared.runtime.commits import Commits, Committing
from omnibase_infra.shared.runtime.flow_control import FlowControl
from omnibase_infra.shared.runtime.pauses import Pauses
from omnibase_infra.shared.runtime.records import PartitionWork, Record

BATCH_RECORDS: Final = 500
POLL_SECONDS: Final = 0.1
# While one record runs at a time, each waits for a commit before it; so do outputs for their transaction.
HURRIED_POLL_SECONDS: Final = 0.002
# Longer between two turns, and the process may have been frozen while topics were made anew: see `topic_watch`.
FROZEN_SECONDS: Final = 1.0
# To see that they were not; the brokers may be away, or say nothing for other reasons.
LOOK_SECONDS: Final = 10.0
_OFFSET_ERRORS: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_TOPIC_ERRORS: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
# Records that the client could not read and goes past: what comes after them must not be committed.
_DATA_ERRORS: Final = frozenset(
    {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG, KafkaError.INVALID_MSG_SIZE}
)
_AUTHORISATION_ERRORS: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})


class Loop(Protocol):
    """What the thread tells the event loop. Every call returns at once but for `drain`."""

    def received(self, records: list[Record], read_to: Sequence[tuple[PartitionWork, int]]) -> None:
        """Take a batch of source records, and the offsets that their partitions were read to."""
        ...

    def received_parked(self, records: list[Record]) -> None:
        """Take records of retry partitions, some of them again after a `seek`."""
        ...

    def reached_end(self, work: PartitionWork, offset: int) -> None:
        """Note that a partition was read to its end, whose offset this is."""
        ...

    def drain(self, works: Sequence[PartitionWork]) -> None:
        """Drop what has not started of these partitions and wait, within the revoke budget, for what has."""
        ...

    def lose(self, works: Sequence[PartitionWork]) -> None:
        """Drop all work of partitions that another member may own already."""
        ...

    def assignment_changed(self, new: Sequence[PartitionWork]) -> None:
        """Note that the assignment is another one now, and what is new in it."""
        ...

    def failed(self, error: BaseException) -> None:
        """Stop the worker: the thread ended with this error."""
        ...


class ConsumerThread(threading.Thread):
    """Runs one consumer until `stop`. Started once; `stop` then `join` ends it in bounded time."""

    def __init__(  # noqa: PLR0913 - what a thread may touch
        self,
        consumer: Consumer,
        *,
        topics: Mapping[str, TopicName],
        group: str,
        loop: Loop,
        flow: FlowControl,
        metrics: WorkerMetrics,
        log: Any,
        retries: Mapping[str, RetryTopic] = MappingProxyType({}),
        open_parking: OpenParking | None = None,
        make_commits: Callable[[Consumer], Committing] | None = None,
        topic_ids: Callable[[], Mapping[str, str]] = dict,
        topics_seen_since: Callable[[float], bool] = lambda _moment: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        consumer: owned by this thread from now on; reports the ends of partitions.
        topics: to subscribe to, by their names on the cluster.
        group: consumer group.
        loop / flow / metrics / log: what the thread reports to.
        retries: the retry topic of each of `topics`, by the name of that on the cluster.
        open_parking: makes what keeps the parked records of a partition pair; needed with `retries`.
        make_commits: what commits positions, if it is not `Commits`.
        topic_ids: says which topics are behind the names, as far as it is known.
        topics_seen_since: says whether they were still the same after a moment of the clock; if not, has it looked at.
        clock: monotonic.
        """
        super().__init__(name="kafka-consumer", daemon=True)
        self._consumer = consumer
        self._topics = topics
        self._loop = loop
        self._flow = flow
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._stop_requested = threading.Event()
        self._leaving = False
        self._pauses = Pauses(consumer, flow, metrics, log)
        self._ends: dict[PartitionWork, int] = {}
        self._retry_ends: dict[PartitionWork, int] = {}
        self._topics_seen_since = topics_seen_since
        self._unsure_since: float | None = None
        self._requests: deque[Callable[[], None]] = deque()
        self._retried_later: list[Callable[[], None]] = []
        self._commits: Committing = (
            Commits(consumer, metrics, log, clock) if make_commits is None else make_commits(consumer)
        )
        self._assignment = Assignment(
            consumer,
            topics=topics,
            retries=retries,
            group=group,
            commits=self._commits,
            open_parking=open_parking,
            topic_ids=topic_ids,
        )
        self.works: dict[tuple[str, int], PartitionWork] = {}
        self.polled_at = clock()
        # Whether the group has given this member its share, which may be none.
        self.assigned = False
        # Set while records run one at a time, so that their commits do not wait for a poll.
        self.hurried = False

    @property
    def owned(self) -> int:
        """Return how many partitions of the subscribed topics are owned."""
        return sum(not work.is_retry for work in list(self.works.values()))

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

    def seek(self, work: PartitionWork, offset: int) -> None:
        """Have a partition read again from an offset. From the event loop; done at the next turn."""
        self._requests.append(lambda: self._seek(work, offset))

    def hold_commits(self, held: bool) -> None:
        """Commit nothing while this is set, not even at the end. From any thread."""
        self._commits.held = held

    def commit_now(self, works: Sequence[PartitionWork], committed: Callable[[bool], None]) -> None:
        """Commit what these partitions have to say and report whether it worked. From the event loop."""
        self._requests.append(lambda: committed(self._commit_owned(works)))

    def _commit_owned(self, works: Sequence[PartitionWork]) -> bool:
        # One that was given up since has said its last word, and its next owner may have spoken.
        return self._commits.commit([work for work in works if not work.closed], wait=True)

    def _seek(self, work: PartitionWork, offset: int) -> None:
        if not work.closed and (work.physical, work.partition) in self.works:
            try:
                self._consumer.seek(TopicPartition(work.physical, work.partition, offset))
            except KafkaException as error:
                # Its fetcher has not started yet, or is between two brokers.
                self._log.warning(
                    LogEvent.BROKER_ERROR, place=f"{work.physical}[{work.partition}]", error=error.args[0].str()
                )
                self._retried_later.append(lambda: self._seek(work, offset))

    def _turn(self) -> None:
        now = self._clock()
        if now - self.polled_at > FROZEN_SECONDS and self._unsure_since is None:
            self._unsure_since = now  # not put off by the next: a process that is merely slow must get on
        self.polled_at = now
        hurried = self.hurried or self._commits.is_busy or (not self._commits.seconds and self._flow.records > 0)
        room = self._flow.wait_for_room(0.0 if hurried else POLL_SECONDS) and not self._commits.is_full
        self._pauses.apply(self.works, room=room and self._is_sure_of_topics(now))
        # Without room it has waited already, and nothing but callbacks can come.
        patience = HURRIED_POLL_SECONDS if hurried else POLL_SECONDS if room else 0.0
        first = self._consumer.poll(patience)
        if first is not None:
            messages = [first]
            messages.extend(self._consumer.consume(BATCH_RECORDS - 1, 0))
            self._hand_over(messages)
        self._look_at_ends()
        while self._requests:
            self._requests.popleft()()
        if self._retried_later:
            self._requests.extend(self._retried_later)
            self._retried_later.clear()
        if self._clock() - self._commits.last_at >= self._commits.seconds:
            self._commits.commit(self.works.values(), wait=False)

    def _is_sure_of_topics(self, now: float) -> bool:
        """Return whether what is read is of the topics that it was: else its beginning may be missing."""
        if (since := self._unsure_since) is not None and (self._topics_seen_since(since) or now - since > LOOK_SECONDS):
            self._unsure_since = None
        return self._unsure_since is None and not self._commits.held

    def _hand_over(self, messages: Sequence[Message]) -> None:
        records: list[Record] = []
        batches: dict[PartitionWork, list[Record]] = {}
        parked: list[Record] = []
        works = self.works
        size = 0
        latest: PartitionWork | None = None
        batch: list[Record] = []
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
            if work.is_retry:
                if record.offset > work.last_entered:
                    work.enter((record,))
                    self._metrics.topics[work.topic].consumed.inc()
                parked.append(record)
                continue
            records.append(record)
            size += record.size
            if work is not latest:  # what the client fetched of a partition comes in one piece
                latest, batch = work, batches.setdefault(work, [])
            batch.append(record)
        if records:
            for work, batch in batches.items():
                work.enter(batch)
                self._metrics.topics[work.topic].consumed.inc(len(batch))
            self._flow.entered(len(records), size)
            self._loop.received(records, [(work, batch[-1].offset + 1) for work, batch in batches.items()])
        if parked:
            self._loop.received_parked(parked)
        self._report_ends()

    def _look_at_ends(self) -> None:
        """Go on from the ends that partitions were read to."""
        for work, offset in self._ends.items():
            if not work.is_retry and work.parking is not None and work.parking.waits_for_source:
                self._loop.reached_end(work, offset)
            if offset > work.finished_to:
                work.reached_end(offset)

    def _report_ends(self) -> None:
        """Tell of retry partitions that were read to their ends, after the records before them."""
        for work in self._retry_ends:
            self._loop.reached_end(work, self._retry_ends[work])
        self._retry_ends.clear()

    def _check(self, message: Message) -> None:
        """Stop on what a restart or a person must mend; the client retries the rest by itself."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            work = self.works.get((message.topic(), message.partition()))  # type: ignore[arg-type]
            if work is not None and not work.closed:
                offset = message.offset() or 0
                self._ends[work] = offset
                if work.is_retry:
                    self._retry_ends[work] = offset
            return
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

    def on_commit(self, error: KafkaError | None, offsets: Sequence[TopicPartition]) -> None:
        """Take the answer to a commit that was not waited for."""
        self._commits.answered(error, offsets)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._leaving:
            # A rebalance that ended too late: the coordinator answers nothing to who leaves, and the next owner reads them.
            consumer.incremental_assign([])
            return
        began = self._clock()
        new = self._assignment.take(partitions)
        self._commits.own(new.values())
        self.works |= new
        self._pauses.begin(new)
        self.assigned = True
        self._rebalanced("assigned", LogEvent.PARTITIONS_ASSIGNED, partitions, began, list(new.values()))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        began = self._clock()
        self._finish(self._given_up(partitions))
        self._let_go(consumer, partitions)
        self._rebalanced("revoked", LogEvent.PARTITIONS_REVOKED, partitions, began)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        began = self._clock()
        works = self._given_up(partitions)
        for work in works:
            work.closed = True  # another member may own it already: nothing of it is committed from here
        self._loop.lose(works)
        self._let_go(consumer, partitions)
        self.assigned = False
        self._rebalanced("lost", LogEvent.PARTITIONS_LOST, partitions, began)

    def _given_up(self, partitions: Sequence[TopicPartition]) -> list[PartitionWork]:
        """Return the work of source partitions and of the retry partitions that follow them."""
        keys = [(one.topic, one.partition) for one in self._assignment.with_retries(partitions)]
        return [self.works[key] for key in keys if key in self.works]

    def _let_go(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Read partitions and their retry partitions no more; of those given while leaving none was ever read."""
        followed = self._assignment.with_retries(partitions)
        read = [one for one in followed if (one.topic, one.partition) in self.works]
        self._forget(followed)
        consumer.incremental_unassign(read)

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for one in partitions:
            work = self.works.pop((one.topic, one.partition), None)
            self._commits.forget((one.topic, one.partition))
            if work is not None:
                self._ends.pop(work, None)
                self._retry_ends.pop(work, None)
                self._metrics.forget_lag(work.topic, one.partition)
        self._pauses.keep(self.works)

    def _rebalanced(
        self,
        event: Any,
        name: LogEvent,
        partitions: Sequence[TopicPartition],
        began: float,
        new: Sequence[PartitionWork] = (),
    ) -> None:
        seconds = self._clock() - began
        self._metrics.rebalances[event].inc()
        self._metrics.rebalance_seconds.observe(seconds)
        self._metrics.assigned_partitions.set(self.owned)
        self._loop.assignment_changed(new)
        self._log.info(
            name,
            partitions=[f"{one.topic}[{one.partition}]" for one in partitions],
            seconds=round(seconds, 3),
            owned=self.owned,
        )

    def _finish(self, works: Iterable[PartitionWork]) -> None:
        """Drain partitions and commit what is finished; once only, though closing the consumer revokes them again."""
        left = [work for work in works if not work.closed]
        if left:
            for work in left:
                work.closed = True
            self._loop.drain(left)
            self._commits.commit(left, wait=True, clean=True)

    def _close(self) -> None:
        """Commit what is finished and leave the group; the next owner goes on from there."""
        self._leaving = True
        try:
            self._finish(self.works.values())
        finally:
            self._consumer.close()


def _named(error: BaseException) -> BaseException:
    """Return an error of our tree for what the Kafka client raised."""
    if isinstance(error, OmnibaseError) or not isinstance(error, KafkaException):
        return error
    cause = error.args[0]
    named: OmnibaseError = DependencyUnavailableError(f"the Kafka consumer failed: {cause.str()}", dependency="kafka")
    if cause.code() in _AUTHORISATION_ERRORS:
        named = ClusterRefusedError(f"the brokers do not let this worker read on: {cause.str()}", hint=GRANT_HINT)
    named.__cause__ = error
    return named
