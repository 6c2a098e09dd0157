"""What goes into a transaction with which offsets, and what becomes of it when the transaction does not happen."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from omnibase_infra.shared.core.errors import TopicNotDeclaredError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.kafka.transaction_errors import (
    OutputsRefusedError,
    ProducerFencedError,
    TransactionAbortedError,
    TransactionUnknownError,
)
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime import transactional_commits
from omnibase_infra.shared.runtime.crash_record import CLEAN, CrashRecord, after
from omnibase_infra.shared.runtime.records import DONE, PartitionWork, Record
from omnibase_infra.shared.runtime.transaction_stage import StagedOutputs, TransactionStage
from omnibase_infra.shared.runtime.transactional_commits import TransactionalCommits, TransactionSupport
from omnibase_infra.shared.testing.manual_clock import ManualClock
from omnibase_infra.shared.testing.sample_fleet import order_store

SOURCE = TopicName.parse("onex.cmd.order-store.requests.v1")
RETRY = next(iter(order_store().retry_topics.values()))
ANSWERS = "onex.evt.order-store.results.v1"


class Consumer:
    """A member with its generation."""

    def __init__(self) -> None:
        self.generation = 1

    def consumer_group_metadata(self) -> bytes:
        return b"CGMDv2:" + struct.pack("<i", self.generation) + b"group\0member\0\x01"


class Transaction:
    """One that was submitted; the test ends it."""

    def __init__(self, records: Sequence[OutboundRecord], offsets: Sequence[TopicPartition], group: Any, alone: Any):
        self.values = [int(record.value or b"") for record in records]
        self.offsets = {(one.topic, one.partition): one.offset for one in offsets}
        self.metadata = {(one.topic, one.partition): one.metadata for one in offsets}
        self.group, self.alone = group, list(alone)
        self.future: Future[None] = Future()
        self.was_committed: Callable[[], bool] | None = None

    def commit(self) -> None:
        self.future.set_result(None)

    def fail(self, error: BaseException | None = None) -> None:
        self.future.set_exception(error or TransactionAbortedError("the broker said no"))


class Cluster:
    """Takes transactions; with `answer` it ends each at once."""

    def __init__(self) -> None:
        self.all: list[Transaction] = []
        self.answer: Callable[[Transaction], None] | None = None

    def submit(
        self,
        records: Sequence[OutboundRecord],
        offsets: Sequence[TopicPartition] = (),
        group: Any = None,
        *,
        alone: Any = (),
        was_committed: Callable[[], bool] | None = None,
    ) -> Future[None]:
        transaction = Transaction(records, offsets, group, alone)
        transaction.was_committed = was_committed
        self.all.append(transaction)
        if self.answer is not None:
            self.answer(transaction)
        return transaction.future

    @property
    def last(self) -> Transaction:
        return self.all[-1]


class Member:
    """A worker's commits on its partitions."""

    def __init__(self, partitions: int = 1, *, retry: bool = False) -> None:
        self.consumer, self.cluster, self.clock = Consumer(), Cluster(), ManualClock()
        self.stage = TransactionStage(lambda outputs: None)
        self.read: dict[tuple[str, int], tuple[int, str]] = {}
        self.replacements: list[tuple[Record, bytes | None]] = []
        self.replace_by: Sequence[OutboundRecord] | None = [OutboundRecord(ANSWERS, b"999")]
        self.commits = TransactionalCommits(
            self.consumer,  # type: ignore[arg-type]  # the part of it that is used
            WorkerMetrics(MetricsRegistry(process_metrics=False), order_store()),
            get_logger(),
            stage=self.stage,
            support=TransactionSupport(self.cluster, lambda outputs: None, self._read),
            replace=self._replace,
            clock=self.clock.monotonic,
            sleep=self.clock.advance,
        )
        self.sources = [PartitionWork(SOURCE, "dev.requests", number, start=0) for number in range(partitions)]
        self.retries = [
            PartitionWork(RETRY, "dev.retry", number, source=SOURCE, start=0)
            for number in range(partitions if retry else 0)
        ]
        self.works = [*self.sources, *self.retries]
        self.commits.own(self.works)
        for work in self.works:
            self.commits.began(work, 0, "{}")

    def _read(self, place: TopicPartition) -> TopicPartition:
        offset, metadata = self.read[place.topic, place.partition]
        return TopicPartition(place.topic, place.partition, offset, metadata)

    def _replace(self, staged: StagedOutputs, refused: OutboundRecord, reason: str) -> Sequence[OutboundRecord] | None:
        self.replacements.append((staged.whole_record(), refused.value))
        return self.replace_by

    def enter(self, work: PartitionWork, *offsets: int) -> list[Record]:
        records = [Record(work, offset, 0, b"k", b"in-%d" % offset, None) for offset in offsets]
        work.enter(records)
        return records

    async def finish(self, *records: Record, value: int | None = None, size: int = 0) -> None:
        for record in records:
            number = record.offset if value is None else value
            await self.stage.deliver_owned([(record, OutboundRecord(ANSWERS, b"%0*d" % (size or 1, number)))])
            record.stage = DONE
            record.forget_content()

    def turn(self, seconds: float = 0.0) -> Transaction | None:
        """Let the thread look; return the transaction that began, if one did."""
        self.clock.advance(seconds)
        before = len(self.cluster.all)
        self.commits.commit(self.works, wait=False)
        return self.cluster.last if len(self.cluster.all) > before else None

    def must_turn(self, seconds: float = 0.0) -> Transaction:
        transaction = self.turn(seconds)
        assert transaction is not None
        return transaction


