"""Execution asks the inbox before it asks anything else about a record, and knows a record by where it came from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import RateLimitedError
from omnibase_infra.shared.core.ids import original_id
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import BatchContext, IsolationLevel
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.postgres.inbox import inbox_day
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.execution import Execution, Settled, inbox_message, split_repeats
from omnibase_infra.shared.runtime.lanes import Gate, Lane
from omnibase_infra.shared.runtime.records import Origin, PartitionWork, Record

COMMANDS = "onex.cmd.shop.requests.v1"
ORDER = OperationSpec(
    name="order",
    topic=COMMANDS,
    event_type="onex.cmd.shop.order.v1",
    completed_type="onex.evt.shop.order-completed.v1",
    failed_type="onex.evt.shop.order-failed.v1",
    answer_topic="onex.evt.shop.results.v1",
    needs=("postgres",),
    guarantee="effectively_once",
)
SPEC = WorkerSpec(
    generation=1,
    node="shop",
    worker="shop",
    class_name="Shop",
    version="1.0.0",
    contract_sha256="0" * 64,
    description="",
    node_type="effect",
    subscribe=(COMMANDS,),
    publish=("onex.evt.shop.results.v1",),
    operations=(ORDER,),
)


class Order(msgspec.Struct, frozen=True):
    """The request and the response."""

    number: int


class CountingHandler:
    """Counts what it ran; its effect is its count, so the tests roll nothing back."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    def decode(self, data: msgspec.Raw) -> Order:
        return decode_payload(msgspec.json.Decoder(Order), data)

    def isolation(self, requests: Sequence[Order]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Order]:
        self.ran += [request.number for request in requests]
        return requests


class Shop:
    """An execution of one operation in the transaction of a real database."""

    def __init__(self, pool: PostgresConnectionPool) -> None:
        self.handler = CountingHandler()
        store = PostgresEffectStore(pool, "test.omnibase-infra.shop.consume.v1")
        self.execution = Execution(SPEC, Answers(SPEC, Realm("test")), {"postgres": store})
        self.lane = Lane(ORDER, self.handler, cast("Gate", None))

    async def deliver(self, *records: Record) -> dict[int, Settled]:
        settled = await self.execution.run(self.lane, records)
        return {one.record.offset: one for one in settled}


@pytest.fixture
def shop(postgres_connection_pool: PostgresConnectionPool) -> Shop:
    return Shop(postgres_connection_pool)


def command(
    payload: Any, offset: int = 0, *, message_id: str = "", expires: float | None = None, origin: Origin | None = None
) -> Record:
    sent = envelopes.original(source="/outside", event_type=ORDER.event_type, data=envelopes.encode_data(payload))
    expirytime = None if expires is None else clock.rfc3339(time.time() + expires)
    sent = msgspec.structs.replace(sent, id=message_id or original_id(), expirytime=expirytime)
    work = PartitionWork(TopicName.parse(COMMANDS), "test." + COMMANDS, 3)
    record = Record(work, offset, 1_767_225_600_000, b"k", envelopes.encode(sent), None)
    record.envelope = sent
    record.origin = origin
    return record


def code(settled: Settled) -> Any:
    (output,) = settled.outputs
    return msgspec.json.decode(output.value)["data"].get("code")


async def test_a_done_command_is_answered_done_when_it_comes_again_expired_or_too_fast(shop: Shop) -> None:
    message_id, other_id = original_id(), original_id()
    first = await shop.deliver(command(Order(0), 0, message_id=message_id), command(Order(1), 1, message_id=other_id))
    expired = command(Order(0), 0, message_id=message_id, expires=-60.0)
    limited = command(Order(1), 1, message_id=other_id)
    new_and_limited, new_and_expired = command(Order(2), 2), command(Order(3), 3, expires=-60.0)
    for record in (limited, new_and_limited):
        record.refusal = RateLimitedError("too fast")
    settled = await shop.deliver(expired, limited, new_and_limited, new_and_expired)
    assert [settled[offset].outputs for offset in (0, 1)] == [first[offset].outputs for offset in (0, 1)]
    assert [settled[offset].repeated for offset in range(4)] == [True, True, False, False]
    assert [code(settled[offset]) for offset in (2, 3)] == ["rate-limited", "expired"]
    assert shop.handler.ran == [0, 1]


async def test_a_refusal_once_given_stays_the_answer(shop: Shop) -> None:
    record = command(Order(0))
    record.refusal = RateLimitedError("too fast")
    first = await shop.deliver(record)
    record.refusal = None
    again = await shop.deliver(record)
    assert again[0].outputs == first[0].outputs
    assert shop.handler.ran == []


async def test_a_redrive_is_a_new_attempt_that_does_not_expire_and_answers_from_its_own_row(shop: Shop) -> None:
    message_id = original_id()
    first = await shop.deliver(command(Order(0), message_id=message_id, expires=-60.0))
    assert code(first[0]) == "expired"
    redrive = Origin("test." + COMMANDS, 3, 0, 0, original_id())
    redriven = command(Order(0), message_id=message_id, expires=-60.0, origin=redrive)
    for _ in range(2):
        settled = await shop.deliver(redriven)
        assert code(settled[0]) is None
    assert settled[0].repeated
    assert shop.handler.ran == [0]


def test_a_record_from_a_retry_topic_is_the_one_of_its_source() -> None:
    parked_at = Origin("test.onex.cmd.shop.requests.v1", 5, 77, 1_735_689_600_000)
    parked = inbox_message(command(Order(0), 1000, message_id="order-7", origin=parked_at))
    assert (parked.topic, parked.partition, parked.offset) == (parked_at.topic, 5, 77)
    # Not the day on which it was parked: its row would not be found.
    assert inbox_day(parked) == datetime(2025, 1, 1, tzinfo=UTC).date()
    assert parked.redrive_id == ""
    assert not parked.timed
    assert inbox_message(command(Order(0))).timed


def test_a_message_and_its_redrive_are_two_in_one_batch() -> None:
    message_id = original_id()
    origin = Origin("t", 0, 0, 0, original_id())
    records = [
        command(Order(0), 0, message_id=message_id),
        command(Order(0), 1, message_id=message_id, origin=origin),
        command(Order(0), 2, message_id=message_id),
    ]
    first, rest = split_repeats(records)
    assert [record.offset for record in first] == [0, 1]
    assert [record.offset for record in rest] == [2]
