"""State machines of the runtime's pure parts, each beside the plainest model that could be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import DeadLetterSpec, OperationSpec
from omnibase_infra.shared.runtime.dead_letters import DeadLetterLimit, TooManyDeadLettersError
from omnibase_infra.shared.runtime.flow_control import FlowControl
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.records import DONE, GONE, NO_OFFSET, RUNNING, PartitionWork, Record
from omnibase_infra.shared.testing.virtual_loop import VirtualLoop, VirtualScheduler

TOPIC = TopicName.parse("onex.cmd.order-store.requests.v1")
STEPS = settings(max_examples=150, stateful_step_count=40, deadline=None)


def a_record(work: PartitionWork, offset: int, key: bytes | None = None) -> Record:
    return Record(work, offset, 0, key, b"{}", None)


class Ledger(RuleBasedStateMachine):
    """Offsets are committed up to the first unfinished record, whatever order they finish in."""

    def __init__(self) -> None:
        super().__init__()
        self.work = PartitionWork(TOPIC, f"test.{TOPIC}", 0)
        self.end = 0
        self.records: list[Record] = []

    @rule(gaps=st.lists(st.integers(0, 3), min_size=1, max_size=5))
    def consume(self, gaps: list[int]) -> None:
        batch = []
        for gap in gaps:
            batch.append(a_record(self.work, self.end + gap))
            self.end += gap + 1
        self.records += batch
        self.work.enter(batch)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.records)).stage = DONE

    @rule()
    def commit(self) -> None:
        unfinished = [record for record in self.records if record.stage != DONE]
        finished = [record for record in self.records if not unfinished or record.offset < unfinished[0].offset]
        assert self.work.advance() == (finished[-1].offset + 1 if finished else NO_OFFSET)
        assert self.work.unfinished == len(self.records) - len(finished)

    @invariant()
    def knows_what_waits(self) -> None:
        assert set(self.work.waiting()) == {record for record in self.records if record.stage != DONE}


class KeyOrder(RuleBasedStateMachine):
    """Of a key one record is under way at a time, in order; every record leaves exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = VirtualScheduler(0)
        self.loop = VirtualLoop(self.scheduler, "machine")  # type: ignore[abstract]  # in typeshed only
        self.left = [0, 0]
        self.lanes = Lanes(self._on_left)
        for name, ordering in (("first", "key"), ("second", "key"), ("loose", "none")):
            operation = OperationSpec(name=name, topic=str(TOPIC), event_type="x", ordering=ordering)  # type: ignore[arg-type]
            self.lanes.add(Lane(operation, None, None))  # type: ignore[arg-type]  # neither is asked here
        self.works = [PartitionWork(TOPIC, f"test.{TOPIC}", number) for number in range(2)]
        self.end = 0
        self.entered: list[Record] = []
        self.sizes = 0
        self.running: list[Record] = []
        self.postponed: list[Record] = []
        self.finished: list[Record] = []
        self.keys: dict[Record, tuple[int, bytes | None, str]] = {}

    def _on_left(self, records: int, size: int) -> None:
        self.left[0] += records
        self.left[1] += size

    def _on_loop(self, act: Callable[[], Any]) -> None:
        self.loop.call_soon(act)
        self.scheduler.run_until(lambda: not self.loop._ready, self.scheduler.now + 1e-6)

    @rule(
        number=st.integers(0, 1),
        key=st.sampled_from([b"a", b"b", None]),
        lane=st.sampled_from(["first", "second", "loose"]),
    )
    def submit(self, number: int, key: bytes | None, lane: str) -> None:
        work = self.works[number]
        record = a_record(work, self.end, key)
        self.end += 1
        record.lane = self.lanes.by_operation[lane]
        work.enter([record])
        self.entered.append(record)
        self.sizes += record.size
        self.keys[record] = (id(work), key, lane)
        self.lanes.submit(record)

    @rule(lane=st.sampled_from(["first", "second", "loose"]), limit=st.integers(1, 3))
    def take(self, lane: str, limit: int) -> None:
        self.running += self.lanes.by_operation[lane]._pop(limit)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        records = data.draw(st.lists(st.sampled_from(self.running), min_size=1, max_size=3, unique=True))
        self.running = [record for record in self.running if record not in records]
        self.finished += records
        self.lanes.finish(records)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from(self.running))
        self.running.remove(record)
        self.lanes.requeue([record])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), delay=st.floats(0.1, 5.0))
    def postpone(self, data: st.DataObject, delay: float) -> None:
        record = data.draw(st.sampled_from(self.running))
        self.running.remove(record)
        self._on_loop(lambda: self.lanes.postpone(record, delay))

    @rule(seconds=st.floats(0.1, 3.0))
    def let_time_pass(self, seconds: float) -> None:
        self.scheduler.run_until(lambda: False, self.scheduler.now + seconds)

    @rule(number=st.integers(0, 1))
    def give_up(self, number: int) -> None:
        self.lanes.close([self.works[number]])
        self.works[number] = PartitionWork(TOPIC, f"test.{TOPIC}", number)

    @invariant()
    def one_of_a_key_runs(self) -> None:
        running = [
            (id(record.work), self.keys[record][1])
            for record in self.running
            if self.keys[record][1] is not None and self.keys[record][2] != "loose" and not record.work.closed
        ]
        assert len(running) == len(set(running))

    @invariant()
    def keys_finish_in_order(self) -> None:
        last: dict[tuple[int, bytes | None], int] = {}
        for record in self.finished:
            work, key, lane = self.keys[record]
            if key is None or lane == "loose":
                continue
            assert last.get((work, key), -1) < record.offset
            last[work, key] = record.offset

    @invariant()
    def what_left_is_counted_once(self) -> None:
        left = [record for record in self.entered if record.stage in (DONE, GONE)]
        assert self.left[0] == len(left)
        assert self.left[1] <= self.sizes
        assert all(record.stage == RUNNING for record in self.running)
        assert sum(work.running for work in {record.work for record in self.entered}) == len(self.running)

    def teardown(self) -> None:
        """Finish everything: then nothing is left anywhere."""
        self.scheduler.run_until(lambda: False, self.scheduler.now + 10.0)
        for _ in range(len(self.entered) + 1):
            for lane in self.lanes.by_operation.values():
                self.running += lane._pop(1000)
            self.finished += self.running
            done, self.running = self.running, []
            self.lanes.finish(done)
        assert all(record.stage in (DONE, GONE) for record in self.entered)
        assert self.left == [len(self.entered), self.sizes]
        assert not any(work.busy for work in self.works)
        self.keys_finish_in_order()
        self.scheduler.end()


