"""The commits of a transactional worker: outputs and the offsets of their inputs, in one Kafka transaction.

A transaction takes of every owned partition what is finished up to the first record that is not, so a slow record
holds back its own partition and nothing else. One transaction runs at a time, on the producer's thread; what finishes
meanwhile is the next one. An aborted one is run again from memory: nothing has to be computed twice.

What keeps a zombie out is the group: its metadata, fetched for every transaction on the thread that polls, is refused
by the coordinator once partitions may have moved. Used on the consumer thread.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaError, TopicPartition

from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.kafka.group_metadata import is_member
from omnibase_infra.shared.kafka.transaction_errors import (
    OutputsRefusedError,
    TransactionAbortedError,
    TransactionUnknownError,
)
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.resilience.retry_policy import RetryPolicy
from omnibase_infra.shared.runtime.commits import Place
from omnibase_infra.shared.runtime.records import NO_OFFSET, PartitionWork
from omnibase_infra.shared.runtime.transaction_stage import StagedOutputs, TransactionStage

# Outputs that wait for a transaction; beyond it no more is consumed.
STAGED_BYTES: Final = 32 * 1024 * 1024
# Of one transaction, about; what is beyond it goes into the next.
TRANSACTION_BYTES: Final = 16 * 1024 * 1024
# To finish a transaction and run a last one while partitions are taken away.
FLUSH_SECONDS: Final = 10.0
FIRST_DELAY_SECONDS: Final = 0.05
LONGEST_DELAY_SECONDS: Final = 5.0
# How long after so many failures; the attempts never end. No jitter: nobody else waits for this producer.
_PAUSES: Final = RetryPolicy(attempts=1, base=FIRST_DELAY_SECONDS, cap=LONGEST_DELAY_SECONDS, jitter="none")


class Transactions(Protocol):
    """Runs transactions; see `kafka.transactional_producer.TransactionalProducer.submit`."""

    def submit(
        self,
        records: Sequence[OutboundRecord],
        offsets: Sequence[TopicPartition] = (),
        group: Any = None,
        *,
        alone: Collection[int] = (),
        was_committed: Callable[[], bool] | None = None,
    ) -> Future[None]:
        """Begin one; its future says how it ended."""
        ...


class Replace(Protocol):
    """Says what goes out in place of an output that was refused; see `refused_outputs.RefusedOutputs.replacement`."""

    def __call__(self, staged: StagedOutputs, refused: OutboundRecord, reason: str) -> Sequence[OutboundRecord] | None:
        """Return it, or None when nothing may."""
        ...


ReadCommitted = Callable[[TopicPartition], TopicPartition]


class TransactionSupport(NamedTuple):
    """What a transactional worker is given by its process.

    Attributes:
        transactions: runs them.
        check: raises on a topic that the contract does not list.
        read_committed: see `TransactionalCommits`.
    """

    transactions: Transactions
    check: Callable[[Sequence[OutboundRecord]], Any]
    read_committed: ReadCommitted


class _Round:
    """A transaction under way."""

    def __init__(self, items: list[StagedOutputs], offsets: list[TopicPartition], *, clean: bool) -> None:
        self.items = items
        self.offsets = offsets
        self.clean = clean
        self.future: Future[None] | None = None
        self.outputs = [(item, output) for item in items for output in item.outputs]


class TransactionalCommits:
    """Has the interface of `commits.Commits`, and its place in the consumer thread."""

    # No pause between commits: while one runs, what the next one takes gathers.
    seconds = 0.0
    held = False

    def __init__(
        self,
        consumer: Consumer,
        metrics: WorkerMetrics,
        log: Any,
        *,
        stage: TransactionStage,
        support: TransactionSupport,
        replace: Replace,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Args:
        consumer: asked for the group's metadata only.
        metrics / log: of the worker.
        stage: where outputs wait.
        support: runs transactions, and returns a partition with its committed offset and metadata, after all
            transactions that concern it have ended; the latter is called on the producer's thread.
        replace: says what goes out in place of an output that was refused.
        clock / sleep: monotonic seconds.
        """
        self._consumer = consumer
        self._metrics = metrics
        self._log = log
        self._stage = stage
        self._transactions = support.transactions
        self._replace = replace
        self._read_committed = support.read_committed
        self._clock = clock
        self._works: dict[Place, PartitionWork] = {}
        self._committed: dict[Place, tuple[int, str]] = {}
        self._pending: list[StagedOutputs] = []
        self._round: _Round | None = None
        self._failures = 0
        self._in_doubt = False
        self._not_before = clock()
        self._sleep = sleep
        self.last_at = clock()

    # -- the interface of `Commits` ---------------------------------------------------------------------------------

    def commit(self, works: Iterable[PartitionWork], *, wait: bool, clean: bool = False) -> bool:
        """Run transactions for these partitions; return whether nothing went wrong that is known yet.

        Raises:
            ProducerFencedError: another process has the transactional id.
            TransactionUnknownError: what became of a transaction cannot be found out.
        """
        self.last_at = self._clock()
        if self.held:
            return False
        chosen = list(works)
        if wait:
            return self._flush(chosen, clean=clean)
        self._collect()
        if self._round is None and self._clock() >= self._not_before:
            self._start(chosen, clean=clean)
        return not self._failures

    def own(self, works: Iterable[PartitionWork]) -> None:
        """Take outputs of partitions that were assigned."""
        for work in works:
            self._works[work.physical, work.partition] = work
            self._stage.open((work,))

    def began(self, work: PartitionWork, position: int, metadata: str) -> None:
        """Note what was committed when the partition was assigned."""
        self._committed[work.physical, work.partition] = position, metadata

    def forget(self, place: Place) -> None:
        """Drop what is left of a partition that was taken away; its next owner runs it again."""
        self._committed.pop(place, None)
        work = self._works.pop(place, None)
        if work is None:
            return
        self._stage.close(work)
        self._stage.release(one for one in self._pending if one.record.work is work)
        self._pending = [one for one in self._pending if one.record.work is not work]

    def answered(self, error: KafkaError | None, offsets: Sequence[TopicPartition]) -> None:
        """Take the answer to a commit outside transactions that was not waited for: there is none."""

    def failed(self, error: KafkaError, partitions: int) -> None:
        """Count and log a commit outside transactions that failed."""
        self._metrics.commit_failures.inc()
        self._log.warning(LogEvent.COMMIT_FAILED, error=error.str(), partitions=partitions)

    @property
    def is_busy(self) -> bool:
        """Return whether something waits for a transaction, or one is under way."""
        return self._round is not None or bool(self._pending) or self._stage.bytes > 0

    @property
    def is_full(self) -> bool:
        """Return whether so many outputs wait that no more is to be consumed."""
        return self._stage.bytes > STAGED_BYTES

    # -- rounds -----------------------------------------------------------------------------------------------------

    def _start(self, works: Sequence[PartitionWork], *, clean: bool) -> bool:
        """Begin a transaction if there is anything to commit; return whether there is."""
        chosen = set(works)
        pending = [one for one in self._pending if one.record.work in chosen]
        offsets, items = self._take(works, TRANSACTION_BYTES - sum(one.size for one in pending), clean=clean)
        items = [*pending, *items]
        if not items and not offsets:
            return False
        group = self._consumer.consumer_group_metadata()
        if not is_member(group):
            # Nothing would keep this out if the partitions are another member's already; a callback is about to say so.
            self._keep(items, owned=set(self._works.values()))
            self._delay()
            return True
        self._pending = [one for one in self._pending if one.record.work not in chosen]
        witness = self._witness(items, offsets, clean=clean)
        self._round = round_ = _Round(items, offsets, clean=clean)
        round_.future = self._transactions.submit(
            [output for _, output in round_.outputs],
            offsets,
            group,
            alone=[index for index, (item, _) in enumerate(round_.outputs) if item.alone],
            was_committed=partial(self._is_committed, witness) if witness is not None else None,
        )
        return True

    def _take(
        self, works: Sequence[PartitionWork], room: int, *, clean: bool
    ) -> tuple[list[TopicPartition], list[StagedOutputs]]:
        """Return what can be committed now: offsets, and the outputs that go with them.

        The outputs of retry partitions are looked at last and sent first: the records that waited in a key behind a
        parked one finish after it, and so do their answers come.
        """
        offsets: list[TopicPartition] = []
        items: list[StagedOutputs] = []
        for work in sorted(works, key=_is_retry):
            # The position first: what is taken after that holds the outputs of all before it.
            taken, position = self._stage.take(work, work.advance(), room)
            room -= 0 if work.is_retry else sum(one.size for one in taken)
            items = [*taken, *items] if work.is_retry else [*items, *taken]
            if position != NO_OFFSET and self._has_news(work, position, clean=clean):
                offsets.append(
                    TopicPartition(work.physical, work.partition, position, _metadata(work, position, clean=clean))
                )
        return offsets, items

    def _has_news(self, work: PartitionWork, position: int, *, clean: bool) -> bool:
        known, metadata = self._committed.get((work.physical, work.partition), (NO_OFFSET, ""))
        return known != position or metadata != _metadata(work, position, clean=clean)

    def _witness(
        self, items: Sequence[StagedOutputs], offsets: list[TopicPartition], *, clean: bool
    ) -> TopicPartition | None:
        """Mark one of the offsets, so that reading it back tells whether this transaction was committed.

        A transaction with outputs of retry partitions alone moves no offset. It commits one once more, also since
        without any the coordinator of the group would not be asked whether we are a member.
        """
        if not offsets:
            work = items[0].record.work
            position, metadata = work.finished_to, _metadata(work, work.finished_to, clean=clean)
            offsets.append(TopicPartition(work.physical, work.partition, position, metadata))
        if clean:
            return None  # nobody will want to know: its partitions are given up
        first = offsets[0]
        marked = _marked(first.metadata or "{}", uuid.uuid4().hex)
        offsets[0] = TopicPartition(first.topic, first.partition, first.offset, marked)
        return offsets[0]

    def _is_committed(self, witness: TopicPartition) -> bool:
        """Return whether the marked offset is there. Producer's thread."""
        found = self._read_committed(TopicPartition(witness.topic, witness.partition))
        return (found.offset, found.metadata) == (witness.offset, witness.metadata)

    def _collect(self) -> None:
        """Take the result of the transaction under way, if it has one."""
        round_ = self._round
        if round_ is None or round_.future is None or not round_.future.done():
            return
        self._round = None
        try:
            round_.future.result()
        except OutputsRefusedError as error:
            self._again(round_, error)
            self._refused(round_, error)
        except TransactionAbortedError as error:
            self._again(round_, error)
        except TransactionUnknownError as error:
            if not round_.clean:
                raise
            # Its partitions are being given up: their next owner starts where it finds the group.
            self._stage.release(round_.items)
            self._log.warning(LogEvent.COMMIT_FAILED, error=error.message, partitions=len(round_.offsets))
            self._in_doubt = True
        else:
            self._failures = 0
            self._metrics.commits.inc()
            self._stage.release(round_.items)
            for one in round_.offsets:
                if (one.topic, one.partition) in self._works:
                    self._committed[one.topic, one.partition] = one.offset, _unmarked(one.metadata or "")

    def _again(self, round_: _Round, error: TransactionAbortedError) -> None:
        """Keep what was not committed for the next transaction; what is not ours any more is dropped."""
        self._keep(round_.items, owned=set(self._works.values()))
        self._delay()
        self._metrics.commit_failures.inc()
        self._log.warning(
            LogEvent.TRANSACTION_ABORTED,
            error=error.message,
            outputs=len(round_.outputs),
            partitions=len(round_.offsets),
        )

    def _keep(self, items: Sequence[StagedOutputs], *, owned: set[PartitionWork]) -> None:
        kept = {id(one) for one in self._pending}
        self._stage.release(one for one in items if one.record.work not in owned)
        new = [one for one in items if one.record.work in owned and id(one) not in kept]
        self._pending = [*new, *self._pending] if not kept else [*self._pending, *new]

    def _delay(self) -> None:
        self._failures += 1
        self._not_before = self._clock() + _PAUSES.delay(self._failures)

    def _refused(self, round_: _Round, error: OutputsRefusedError) -> None:
        """Replace an output that the broker refuses; of several suspects, ask about each one alone first."""
        suspects = [(round_.outputs[index], reason) for index, reason in sorted(error.errors.items())]
        if not error.alone:
            for (item, _), _ in suspects:
                item.alone = True
            self._not_before = self._clock()
            return
        for (item, refused), reason in suspects:
            instead = self._replace(item, refused, reason)
            if instead is None:
                # Losing it would lose the record: this waits, with ever longer pauses, until somebody mends the topic.
                self._log.error(LogEvent.OUTPUT_REFUSED, record=repr(item.record), topic=refused.topic, error=reason)
            else:
                self._stage.resized(item, instead)
                self._not_before = self._clock()

    def _flush(self, works: Sequence[PartitionWork], *, clean: bool) -> bool:
        """Finish the transaction under way and run others until all of these partitions is committed, or time is up."""
        deadline = self._clock() + FLUSH_SECONDS
        while True:
            if not self._wait(deadline):
                self._log.warning(LogEvent.COMMIT_FAILED, error="the transaction takes too long", partitions=len(works))
                return False
            if self._in_doubt:
                self._in_doubt = False
                return False
            remaining = deadline - self._clock()
            if (pause := self._not_before - self._clock()) > 0:
                if pause > remaining:
                    return False
                self._sleep(pause)
            if not self._start(works, clean=clean):
                return True

    def _wait(self, deadline: float) -> bool:
        """Wait for the transaction under way; return whether it has ended."""
        round_ = self._round
        if round_ is None or round_.future is None:
            return True
        try:
            round_.future.exception(max(0.0, deadline - self._clock()))
        except TimeoutError:
            return False
        self._collect()
        return True


def _is_retry(work: PartitionWork) -> bool:
    return work.is_retry


_MARK: Final = ',"t":"'


def _metadata(work: PartitionWork, position: int, *, clean: bool) -> str:
    return work.crash.clean if clean else work.crash.metadata(position)


def _marked(metadata: str, mark: str) -> str:
    """Return crash metadata, a JSON object, with one field more, which its readers ignore."""
    return f'{metadata[:-1]}{_MARK if len(metadata) > 2 else _MARK[1:]}{mark}"}}'


def _unmarked(metadata: str) -> str:
    for start in (_MARK, "{" + _MARK[1:]):
        if (place := metadata.find(start)) >= 0:
            return metadata[:place] + "}" if start == _MARK else "{}"
    return metadata
