"""A worker keeps its contract's rate limits: what is beyond them waits or is refused, and everything is finished once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    BatchContext,
    Claim,
    Fresh,
    InboxMessage,
    IsolationLevel,
    OutboundRecord,
    StoredOutput,
)
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.core.worker_spec import OperationSpec, RateLimitSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.runtime import rate_gate
from omnibase_infra.shared.runtime.worker import Worker
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.shared.testing.scripted_consumer import ScriptedConsumer, ScriptedMessage

COMMANDS = "onex.cmd.order-store.requests.v1"
RETRY = "onex.retry.order-store.requests.v1"
INSERT = "onex.cmd.order-store.insert-order.v1"
OPERATION = OperationSpec(
    name="insert_order",
    topic=COMMANDS,
    event_type=INSERT,
    completed_type="onex.evt.order-store.insert-order-completed.v1",
    failed_type="onex.evt.order-store.insert-order-failed.v1",
    answer_topic="onex.evt.order-store.results.v1",
    needs=("postgres",),
    guarantee="effectively_once",
    batch_max=100,
)


class Order(msgspec.Struct, frozen=True):
    """A request, and its response."""

    number: int


class Store:
    """An inbox in memory; `sessions` counts transactions."""

    dependency = "postgres"

    def __init__(self) -> None:
        self.inbox: dict[str, tuple[StoredOutput, ...]] = {}
        self.sessions = 0

    @asynccontextmanager
    async def session(self, isolation: IsolationLevel | None = None) -> AsyncIterator[Any]:
        self.sessions += 1
        yield self

    async def claim(self, messages: Sequence[InboxMessage]) -> list[Claim]:
        return [
            AlreadyProcessed(self.inbox[message.message_id]) if message.message_id in self.inbox else Fresh()
            for message in messages
        ]

    async def store(self, outputs: Sequence[tuple[InboxMessage, Sequence[StoredOutput]]]) -> None:
        self.inbox |= {message.message_id: tuple(produced) for message, produced in outputs}

    async def ping(self) -> None:
        return


class Node:
    """Notes what it runs, and when."""

    def __init__(self, *limits: RateLimitSpec) -> None:
        self.spec = order_store(
            subscribe=(COMMANDS,), operations=(OPERATION,), dependencies=("postgres",), rate_limits=limits
        )
        self.handlers = {"insert_order": self}
        self.ran: list[int] = []
        self.times: list[float] = []

    def decode(self, data: msgspec.Raw) -> Order:
        return decode_payload(msgspec.json.Decoder(Order), data)

    def isolation(self, requests: Sequence[Order]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Order]:
        self.ran += [request.number for request in requests]
        self.times += [time.monotonic()] * len(requests)
        return list(requests)


class Producer:
    """Confirms everything."""

    def __init__(self) -> None:
        self.sent: list[OutboundRecord] = []

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        self.sent += records

    def to(self, topic: str) -> list[OutboundRecord]:
        return [record for record in self.sent if record.topic == topic]


class Process:
    """A worker on a scripted consumer that owns one partition."""

    def __init__(self, *limits: RateLimitSpec) -> None:
        self.node, self.producer, self.store = Node(*limits), Producer(), Store()
        self.consumer = ScriptedConsumer({f"dev.{COMMANDS}": 1, f"dev.{RETRY}": 1})
        self.consumer.assign((f"dev.{COMMANDS}", 0))
        self.worker = Worker(
            self.node,
            load_settings(Path(os.devnull), env="dev"),
            producer=self.producer,
            stores={"postgres": self.store},
            make_consumer=self._make_consumer,
            registry=MetricsRegistry(process_metrics=False),
            log=get_logger(),
        )
        self._offset = self._parked = 0

    def _make_consumer(self, on_statistics: Any, on_error: Any, on_commit: Any) -> Any:
        self.consumer.on_commit = on_commit
        return self.consumer

    def publish(self, *numbers: int, source: str = "/client", key: bytes | None = None, message_id: str = "") -> None:
        for number in numbers:
            command = envelopes.original(source=source, event_type=INSERT, data=envelopes.encode_data(Order(number)))
            if message_id:
                command = msgspec.structs.replace(command, id=message_id)
            own = key or b"key-%d" % number
            self.consumer.then(ScriptedMessage(f"dev.{COMMANDS}", 0, self._offset, envelopes.encode(command), own))
            self._offset += 1

    def come_back(self, parked: OutboundRecord) -> None:
        """Let a record of the retry topic come in."""
        place = (f"dev.{RETRY}", 0)
        message = ScriptedMessage(*place, self._parked, parked.value, parked.key, headers=list(parked.headers or ()))
        self._parked += 1
        self.consumer.then(message)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.worker.run())
        try:
            yield
        finally:
            self.worker.request_stop()
            await asyncio.wait_for(task, 10)

    def committed(self) -> int:
        return self.consumer.offsets[f"dev.{COMMANDS}", 0]

    def answers(self) -> list[dict[str, Any]]:
        """Return the data of the answers, and of failed ones their type in `failed`."""
        sent = [envelopes.decode(record.value) for record in self.producer.to(OPERATION.answer_topic)]
        return [
            msgspec.json.decode(one.data) | ({"failed": True} if one.type == OPERATION.failed_type else {})
            for one in sent
        ]

    def limited(self) -> dict[str, float]:
        counters = self.worker.instruments.rate_limited["insert_order"]
        return {decision: counter._value.get() for decision, counter in counters.items()}


async def until(condition: Callable[[], Any], what: str = "") -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.002)


def limit(count: int, burst: int, **changes: Any) -> RateLimitSpec:
    values: dict[str, Any] = {"per": "client", "count": count, "seconds": 1, "burst": burst}
    return RateLimitSpec(**(values | changes))


async def test_what_is_beyond_the_limit_waits_its_turn_and_all_is_finished_once_in_order_of_its_key() -> None:
    process = Process(limit(50, 5))
    process.publish(*range(20), key=b"one")
    async with process.running():
        await until(lambda: len(process.node.ran) == 20)
    assert process.node.ran == list(range(20))
    assert process.committed() == 20
    assert len(process.answers()) == 20
    times = process.node.times
    assert times[19] - times[0] >= 14 / 50, "5 at once, the others at 50 a second"
    assert process.limited()["refuse"] == 0


async def test_one_client_beyond_its_limit_holds_no_other_back() -> None:
    process = Process(limit(1, 1, seconds=60))
    process.publish(0, 1, 2, source="/busy")
    process.publish(*range(10, 20), source="/a")
    for number in range(10, 20):
        process.publish(100 + number, source=f"/quiet-{number}")
    async with process.running():
        await until(lambda: len(process.node.ran) >= 12)
        first = process.node.ran[:12]
        assert sorted(first) == [0, 10, *range(110, 120)], "one of each client"
        assert process.limited()["wait"] + process.limited()["park"] > 0


async def test_a_long_wait_is_spent_on_the_retry_topic_and_the_record_runs_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_gate, "PARK_AFTER_SECONDS", 0.1)
    process = Process(limit(2, 1))
    process.publish(0, 1)
    async with process.running():
        await until(lambda: process.producer.to(RETRY))
        (parked,) = process.producer.to(RETRY)
        headers = dict(parked.headers or ())
        assert (headers["onex-error-code"], headers["onex-original-offset"]) == (b"rate-limited", b"1")
        await until(lambda: process.committed() == 2, "it is finished in its source")
        assert process.node.ran == [0]
        process.come_back(parked)
        await until(lambda: process.node.ran == [0, 1])
        await until(lambda: len(process.answers()) == 2)
    assert process.node.times[1] - process.node.times[0] >= 0.45
    assert process.limited()["park"] == 1
    assert process.producer.to(str(process.node.spec.dead_letter_topic)) == []


async def test_a_refused_command_is_answered_with_when_and_why_and_its_neighbours_are_done() -> None:
    process = Process(limit(1, 3, seconds=3600, on_limit="refuse"))
    process.publish(*range(8))
    async with process.running():
        await until(lambda: process.committed() == 8)
    assert process.node.ran == [0, 1, 2]
    failed = [answer for answer in process.answers() if "failed" in answer]
    assert len(failed) == 5
    assert {(answer["code"], answer["retryable"]) for answer in failed} == {("rate-limited", True)}
    assert process.limited() == {"wait": 0, "park": 0, "refuse": 5}
    assert process.producer.to(str(process.node.spec.dead_letter_topic)) == []


async def test_many_refusals_share_a_transaction() -> None:
    process = Process(limit(1, 1, seconds=3600, on_limit="refuse"))
    process.publish(*range(300))
    async with process.running():
        await until(lambda: process.committed() == 300)
    assert len(process.answers()) == 300
    assert process.store.sessions < 250


async def test_a_refusal_is_remembered_and_a_command_that_was_done_is_not_refused_when_it_comes_again() -> None:
    process = Process(limit(1, 1, seconds=3600, on_limit="refuse"))
    process.publish(7, message_id="done-1")
    process.publish(8, message_id="refused-1")
    process.publish(7, message_id="done-1")
    process.publish(8, message_id="refused-1")
    async with process.running():
        await until(lambda: process.committed() == 4)
    assert process.node.ran == [7]
    by_id = [
        (envelopes.decode(one.value).causationid, envelopes.decode(one.value).type) for one in process.producer.sent
    ]
    assert sorted(by_id) == [
        ("done-1", OPERATION.completed_type),
        ("done-1", OPERATION.completed_type),
        ("refused-1", OPERATION.failed_type),
        ("refused-1", OPERATION.failed_type),
    ]


async def test_a_partition_that_goes_while_its_records_wait_leaves_them_to_the_next_owner() -> None:
    process = Process(limit(1, 1))
    process.publish(0, 1, 2)
    async with process.running():
        await until(lambda: process.limited()["wait"] == 2)
        process.consumer.revoke((f"dev.{COMMANDS}", 0))
        await until(lambda: process.committed() == 1)
        await until(lambda: process.worker.info()["in_flight"] == {"records": 0, "bytes": 0})
    assert process.node.ran == [0]


async def test_a_stop_does_not_wait_for_records_that_wait() -> None:
    process = Process(limit(1, 1, seconds=4))
    process.publish(0, 1)
    async with process.running():
        await until(lambda: sum(process.limited().values()) == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert process.committed() == 1


async def test_a_worker_without_limits_has_no_gate() -> None:
    process = Process()
    process.publish(*range(5))
    async with process.running():
        await until(lambda: process.committed() == 5)
    assert process.worker.instruments.rate_limited == {}