class Flow(RuleBasedStateMachine):
    """Room until a bound is reached, then none until well below both."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = FlowControl(10, 1000)
        self.inside: list[int] = []
        self.full = False

    @rule(sizes=st.lists(st.integers(0, 400), min_size=1, max_size=4))
    def enter(self, sizes: list[int]) -> None:
        self.inside += sizes
        self.flow.entered(len(sizes), sum(sizes))

    @precondition(lambda self: self.inside)
    @rule(count=st.integers(1, 4))
    def leave(self, count: int) -> None:
        gone, self.inside = self.inside[:count], self.inside[count:]
        self.flow.left(len(gone), sum(gone))

    @rule()
    def ask(self) -> None:
        low = len(self.inside) <= 6 and sum(self.inside) <= 600
        below = len(self.inside) < 10 and sum(self.inside) < 1000
        self.full = not low if self.full or not below else False
        assert self.flow.wait_for_room(0.0) is not self.full

    @invariant()
    def counts(self) -> None:
        assert (self.flow.records, self.flow.bytes) == (len(self.inside), sum(self.inside))


class DeadLetterBound(RuleBasedStateMachine):
    """So many in a row, or this share of the window, and not one less."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = DeadLetterSpec(consecutive=6, ratio=0.5, window=8)
        self.limit = DeadLetterLimit(self.spec)
        self.seen: list[bool] = []

    @rule(count=st.integers(0, 5))
    def finish(self, count: int) -> None:
        self.limit.finished(count)
        self.seen += [False] * count

    @rule(count=st.integers(1, 3))
    def die(self, count: int) -> None:
        self.seen += [True] * count
        window = self.seen[-self.spec.window :]
        in_a_row = 0
        for dead in reversed(self.seen):
            if not dead:
                break
            in_a_row += 1
        too_many = in_a_row >= self.spec.consecutive or (
            len(window) == self.spec.window and sum(window) > self.spec.ratio * len(window)
        )
        if too_many:
            with pytest.raises(TooManyDeadLettersError):
                self.limit.died(count)
        else:
            self.limit.died(count)


TestLedger = Ledger.TestCase
TestKeyOrder = KeyOrder.TestCase
TestFlow = Flow.TestCase
TestDeadLetterBound = DeadLetterBound.TestCase
for case in (TestLedger, TestKeyOrder, TestFlow, TestDeadLetterBound):
    case.settings = STEPS
