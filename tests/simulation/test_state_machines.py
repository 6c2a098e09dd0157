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
from omnibase_infra.shared.runtime.parked_keys import PartitionParking
from omnibase_infra.shared.runtime.parked_records import Entry, ParkedState
from omnibase_infra.shared.runtime.records import DONE, GONE, NO_OFFSET, RUNNING, Origin, PartitionWork, Record
from omnibase_infra.shared.testing.virtual_loop import VirtualLoop, VirtualScheduler

TOPIC = TopicName.parse("onex.cmd.order-store.requests.v1")
STEPS = settings(max_examples=100, stateful_step_count=40, deadline=None)


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


class FakeHost:
    """The worker around a partition's parked keys: a clock, and lists of what is asked of it."""

    def __init__(self) -> None:
        self.time = 0.0
        self.started: list[Record] = []
        self.skipped: list[Record] = []
        self.voided: list[Record] = []

    def now(self, topic: str) -> float:
        return self.time

    def seconds_until(self, not_before: float) -> float:
        return max(0.0, not_before - self.time)

    def has_room(self, *, due: bool = False) -> bool:
        return True

    def start(self, record: Record) -> None:
        self.started.append(record)

    def skip(self, record: Record) -> None:
        record.stage = DONE
        self.skipped.append(record)

    def void(self, record: Record) -> None:
        record.stage = DONE
        self.voided.append(record)


class ParkedKeys(RuleBasedStateMachine):
    """Whatever lies in a retry partition: what has not ended runs once, a key's records one by one and in order."""

    START = 6

    def __init__(self) -> None:
        super().__init__()
        self.host = FakeHost()
        source, retry = (PartitionWork(TOPIC, f"test.{TOPIC}{part}", 0) for part in ("", ".retry"))
        self.parking = PartitionParking(source, retry, self.host, start=self.START, epoch="own", folded=False)  # type: ignore[arg-type]
        self.log: list[tuple[Record, Entry]] = []
        self.folded = False
        self.read_to = self.START
        self.parked: dict[tuple[int, str], bytes] = {}
        self.ended: set[tuple[int, str]] = set()
        self.ran: set[tuple[int, str]] = set()
        self.running: list[Record] = []

    def _write(self, offset: int, redrive_id: str, state: ParkedState | None, seconds: float, written_by: str) -> None:
        key = b"abc"[offset % 3 : offset % 3 + 1]
        record = Record(self.parking.retry, len(self.log), 0, key, b"{}" if state is None else None, None)
        record.origin = Origin(str(TOPIC), 0, offset, 0, redrive_id)
        entry = Entry(state, "group", written_by, record.origin, 1, self.host.time + seconds, "", None)
        self.log.append((record, entry))
        if state is None and not (self.folded and written_by == "before" and offset < self.read_to):
            self.parked.setdefault((offset, redrive_id), key)
        if self.folded:
            self.parking.read(record, entry)
            self._take_started()

    def _take_started(self) -> None:
        for record in self.host.started:
            assert record.origin is not None
            identity = (record.origin.offset, record.origin.redrive_id)
            key = self.parked[identity]
            assert identity not in self.ended | self.ran, "it has ended, or runs already"
            assert not [one for one in self.running if one.key == key], "another of its key runs"
            before = [one for one, of in self.parked.items() if of == key and one < identity]
            assert set(before) <= self.ended, "one before it has not ended"
            assert identity[1] or identity[0] < max(self.START, self.read_to), "its source was not read so far"
            self.ran.add(identity)
            self.running.append(record)
        self.host.started.clear()

    @precondition(lambda self: not self.folded)
    @rule(offset=st.integers(0, 11), seconds=st.sampled_from([0.0, 5.0]))
    def was_parked(self, offset: int, seconds: float) -> None:
        self._write(offset, "", None, seconds, "before")

    @precondition(lambda self: self.parked)
    @rule(data=st.data(), state=st.sampled_from([ParkedState.DONE, ParkedState.RETRY]))
    def was_marked(self, data: st.DataObject, state: ParkedState) -> None:
        if self.folded:
            return  # from then on others' markers say nothing
        identity = data.draw(st.sampled_from(sorted(self.parked)))
        self._write(*identity, state, 7.0, "before")
        if state is ParkedState.DONE:
            self.ended.add(identity)

    @rule(offset=st.integers(0, START - 1), redrive_id=st.sampled_from(["r1", "r2"]))
    def is_redriven(self, offset: int, redrive_id: str) -> None:
        key = b"abc"[offset % 3 : offset % 3 + 1]
        later = [one for one in self.ran if self.parked[one] == key and one > (offset, redrive_id)]
        if not later and (offset, redrive_id) not in self.parked:  # behind what ran already there is no order to keep
            self._write(offset, redrive_id, None, 0.0, "")

    @precondition(lambda self: self.folded)
    @rule(offset=st.integers(0, START - 1))
    def a_zombie_parks_what_is_finished(self, offset: int) -> None:
        self._write(offset, "", None, 0.0, "before")

    @precondition(lambda self: not self.folded)
    @rule()
    def fold(self) -> None:
        for record, entry in self.log:
            self.parking.read(record, entry)
        self.folded = True
        self.parking.reached_end()
        self._take_started()

    @precondition(lambda self: self.folded)
    @rule(count=st.integers(1, 4))
    def read_source(self, count: int) -> None:
        self.read_to += count
        self.parking.source_read_to(self.read_to)
        self._take_started()

    @precondition(lambda self: self.folded)
    @rule(seconds=st.floats(0.5, 4.0))
    def let_time_pass(self, seconds: float) -> None:
        self.host.time += seconds
        self.parking.tick()
        self._take_started()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), again=st.booleans())
    def end(self, data: st.DataObject, again: bool) -> None:
        record = data.draw(st.sampled_from(self.running))
        assert record.origin is not None
        identity = (record.origin.offset, record.origin.redrive_id)
        self.running.remove(record)
        if again:
            self.ran.discard(identity)
            self.parking.delay(record, self.host.time + 3.0)
        else:
            self.ended.add(identity)
            record.stage = DONE
            self.parking.finished(record)
        self._take_started()

    def teardown(self) -> None:
        """Let everything end: then everything that was parked has, and nothing is left."""
        if not self.folded:
            self.fold()
        self.read_source(20)
        for _ in range(200):
            self.let_time_pass(10.0)
            for record in list(self.running):
                assert record.origin is not None
                self.running.remove(record)
                self.ended.add((record.origin.offset, record.origin.redrive_id))
                record.stage = DONE
                self.parking.finished(record)
                self._take_started()
        assert self.ended == set(self.parked)
        assert not self.parking.keys
        assert self.parking.size == 0
        assert {record.offset for record, _ in self.log if record.stage != DONE} == {
            record.offset for record in self.parking._stale
        }


TestLedger = Ledger.TestCase
TestKeyOrder = KeyOrder.TestCase
TestFlow = Flow.TestCase
TestDeadLetterBound = DeadLetterBound.TestCase
TestParkedKeys = ParkedKeys.TestCase
for case in (TestLedger, TestKeyOrder, TestFlow, TestDeadLetterBound, TestParkedKeys):
    case.settings = STEPS
del case