async def test_outputs_go_out_with_the_offset_behind_their_record_and_not_beyond_the_first_unfinished_one() -> None:
    member = Member()
    (work,) = member.sources
    records = member.enter(work, 0, 1, 2, 3)
    await member.finish(records[3], records[1], records[0])
    first = member.must_turn()
    assert (first.values, first.offsets) == ([0, 1], {("dev.requests", 0): 2})
    first.commit()
    assert member.turn() is None
    await member.finish(records[2])
    second = member.must_turn()
    assert (second.values, second.offsets) == ([2, 3], {("dev.requests", 0): 4})
    second.commit()
    assert member.turn() is None
    assert not member.commits.is_busy


async def test_a_slow_record_holds_back_its_own_partition_only() -> None:
    member = Member(2)
    slow, quick = member.sources
    member.enter(slow, 0)
    await member.finish(*member.enter(slow, 1), *member.enter(quick, 7, 8))
    transaction = member.must_turn()
    assert (transaction.values, transaction.offsets) == ([7, 8], {("dev.requests", 1): 9})


async def test_outputs_of_a_retry_partition_go_out_before_its_head_has_ended() -> None:
    member = Member(retry=True)
    (retry,) = member.retries
    head, other = member.enter(retry, 0, 1)
    await member.finish(other)
    transaction = member.must_turn()
    # No offset moves, and still one is committed: else the coordinator would not refuse a zombie.
    assert (transaction.values, transaction.offsets) == ([1], {("dev.retry", 0): 0})
    transaction.commit()
    await member.finish(head)
    assert member.must_turn().offsets == {("dev.retry", 0): 2}


async def test_a_parked_records_answer_comes_before_those_of_the_records_behind_it() -> None:
    member = Member(retry=True)
    parked = member.enter(member.retries[0], 5)
    await member.finish(*parked, value=100)
    await member.finish(*member.enter(member.sources[0], 0, 1))
    assert member.must_turn().values == [100, 0, 1]


async def test_one_transaction_runs_at_a_time_and_the_next_takes_what_finished_meanwhile() -> None:
    member = Member()
    (work,) = member.sources
    await member.finish(*member.enter(work, 0))
    first = member.must_turn()
    await member.finish(*member.enter(work, 1, 2))
    assert member.turn() is None
    first.commit()
    assert member.must_turn().values == [1, 2]


