"""The simulation finds what it is for: each safeguard taken out of the runtime makes one of the first seeds fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from tests.simulation.simulation import run

from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread
from omnibase_infra.shared.runtime.delivery import Delivery
from omnibase_infra.shared.runtime.execution import Execution
from omnibase_infra.shared.runtime.executor import Executor
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.records import DONE, NO_OFFSET, PartitionWork, Record

SEEDS = 300
Plant = Callable[[pytest.MonkeyPatch], None]


def commit_what_is_unfinished(patch: pytest.MonkeyPatch) -> None:
    """The ledger goes past records that are not done."""

    def advance(work: PartitionWork) -> int:
        ledger = work._ledger
        while ledger:
            record = ledger.popleft()
            work._committable = record.offset + 1
        return work._committable

    patch.setattr(PartitionWork, "advance", advance)


def commit_the_last_offset_itself(patch: pytest.MonkeyPatch) -> None:
    """The position is one too low, so that the last record stays uncommitted."""
    advance = PartitionWork.advance

    def one_less(work: PartitionWork) -> int:
        position = advance(work)
        return position if position == NO_OFFSET else max(0, position - 1)

    patch.setattr(PartitionWork, "advance", one_less)


def let_the_next_of_a_key_run_before_delivery(patch: pytest.MonkeyPatch) -> None:
    """A record is finished before its outputs are confirmed."""
    deliver = Delivery.deliver

    async def begin(delivery: Delivery, records: Sequence[OutboundRecord]) -> None:
        under_way.add(asyncio.ensure_future(deliver(delivery, records)))

    under_way: set[asyncio.Future[None]] = set()
    patch.setattr(Delivery, "deliver", begin)


def forget_the_order_of_keys(patch: pytest.MonkeyPatch) -> None:
    """Every record runs at once."""

    def submit(lanes: Lanes, record: Record) -> None:
        assert record.lane is not None
        record.lane.push(record)

    patch.setattr(Lanes, "submit", submit)


def let_a_retried_record_go_last(patch: pytest.MonkeyPatch) -> None:
    """A record that is postponed gives its key up meanwhile."""
    postpone = Lanes.postpone

    def leave_the_key(lanes: Lanes, record: Record, delay: float) -> None:
        key = record.key
        if key is not None and key in record.work.busy and record.lane is not None:
            lanes._release(record.work, key, record.lane)
        postpone(lanes, record, delay)

    patch.setattr(Lanes, "postpone", leave_the_key)


def drop_outputs_that_were_not_confirmed(patch: pytest.MonkeyPatch) -> None:
    """A failed delivery is taken for a good one."""

    async def deliver(delivery: Delivery, records: Sequence[OutboundRecord]) -> None:
        try:
            await delivery._producer.send(records)
        except DeliveryError as error:
            delivery._on_failure(error)

    patch.setattr(Delivery, "deliver", deliver)


def commit_after_partitions_were_lost(patch: pytest.MonkeyPatch) -> None:
    """Partitions given up are forgotten without waiting for what runs, and what runs is dropped as done."""

    def drop(self: Lanes, works: Iterable[PartitionWork]) -> None:
        for work in works:
            for record in list(work._ledger):
                record.stage = DONE
            work.closed = True

    patch.setattr(Lanes, "close", drop)


def answer_a_repeat_by_running_it(patch: pytest.MonkeyPatch) -> None:
    """The inbox is not asked."""

    async def run_anyway(
        execution: Execution, lane: Lane, records: Sequence[Record], requests: Sequence[Any], session: Any
    ) -> Any:
        return await execution._run_plain(lane, records, requests, session)

    patch.setattr(Execution, "_run_once", run_anyway)


def start_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """An assigned partition starts at its end instead of its commit."""
    on_assign = ConsumerThread._on_assign

    def skip(thread: ConsumerThread, consumer: Any, partitions: list[Any]) -> None:
        on_assign(thread, consumer, partitions)
        for one in partitions:
            one.offset = consumer.get_watermark_offsets(one)[1]
            consumer.seek(one)

    patch.setattr(ConsumerThread, "_on_assign", skip)


def dead_letter_at_the_first_failure(patch: pytest.MonkeyPatch) -> None:
    """Attempts are not counted."""

    async def failed(executor: Executor, lane: Lane, record: Record, error: Exception, passage: Any) -> Any:
        record.attempts = 99
        return await original(executor, lane, record, error, passage)

    original = Executor._failed
    patch.setattr(Executor, "_failed", failed)


PLANTS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        commit_what_is_unfinished,
        commit_the_last_offset_itself,
        let_the_next_of_a_key_run_before_delivery,
        forget_the_order_of_keys,
        let_a_retried_record_go_last,
        drop_outputs_that_were_not_confirmed,
        commit_after_partitions_were_lost,
        answer_a_repeat_by_running_it,
        start_at_the_end,
        dead_letter_at_the_first_failure,
    )
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_safeguard_taken_out_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTS[name](monkeypatch)

    assert any(run(seed).problems for seed in range(SEEDS)), f"{SEEDS} seeds did not notice: {PLANTS[name].__doc__}"
