"""Lanes keep the order of a key, run keys in parallel, and account for every record exactly once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import OperationSpec
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.records import DONE, GONE, PartitionWork, Record

TOPIC = TopicName("cmd", "order-store", "requests", 1)


class OpenPassage:
    """A passage that bounds nothing and reports to nobody."""

    limit: int | None = None

    def succeeded(self) -> None:
        pass

    def failed(self, error: DependencyUnavailableError) -> None:
        pass

    def silent(self) -> str | None:
        return None

    def release(self) -> None:
        pass


class OpenGate:
    """A gate that never holds anything back."""

    def enter(self) -> OpenPassage:
        return OpenPassage()

    def seconds_until_open(self) -> float:
        return 0.0


async def take(lane: Lane) -> list[Record]:
    batch, _ = await lane.take()
    return batch


def make_lanes(**operation: Any) -> tuple[Lanes, Lane, list[tuple[int, int]]]:
    left: list[tuple[int, int]] = []
    lanes = Lanes(lambda records, size: left.append((records, size)))
    spec = OperationSpec(name="store", topic=str(TOPIC), event_type="t", **operation)
    lane = Lane(spec, handler=None, gate=OpenGate())  # type: ignore[arg-type]
    lanes.add(lane)
    return lanes, lane, left


def make_work(partition: int = 0) -> PartitionWork:
    return PartitionWork(TOPIC, "dev." + str(TOPIC), partition)


def make_record(work: PartitionWork, lane: Lane, offset: int, key: bytes | None) -> Record:
    record = Record(work, offset, 0, key, b"12345", None)
    record.lane = lane
    work.enter([record])
    return record


async def test_a_batch_holds_one_record_of_a_key_and_the_next_one_follows_when_it_is_finished() -> None:
    lanes, lane, _ = make_lanes(batch_max=10)
    work = make_work()
    records = [make_record(work, lane, offset, key) for offset, key in enumerate([b"a", b"b", b"a", b"a"])]
    for record in records:
        lanes.submit(record)
    first = await take(lane)
    assert first == records[:2]
    lanes.finish(first)
    second = await take(lane)
    assert second == [records[2]]


async def test_records_without_a_key_have_no_order_and_share_a_batch() -> None:
    lanes, lane, _ = make_lanes(batch_max=10)
    work = make_work()
    records = [make_record(work, lane, offset, None) for offset in range(3)]
    for record in records:
        lanes.submit(record)
    assert await take(lane) == records


async def test_an_operation_without_ordering_does_not_hold_a_key_back() -> None:
    lanes, lane, _ = make_lanes(batch_max=10, ordering="none")
    work = make_work()
    records = [make_record(work, lane, offset, b"same") for offset in range(3)]
    for record in records:
        lanes.submit(record)
    assert await take(lane) == records
    lanes.finish(records)
    assert work.advance() == 3


async def test_offsets_are_committable_only_up_to_the_first_unfinished_record() -> None:
    lanes, lane, _ = make_lanes(batch_max=10)
    work = make_work()
    records = [make_record(work, lane, offset, str(offset).encode()) for offset in (5, 6, 9)]
    for record in records:
        lanes.submit(record)
    await take(lane)
    lanes.finish([records[1], records[2]])
    assert work.advance() < 0
    lanes.finish([records[0]])
    assert work.advance() == 10, "offsets 7 and 8 never came: compaction and markers are not waited for"


async def test_a_postponed_record_holds_its_key_and_no_other() -> None:
    lanes, lane, _ = make_lanes(batch_max=10)
    work = make_work()
    slow, behind, other = (make_record(work, lane, offset, key) for offset, key in enumerate([b"a", b"a", b"b"]))
    for record in (slow, behind, other):
        lanes.submit(record)
    batch = await take(lane)
    lanes.postpone(slow, 0.01)
    lanes.finish([other])
    assert batch == [slow, other]
    assert await take(lane) == [slow]
    lanes.finish([slow])
    assert await take(lane) == [behind]


async def test_closing_a_partition_drops_what_has_not_started_and_lets_the_rest_end() -> None:
    lanes, lane, left = make_lanes(batch_max=1)
    work = make_work()
    running, ready, waiting = (make_record(work, lane, offset, key) for offset, key in enumerate([b"a", b"b", b"a"]))
    for record in (running, ready, waiting):
        lanes.submit(record)
    assert await take(lane) == [running]
    lanes.close([work])
    assert (ready.stage, waiting.stage) == (GONE, GONE)
    assert work.running == 1
    lanes.finish([running])
    assert (work.running, running.stage, work.advance()) == (0, DONE, 1)
    assert sum(count for count, _ in left) == 3


async def test_a_record_postponed_when_its_partition_goes_leaves_once() -> None:
    lanes, lane, left = make_lanes()
    work = make_work()
    record = make_record(work, lane, 0, b"a")
    lanes.submit(record)
    await take(lane)
    lanes.postpone(record, 0.0)
    lanes.close([work])
    await asyncio.sleep(0.01)
    assert left == [(1, 6)]
    assert len(lane) == 0


async def test_an_executor_cancelled_while_woken_passes_the_wake_up_on() -> None:
    lanes, lane, _ = make_lanes()
    first, second = (asyncio.ensure_future(take(lane)) for _ in range(2))
    await asyncio.sleep(0)
    record = make_record(make_work(), lane, 0, b"a")
    lanes.submit(record)
    first.cancel()
    assert await asyncio.wait_for(second, 1) == [record]


@settings(deadline=None, max_examples=60)
@given(
    keys=st.lists(st.sampled_from([None, b"a", b"b", b"c"]), max_size=60),
    batch_max=st.integers(1, 7),
    seed=st.integers(0, 2**16),
)
def test_any_mix_of_success_retry_and_bisection_keeps_key_order_and_accounts_for_all(
    keys: list[bytes | None], batch_max: int, seed: int
) -> None:
    async def play() -> None:
        chance = random.Random(seed)
        lanes, lane, left = make_lanes(batch_max=batch_max)
        work = make_work()
        records = [make_record(work, lane, offset, key) for offset, key in enumerate(keys)]
        for record in records:
            lanes.submit(record)
        finished: list[tuple[bytes | None, int]] = []
        while len(finished) < len(records):
            batch = await asyncio.wait_for(take(lane), 5)
            keyed = [record.key for record in batch if record.key is not None]
            assert len(keyed) == len(set(keyed))
            for record in batch:
                choice = chance.random()
                if choice < 0.6:
                    finished.append((record.key, record.offset))
                    lanes.finish([record])
                elif choice < 0.8:
                    lanes.requeue([record])
                else:
                    lanes.postpone(record, 0)
        for key in (b"a", b"b", b"c"):
            offsets = [offset for finished_key, offset in finished if finished_key == key]
            assert offsets == sorted(offsets)
        assert work.running == 0
        assert not work.busy
        assert sum(count for count, _ in left) == len(records)
        if records:
            assert work.advance() == len(records)

    asyncio.run(play())


class ComingAndGoing:
    """A member whose partition is taken away at any moment and given back, from its commit on."""

    def __init__(self, keys: list[bytes | None], batch_max: int, seed: int) -> None:
        self._keys = keys
        self._chance = random.Random(seed)
        self.lanes, self.lane, self.left = make_lanes(batch_max=batch_max)
        self.entered = self._committed = 0
        self.effects: list[tuple[bytes | None, int]] = []

    async def play(self) -> None:
        """Work until everything is committed."""
        work = self._assigned()
        while self._committed < len(self._keys):
            running = [record for record in await asyncio.wait_for(take(self.lane), 5) if not self._ended(record)]
            if running or self._chance.random() < 0.3:
                self.lanes.close([work])
                self._committed = max(self._committed, work.advance())
                # What still runs is finished, or put back, when its partition is gone.
                (self.lanes.finish if self._chance.random() < 0.5 else self.lanes.requeue)(running)
                assert work.running == 0
                work = self._assigned()
            self._committed = max(self._committed, work.advance())
        await asyncio.sleep(0.001)

    def _assigned(self) -> PartitionWork:
        work = make_work()
        for offset in range(self._committed, len(self._keys)):
            self.entered += 1
            self.lanes.submit(make_record(work, self.lane, offset, self._keys[offset]))
        return work

    def _ended(self, record: Record) -> bool:
        choice = self._chance.random()
        if choice < 0.7:
            self.effects.append((record.key, record.offset))
            self.lanes.finish([record])
        elif choice < 0.8:
            self.lanes.requeue([record])
        elif choice < 0.9:
            self.lanes.postpone(record, 0)
        else:
            return False
        return True


@settings(deadline=None, max_examples=60)
@given(
    keys=st.lists(st.sampled_from([None, b"a", b"b"]), min_size=1, max_size=40),
    batch_max=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
def test_a_partition_that_goes_and_comes_back_at_any_moment_loses_no_record_and_counts_each_once(
    keys: list[bytes | None], batch_max: int, seed: int
) -> None:
    member = ComingAndGoing(keys, batch_max, seed)
    asyncio.run(member.play())
    assert {offset for _, offset in member.effects} == set(range(len(keys)))
    assert sum(count for count, _ in member.left) == member.entered
    assert len(member.lane) == 0
    for key in (b"a", b"b"):
        first = list(dict.fromkeys(offset for effect_key, offset in member.effects if effect_key == key))
        assert first == sorted(first), "the first effects of a key are in order"