async def test_records_without_outputs_are_committed_too() -> None:
    member = Member()
    for record in member.enter(member.sources[0], 0, 1):
        record.stage = DONE
    transaction = member.must_turn()
    assert (transaction.values, transaction.offsets) == ([], {("dev.requests", 0): 2})


async def test_an_aborted_transaction_is_run_again_with_fresh_metadata_and_what_finished_since() -> None:
    member = Member()
    (work,) = member.sources
    await member.finish(*member.enter(work, 0, 1))
    first = member.must_turn()
    await member.finish(*member.enter(work, 2))
    first.fail(TransactionAbortedError("an old generation", group_moved=True))
    assert member.turn() is None
    member.consumer.generation = 2
    again = member.must_turn(1)
    assert (again.values, again.offsets) == ([0, 1, 2], {("dev.requests", 0): 3})
    assert (first.group, again.group) != (again.group, first.group)
    again.commit()
    assert member.turn() is None
    assert not member.commits.is_busy


async def test_pauses_between_failures_grow_to_a_bound_and_end_with_a_success() -> None:
    member = Member()
    await member.finish(*member.enter(member.sources[0], 0))
    member.must_turn().fail()
    pauses = []
    for _ in range(9):
        seconds = 0.0
        while (transaction := member.turn(0.01)) is None:
            seconds += 0.01
        transaction.fail()
        pauses.append(seconds)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.1
    assert pauses[-1] == pytest.approx(transactional_commits.LONGEST_DELAY_SECONDS, abs=0.1)


async def test_outputs_of_partitions_taken_away_are_dropped_also_those_that_come_late() -> None:
    member = Member(2)
    lost, kept = member.sources
    late = member.enter(lost, 0, 1)
    await member.finish(late[0], *member.enter(kept, 0))
    under_way = member.must_turn()
    member.commits.forget(("dev.requests", 0))
    member.works.remove(lost)
    await member.finish(late[1])
    under_way.fail()
    member.turn()
    transaction = member.must_turn(1)
    assert (transaction.values, transaction.offsets) == ([0], {("dev.requests", 1): 1})
    transaction.commit()
    assert member.turn() is None
    assert member.stage.bytes == 0


async def test_a_partition_that_comes_back_starts_with_nothing_of_its_former_time() -> None:
    member = Member()
    (work,) = member.sources
    await member.finish(*member.enter(work, 0))
    member.must_turn()
    member.commits.forget(("dev.requests", 0))
    again = PartitionWork(SOURCE, "dev.requests", 0, start=0)
    member.works = [again]
    member.commits.own([again])
    member.commits.began(again, 0, "{}")
    member.cluster.last.fail()
    assert member.turn() is None
    assert member.turn(1) is None
    await member.finish(*member.enter(again, 0), value=50)
    assert member.must_turn().values == [50]


async def test_who_is_put_out_of_the_group_commits_nothing_until_it_is_a_member_again() -> None:
    member = Member()
    await member.finish(*member.enter(member.sources[0], 0))
    member.consumer.generation = -1
    assert member.turn() is None
    assert member.turn(1) is None
    member.consumer.generation = 3
    transaction = member.must_turn(5)
    assert (transaction.values, transaction.offsets) == ([0], {("dev.requests", 0): 1})
    transaction.commit()
    member.turn()
    assert member.stage.bytes == 0


async def test_of_several_refused_outputs_each_is_asked_about_alone_and_the_guilty_one_replaced() -> None:
    member = Member()
    await member.finish(*member.enter(member.sources[0], 0, 1, 2))
    member.must_turn().fail(OutputsRefusedError("too large", errors={0: "x", 1: "x"}, alone=False))
    member.turn()
    apart = member.cluster.last
    assert (apart.values, apart.alone) == ([0, 1, 2], [0, 1])
    assert not member.replacements
    apart.fail(OutputsRefusedError("too large", errors={1: "larger than the topic takes"}, alone=True))
    member.turn()
    mended = member.cluster.last
    ((record, value),) = member.replacements
    assert (record.offset, record.value, record.key, value) == (1, b"in-1", b"k", b"1")
    assert (mended.values, mended.offsets) == ([0, 999, 2], {("dev.requests", 0): 3})
    mended.commit()
    member.turn()
    assert member.stage.bytes == 0


