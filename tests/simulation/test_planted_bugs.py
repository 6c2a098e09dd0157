"""The simulation finds what it is for: each safeguard taken out of the runtime makes one of the first seeds fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import pytest
from tests.simulation.simulation import run

from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.runtime import execution
from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread
from omnibase_infra.shared.runtime.delivery import Delivery, Owned
from omnibase_infra.shared.runtime.execution import Execution
from omnibase_infra.shared.runtime.executor import Executor
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.parked_key import ParkedKey
from omnibase_infra.shared.runtime.parked_keys import PartitionParking
from omnibase_infra.shared.runtime.parking import Parking
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


def let_the_key_of_a_parked_record_go_on(patch: pytest.MonkeyPatch) -> None:
    """Later records of a parked key run."""
    takes_over = PartitionParking.takes_over

    def only_what_is_known(parking: PartitionParking, record: Record, *, ordered: bool) -> bool:
        return takes_over(parking, record, ordered=False)

    patch.setattr(PartitionParking, "takes_over", only_what_is_known)


def forget_what_was_parked_before_a_takeover(patch: pytest.MonkeyPatch) -> None:
    """A new owner finishes the parked records that it finds without running them."""
    read = PartitionParking._read_parked

    def skip(parking: PartitionParking, record: Record, entry: Any, **more: Any) -> None:
        if parking.folded:
            read(parking, record, entry, **more)
        else:
            parking._host.skip(record)

    patch.setattr(PartitionParking, "_read_parked", skip)


def run_parked_records_before_their_source_was_read(patch: pytest.MonkeyPatch) -> None:
    """A parked record does not wait for records of its key that still come from the source."""
    init = PartitionParking.__init__

    def start_nowhere(parking: PartitionParking, *places: Any, start: int, **more: Any) -> None:
        init(parking, *places, start=start, **more)
        parking._start = 1_000_000

    patch.setattr(PartitionParking, "__init__", start_nowhere)


def run_parked_records_as_they_were_written(patch: pytest.MonkeyPatch) -> None:
    """A key's parked records run in the order of the retry topic instead of that of the source."""

    def head(key: ParkedKey) -> Any:
        return next(iter(key.records.values()), None)

    patch.setattr(ParkedKey, "head", head)


def finish_before_the_retry_topic_has_it(patch: pytest.MonkeyPatch) -> None:
    """A record counts as finished in its source as soon as it is to be parked."""
    write = Parking._write_parked

    def at_once(parking: Parking, partition: PartitionParking, key: ParkedKey, record: Record, *why: Any) -> None:
        write(parking, partition, key, record, *why)
        parking._parked(partition, key, record)

    patch.setattr(Parking, "_write_parked", at_once)


def commit_past_what_is_parked(patch: pytest.MonkeyPatch) -> None:
    """A retry partition is committed as far as it was read."""
    advance = PartitionWork.advance

    def of_retries(work: PartitionWork) -> int:
        if not work.is_retry:
            return advance(work)
        if work._ledger:
            work._committable = work._ledger[-1].offset + 1
        return work._committable

    patch.setattr(PartitionWork, "advance", of_retries)


def mark_as_done_beside_the_outputs(patch: pytest.MonkeyPatch) -> None:
    """The marker that a parked record has ended does not wait for its answer or dead letter."""

    async def together(delivery: Delivery, outputs: Sequence[Owned], markers: Sequence[Owned] = ()) -> None:
        await delivery.deliver([record for _, record in (*markers, *outputs)])

    patch.setattr(Delivery, "deliver_owned", together)


def hold_nothing(patch: pytest.MonkeyPatch) -> None:
    """The later records of a dead record's key run though the contract says that they are held."""
    patch.setattr(ParkedKey, "may_run", lambda key, parked: key.running is None)


def know_a_redrive_by_its_original(patch: pytest.MonkeyPatch) -> None:
    """The inbox takes a redriven record for the one that failed."""
    message = execution.inbox_message

    def without_redrive(*record: Any) -> Any:
        return msgspec.structs.replace(message(*record), redrive_id="")

    patch.setattr(execution, "inbox_message", without_redrive)


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
        let_the_key_of_a_parked_record_go_on,
        forget_what_was_parked_before_a_takeover,
        run_parked_records_before_their_source_was_read,
        run_parked_records_as_they_were_written,
        finish_before_the_retry_topic_has_it,
        commit_past_what_is_parked,
        mark_as_done_beside_the_outputs,
        hold_nothing,
        know_a_redrive_by_its_original,
    )
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_safeguard_taken_out_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTS[name](monkeypatch)

    assert any(run(seed).problems for seed in range(SEEDS)), f"{SEEDS} seeds did not notice: {PLANTS[name].__doc__}"
