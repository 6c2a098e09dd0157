"""While a dependency is down, what needs it goes by the retry topic and what does not need it is worked on."""

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
from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import BatchContext, IsolationLevel, OutboundRecord
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.core.worker_spec import OperationSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.runtime import dependencies, detours
from omnibase_infra.shared.runtime.detours import has_detours
from omnibase_infra.shared.runtime.worker import Worker
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.shared.testing.scripted_consumer import ScriptedConsumer, ScriptedMessage

COMMANDS = "onex.cmd.order-store.requests.v1"
RETRY = "onex.retry.order-store.requests.v1"
STORE = OperationSpec(name="store", topic=COMMANDS, event_type="onex.cmd.order-store.store.v1", needs=("postgres",))
PRICE = OperationSpec(name="price", topic=COMMANDS, event_type="onex.cmd.order-store.price.v1")


class Order(msgspec.Struct, frozen=True):
    """A request."""

    number: int


class Store:
    """A dependency that answers or not."""

    dependency = "postgres"

    def __init__(self) -> None:
        self.down = True

    @asynccontextmanager
    async def session(self, isolation: IsolationLevel | None = None) -> AsyncIterator[Any]:
        await self.ping()
        yield None

    async def ping(self) -> None:
        if self.down:
            raise DependencyUnavailableError("down", dependency="postgres")


class Handler:
    """Notes what it runs."""

    def __init__(self, ran: list[int]) -> None:
        self._ran = ran

    def decode(self, data: msgspec.Raw) -> Order:
        return decode_payload(msgspec.json.Decoder(Order), data)

    def isolation(self, requests: Sequence[Order]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Order]:
        self._ran += [request.number for request in requests]
        return list(requests)


class Node:
    """Two operations on one topic, one of which needs PostgreSQL."""

    def __init__(self) -> None:
        self.spec = order_store(subscribe=(COMMANDS,), operations=(STORE, PRICE), dependencies=("postgres",))
        self.stored: list[int] = []
        self.priced: list[int] = []
        self.handlers = {"store": Handler(self.stored), "price": Handler(self.priced)}


class Broker:
    """Confirms everything; what goes to the retry topic comes back from there."""

    def __init__(self, consumer: ScriptedConsumer) -> None:
        self._consumer = consumer
        self.sent: list[OutboundRecord] = []
        self.retry: list[OutboundRecord] = []

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        for record in records:
            self.sent.append(record)
            if record.topic == RETRY:
                offset = len(self.retry)
                headers = list(record.headers or ())
                message = ScriptedMessage(f"dev.{RETRY}", 0, offset, record.value, record.key, headers=headers)
                self.retry.append(record)
                self._consumer.then(message)


class Process:
    """A worker on a scripted consumer that owns one partition."""

    def __init__(self) -> None:
        self.node, self.store = Node(), Store()
        self.consumer = ScriptedConsumer({f"dev.{COMMANDS}": 1, f"dev.{RETRY}": 1})
        self.consumer.assign((f"dev.{COMMANDS}", 0))
        self.broker = Broker(self.consumer)
        self.worker = Worker(
            self.node,
            load_settings(Path(os.devnull), env="dev"),
            producer=self.broker,
            stores={"postgres": self.store},
            make_consumer=self._make_consumer,
            registry=MetricsRegistry(process_metrics=False),
            log=get_logger(),
        )
        self._offset = 0

    def _make_consumer(self, on_statistics: Any, on_error: Any, on_commit: Any) -> Any:
        self.consumer.on_commit = on_commit
        return self.consumer

    def publish(self, operation: OperationSpec, *numbers: int, key: bytes | None = None) -> None:
        for number in numbers:
            command = envelopes.original(
                source="/client", event_type=operation.event_type, data=envelopes.encode_data(Order(number))
            )
            own = key or b"key-%d" % number
            message = ScriptedMessage(f"dev.{COMMANDS}", 0, self._offset, envelopes.encode(command), own)
            self.consumer.then(message)
            self._offset += 1

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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "PING_SECONDS", 0.01)
    monkeypatch.setattr(detours, "DETOUR_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(detours, "LOOK_SECONDS", 0.01)


async def until(condition: Callable[[], Any], what: str = "") -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.002)


def test_only_topics_whose_operations_differ_have_detours() -> None:
    assert has_detours(order_store(operations=(STORE, PRICE)))
    assert not has_detours(order_store(operations=(STORE,)))
    assert not has_detours(order_store(operations=(STORE, msgspec.structs.replace(PRICE, topic="other"))))


async def test_during_an_outage_the_other_operations_of_the_topic_go_on_and_nothing_is_paused() -> None:
    process = Process()
    async with process.running():
        await until(lambda: not process.worker.ready()[0])
        process.publish(STORE, *range(20))
        process.publish(PRICE, *range(100, 120))
        await until(lambda: len(process.node.priced) == 20)
        await until(lambda: process.committed() == 40, "what waits is safe in the retry topic")
        assert process.node.stored == []
        assert process.consumer.paused == set()
        process.store.down = False
        await until(lambda: len(process.node.stored) == 20, "it is run when the dependency is back")
    assert sorted(process.node.stored) == list(range(20))
    assert [record for record in process.broker.sent if "dlq" in record.topic] == []


async def test_records_of_a_key_that_waits_stay_behind_it_whatever_they_need() -> None:
    process = Process()
    async with process.running():
        await until(lambda: not process.worker.ready()[0])
        process.publish(STORE, 1, key=b"one")
        process.publish(PRICE, 2, key=b"one")
        process.publish(STORE, 3, key=b"one")
        process.publish(PRICE, 4, key=b"two")
        await until(lambda: process.node.priced == [4])
        await until(lambda: process.committed() == 4)
        assert (process.node.stored, process.node.priced) == ([], [4])
        process.store.down = False
        await until(lambda: process.node.stored == [1, 3])
    assert process.node.priced == [4, 2]


async def test_waiting_there_spends_no_attempt_and_writes_nothing_more() -> None:
    process = Process()
    async with process.running():
        await until(lambda: not process.worker.ready()[0])
        process.publish(STORE, 1)
        await until(lambda: len(process.broker.retry) == 1)
        await asyncio.sleep(0.3)
        assert len(process.broker.retry) == 1
        headers = dict(process.broker.retry[0].headers or ())
        assert headers["onex-attempt"] == b"0"
        assert headers["onex-error-code"] == b"dependency-unavailable"
        process.store.down = False
        await until(lambda: process.node.stored == [1])


async def test_a_short_outage_is_waited_for_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detours, "DETOUR_AFTER_SECONDS", 60.0)
    process = Process()
    async with process.running():
        await until(lambda: not process.worker.ready()[0])
        process.publish(STORE, 1)
        process.publish(PRICE, 2)
        await until(lambda: process.node.priced == [2])
        process.store.down = False
        await until(lambda: process.node.stored == [1])
    assert process.broker.retry == []