async def test_what_cannot_be_replaced_waits_and_nothing_is_committed_past_it() -> None:
    member = Member()
    member.replace_by = None
    await member.finish(*member.enter(member.sources[0], 0))
    for _ in range(5):
        transaction = member.must_turn(10)
        assert (transaction.values, transaction.offsets) == ([0], {("dev.requests", 0): 1})
        transaction.fail(OutputsRefusedError("too large", errors={0: "x"}, alone=True))
        assert member.turn() is None
    member.must_turn(10).commit()
    assert member.turn() is None


async def test_a_large_backlog_is_split_into_transactions_that_each_commit_what_they_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactional_commits, "TRANSACTION_BYTES", 10_000)
    member = Member(2)
    for work in member.sources:
        await member.finish(*member.enter(work, *range(10)), size=2_000)
    seen: list[int] = []
    while member.commits.is_busy:
        transaction = member.must_turn()
        assert 1 <= len(transaction.values) <= 6
        seen += transaction.values
        transaction.commit()
        member.commits._collect()
    assert sorted(seen) == sorted([*range(10), *range(10)])
    assert member.cluster.last.offsets["dev.requests", 1] == 10


async def test_intake_stops_while_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactional_commits, "STAGED_BYTES", 3_000)
    member = Member()
    await member.finish(*member.enter(member.sources[0], 0), size=4_000)
    assert member.commits.is_full
    member.must_turn().commit()
    member.turn()
    assert not member.commits.is_full


async def test_when_partitions_are_given_up_the_transaction_under_way_ends_and_a_last_one_commits_cleanly() -> None:
    member = Member(2)
    leaving, staying = member.sources
    await member.finish(*member.enter(leaving, 0), *member.enter(staying, 0))
    under_way = member.must_turn()
    await member.finish(*member.enter(leaving, 1), *member.enter(staying, 1))
    member.cluster.answer = Transaction.commit
    under_way.commit()
    assert member.commits.commit([leaving], wait=True, clean=True)
    last = member.cluster.last
    assert (last.values, last.offsets) == ([1], {("dev.requests", 0): 2})
    assert last.metadata == {("dev.requests", 0): CLEAN}
    member.cluster.answer = None
    assert member.must_turn().values == [1]


async def test_an_abort_at_the_end_is_repeated_within_the_time_and_then_given_up() -> None:
    member = Member()
    await member.finish(*member.enter(member.sources[0], 0))
    answers: list[Callable[[Transaction], None]] = [Transaction.fail, Transaction.fail, Transaction.commit]
    member.cluster.answer = lambda transaction: answers.pop(0)(transaction)  # noqa: PLW0108 - one for each
    assert member.commits.commit(member.works, wait=True, clean=True)
    await member.finish(*member.enter(member.sources[0], 1))
    member.cluster.answer = Transaction.fail
    assert not member.commits.commit(member.works, wait=True, clean=True)


async def test_a_transaction_that_does_not_end_is_not_waited_for_longer_than_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactional_commits, "FLUSH_SECONDS", 0.05)
    member = Member()
    await member.finish(*member.enter(member.sources[0], 0))
    assert not member.commits.commit(member.works, wait=True, clean=True)


async def test_a_mark_in_the_commit_tells_what_became_of_a_transaction() -> None:
    member = Member()
    await member.finish(*member.enter(member.sources[0], 0))
    transaction = member.must_turn()
    assert transaction.was_committed is not None
    place = ("dev.requests", 0)
    member.read[place] = (0, "{}")
    assert not transaction.was_committed()
    member.read[place] = (1, "{}")  # another's commit of the same offset
    assert not transaction.was_committed()
    member.read[place] = (1, transaction.metadata[place] or "")
    assert transaction.was_committed()


@pytest.mark.parametrize("crash", [CrashRecord(), CrashRecord(deaths=2, until=9, running=(4,), suspects=(5,))])
def test_the_mark_leaves_what_a_commit_says_of_deaths_as_it_was(crash: CrashRecord) -> None:
    metadata = crash.metadata(3)
    marked = transactional_commits._marked(metadata, "0123")
    assert marked != metadata
    assert transactional_commits._unmarked(marked) == metadata
    assert after(marked, 3, 20) == after(metadata, 3, 20)


async def test_fenced_or_in_doubt_the_worker_stops_but_doubt_about_partitions_given_up_is_nobodys() -> None:
    for error in (ProducerFencedError("another"), TransactionUnknownError("nobody knows")):
        member = Member()
        await member.finish(*member.enter(member.sources[0], 0))
        member.must_turn().fail(error)
        with pytest.raises(type(error)):
            member.turn()
    member = Member()
    await member.finish(*member.enter(member.sources[0], 0))
    member.cluster.answer = lambda transaction: transaction.fail(TransactionUnknownError("nobody knows"))
    member.commits.commit(member.works, wait=True, clean=True)


async def test_a_topic_outside_the_contract_stops_the_caller_before_anything_is_kept() -> None:
    def check(outputs: Sequence[OutboundRecord]) -> None:
        raise TopicNotDeclaredError("not listed")

    stage = TransactionStage(check)
    work = PartitionWork(SOURCE, "dev.requests", 0)
    stage.open([work])
    with pytest.raises(TopicNotDeclaredError):
        await stage.deliver_owned([(Record(work, 0, 0, None, b"", None), OutboundRecord(ANSWERS, b"1"))])
    assert stage.bytes == 0


Output = tuple[str, int, int]


class Play:
    """A member that takes, finishes and commits records as chance has it, on a cluster that aborts a third."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.member = Member(3, retry=True)
        self.member.cluster.answer = self.answer
        self.running: list[Record] = []
        self.entered = dict.fromkeys(self.member.works, 0)
        self.positions = {(work.physical, work.partition): 0 for work in self.member.works}
        self.made: list[Output] = []
        self.visible: Counter[Output] = Counter()

    def answer(self, transaction: Transaction) -> None:
        if self.chance.random() < 0.3:
            transaction.fail()
            return
        assert transaction.offsets, "nothing asked the coordinator whether this is a member"
        self.visible.update(self.made[value] for value in transaction.values)
        for place, offset in transaction.offsets.items():
            assert offset >= self.positions[place]
            self.positions[place] = offset
            due = {one for one in self.made if one[:2] == place and one[2] < offset}
            assert due <= self.visible.keys(), "an offset was committed before its outputs"
        for topic, partition, offset in self.visible:
            if topic == "dev.requests":
                assert offset < self.positions[topic, partition], "an output was visible before its offset"
        transaction.commit()

    def take(self) -> None:
        work = self.chance.choice(self.member.works)
        self.entered[work] += self.chance.choice((1, 1, 1, 3))
        self.running += self.member.enter(work, self.entered[work])

    async def finish_one(self) -> None:
        record = self.running.pop(self.chance.randrange(len(self.running)))
        self.made.append((record.work.physical, record.work.partition, record.offset))
        await self.member.finish(record, value=len(self.made) - 1)

    async def step(self) -> None:
        act = self.chance.random()
        if act < 0.4:
            self.take()
        elif act < 0.75 and self.running:
            await self.finish_one()
        else:
            self.member.turn(self.chance.uniform(0, 3))


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_is_aborted_each_output_is_committed_once_with_its_offset(seed: int) -> None:
    play = Play(seed)
    for _ in range(300):
        await play.step()
    while play.running:
        await play.finish_one()
    for _ in range(100):
        play.member.turn(10)
    assert play.visible == Counter(play.made)
    assert play.member.stage.bytes == 0
