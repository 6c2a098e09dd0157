"""A worker's life: it starts, works, becomes ready and not, and ends in bounded time with everything accounted for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import (
    DeliveryError,
    DependencyUnavailableError,
    KafkaAccessError,
    OffsetMissingError,
    OmnibaseError,
    TransientError,
)
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import BatchContext, IsolationLevel, OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import DeadLetterSpec, OperationSpec, RetrySpec
from omnibase_infra.shared.kafka.statistics import ClientStatistics, parse_statistics
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.runtime import client_watch
from omnibase_infra.shared.runtime import worker as worker_module
from omnibase_infra.shared.runtime.dead_letters import TooManyDeadLettersError
from omnibase_infra.shared.runtime.worker import Worker
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.shared.testing.scripted_consumer import ScriptedConsumer, ScriptedMessage

COMMANDS = "onex.cmd.order-store.requests.v1"
REQUESTS = "dev." + COMMANDS
INSERT = "onex.cmd.order-store.insert-order.v1"
NEEDY = OperationSpec(name="insert_order", topic=COMMANDS, event_type=INSERT, needs=("postgres",))

Act = Callable[[], Awaitable[None]]


class Order(msgspec.Struct, frozen=True):
    """A request without anything in it."""


class Handler:
    """Runs `act` per batch."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self.runs = 0

    def decode(self, data: msgspec.Raw) -> Order:
        return decode_payload(msgspec.json.Decoder(Order), data)

    def isolation(self, requests: Sequence[Order]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Order]:
        self.runs += 1
        await self._act()
        return list(requests)


class Producer:
    """Confirms everything, or nothing while `away`."""

    def __init__(self) -> None:
        self.sent: list[OutboundRecord] = []
        self.away = False

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        if self.away:
            raise DeliveryError("not confirmed", errors={0: "timed out"})
        self.sent += records


class Store:
    """A dependency that is only pinged."""

    dependency = "postgres"

    def __init__(self) -> None:
        self.error: BaseException | None = None

    @asynccontextmanager
    async def session(self, isolation: IsolationLevel | None = None) -> AsyncIterator[Any]:
        if self.error is not None:
            raise self.error
        yield None

    async def ping(self) -> None:
        if self.error is not None:
            raise self.error


class Node:
    """A node of one operation."""

    def __init__(self, act: Act, operation: OperationSpec | None = None, **spec: Any) -> None:
        one = operation or OperationSpec(
            name="insert_order",
            topic=COMMANDS,
            event_type=INSERT,
            completed_type="onex.evt.order-store.insert-order-completed.v1",
            failed_type="onex.evt.order-store.insert-order-failed.v1",
            answer_topic="onex.evt.order-store.results.v1",
        )
        self.spec = order_store(subscribe=(COMMANDS,), operations=(one,), **spec)
        self.handler = Handler(act)
        self.handlers = {"insert_order": self.handler}


class Process:
    """A worker on a scripted consumer."""

    def __init__(
        self,
        node: Node,
        store: Store | None = None,
        *,
        brokers_answer: Callable[[], Awaitable[bool]] | None = None,
        producer_is_cut_off: Callable[[], bool] = lambda: False,
        **settings: Any,
    ) -> None:
        self.node, self.producer, self.store = node, Producer(), store
        self.consumer = ScriptedConsumer({REQUESTS: 2})
        self.callbacks: dict[str, Callable[..., None]] = {}
        self.worker = Worker(
            node,
            Settings(env="dev", **settings),
            producer=self.producer,
            stores={} if store is None else {"postgres": store},
            make_consumer=self._make_consumer,
            registry=MetricsRegistry(process_metrics=False),
            log=get_logger(),
            brokers_answer=brokers_answer,
            producer_is_cut_off=producer_is_cut_off,
        )
        self._offset = 0

    def _make_consumer(self, on_statistics: Any, on_error: Any, on_commit: Any) -> Any:
        self.consumer.on_commit = on_commit
        self.callbacks = {"statistics": on_statistics, "error": on_error}
        return self.consumer

    def publish(self, value: bytes | None = None) -> None:
        """Let a command, or bytes, come in."""
        content = value or envelopes.encode(
            envelopes.original(source="/outside", event_type=INSERT, data=msgspec.Raw(b"{}"))
        )
        self.consumer.then(ScriptedMessage(REQUESTS, 0, self._offset, content, b"k%d" % self._offset))
        self._offset += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.worker.run())
        self.consumer.assign((REQUESTS, 0), (REQUESTS, 1))
        try:
            yield task
        finally:
            self.worker.request_stop()
            self.worker.request_stop()
            await asyncio.wait([task], timeout=10)
            assert task.done()
            assert not threading_alive()
            if not task.cancelled():
                task.exception()

    def problems(self) -> dict[str, str]:
        """Return what is not usable, and why."""
        return {name: state for name, state in self.worker.ready()[1].items() if state != "ok"}

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        lines = self.worker.exposition().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + "{", name + " ")))


def threading_alive() -> bool:
    return any(thread.name == "kafka-consumer" for thread in threading.enumerate())


async def until(condition: Callable[[], Any], what: str = "") -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.002)


async def nothing() -> None:
    """Do nothing, successfully."""


def statistics(*states: str) -> ClientStatistics:
    brokers = {
        str(number): {"name": str(number), "nodeid": number, "state": state} for number, state in enumerate(states)
    }
    return parse_statistics(msgspec.json.encode({"brokers": brokers, "topics": {}}).decode())


async def test_a_command_is_run_answered_and_committed_before_the_worker_leaves() -> None:
    process = Process(Node(nothing))
    async with process.running() as task:
        process.publish()
        await until(lambda: process.producer.sent)
        process.worker.request_stop()
        await asyncio.wait_for(task, 5)
    assert process.consumer.offsets[REQUESTS, 0] == 1
    assert process.consumer.closed
    assert process.metric("omnibase_in_flight_records") == 0


async def test_it_is_ready_when_kafka_its_dependencies_and_its_assignment_are_there() -> None:
    store = Store()
    process = Process(Node(nothing, NEEDY, dependencies=("postgres",)), store)
    assert process.problems() == {
        "kafka": "not connected yet",
        "assignment": "waiting for the group",
        "postgres": "not checked yet",
    }
    async with process.running() as task:
        await until(lambda: process.worker.ready()[0])
        process.consumer.then(lambda: process.callbacks["statistics"](statistics("DOWN")))
        await until(lambda: process.problems() == {"kafka": "no broker connection is up"})
        process.consumer.then(lambda: process.callbacks["statistics"](statistics("UP")))
        await until(lambda: not process.problems())
        process.consumer.then(lambda: process.callbacks["error"](KafkaError(KafkaError._ALL_BROKERS_DOWN)))
        await until(lambda: "no broker answers" in process.problems().get("kafka", ""))
        process.consumer.lose((REQUESTS, 0), (REQUESTS, 1))
        await until(lambda: "assignment" in process.problems())
        process.consumer.assign((REQUESTS, 0))
        await until(lambda: not process.problems())
        process.worker.request_stop()
        assert process.problems() == {"worker": "stopping"}
        await asyncio.wait_for(task, 5)


async def test_a_dependency_that_is_away_blocks_its_topic_and_comes_back_by_a_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("omnibase_infra.shared.runtime.dependencies.PING_SECONDS", 0.01)
    store = Store()
    store.error = DependencyUnavailableError("down", dependency="postgres")
    process = Process(Node(nothing, NEEDY, dependencies=("postgres",)), store)
    async with process.running():
        await until(lambda: len(process.consumer.paused) == 2, "its partitions are paused")
        assert process.problems()["postgres"] == "down"
        store.error = None
        await until(lambda: not process.consumer.paused and process.worker.ready()[0], "they flow again")


@pytest.mark.parametrize("error", [RuntimeError("what"), OmnibaseError("no table")])
async def test_a_ping_that_fails_otherwise_makes_the_worker_unready_and_ends_nothing(error: Exception) -> None:
    store = Store()
    store.error = error
    process = Process(Node(nothing, NEEDY, dependencies=("postgres",)), store)
    async with process.running() as task:
        await until(lambda: "postgres" in process.problems() and "not checked" not in process.problems()["postgres"])
        await until(lambda: process.problems().keys() == {"postgres"})
        assert not task.done()
        assert not process.consumer.paused


async def test_an_error_of_the_consumer_thread_ends_the_worker_with_it() -> None:
    process = Process(Node(nothing))
    async with process.running() as task:
        process.consumer.then(KafkaException(KafkaError(KafkaError._FATAL)))
        with pytest.raises(DependencyUnavailableError, match="Kafka consumer failed"):
            await asyncio.wait_for(task, 5)
    assert process.consumer.closed


async def test_a_group_without_offsets_ends_the_worker_with_what_to_do() -> None:
    process = Process(Node(nothing))
    process.consumer.offsets.clear()
    async with process.running() as task:
        with pytest.raises(OffsetMissingError):
            await asyncio.wait_for(task, 5)


async def test_too_many_dead_letters_end_the_worker_at_once_though_others_are_under_way() -> None:
    process = Process(Node(asyncio.Event().wait, dead_letters=DeadLetterSpec(consecutive=2)))  # type: ignore[arg-type]
    async with process.running() as task:
        process.publish()
        await until(lambda: process.node.handler.runs)
        process.publish(b"junk")
        process.publish(b"junk")
        began = time.monotonic()
        with pytest.raises(TooManyDeadLettersError):
            await asyncio.wait_for(task, 10)
    assert time.monotonic() - began < 5, "the grace period is for work that can end"
    assert process.consumer.offsets[REQUESTS, 0] == 0


async def test_work_that_does_not_end_is_left_uncommitted_when_the_grace_period_is_over() -> None:
    process = Process(Node(asyncio.Event().wait), shutdown_grace_seconds=0.05)  # type: ignore[arg-type]
    async with process.running() as task:
        process.publish()
        await until(lambda: process.node.handler.runs)
        process.worker.request_stop()
        await asyncio.wait_for(task, 5)
    assert process.consumer.offsets[REQUESTS, 0] == 0


async def test_a_second_signal_ends_the_drain_at_once() -> None:
    process = Process(Node(asyncio.Event().wait), shutdown_grace_seconds=60)  # type: ignore[arg-type]
    async with process.running() as task:
        process.publish()
        await until(lambda: process.node.handler.runs)
        process.worker.request_stop()
        await asyncio.sleep(0.05)
        assert not task.done()
        process.worker.request_stop()
        await asyncio.wait_for(task, 5)


async def test_outputs_that_are_not_confirmed_keep_their_record_uncommitted() -> None:
    process = Process(Node(nothing), shutdown_grace_seconds=0.05)
    process.producer.away = True
    async with process.running() as task:
        process.publish()
        await until(lambda: process.node.handler.runs)
        process.worker.request_stop()
        await asyncio.wait_for(task, 5)
    assert process.consumer.offsets[REQUESTS, 0] == 0


async def test_a_consumer_that_does_not_close_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_LEAVE_SECONDS", 0.05)
    process, closing = Process(Node(nothing), shutdown_grace_seconds=0.05), threading.Event()
    monkeypatch.setattr(process.consumer, "close", lambda: closing.wait(10))
    task = asyncio.create_task(process.worker.run())
    process.worker.request_stop()
    try:
        await asyncio.wait_for(task, 5)
        assert threading_alive()
    finally:
        closing.set()
        await until(lambda: not threading_alive())


async def test_a_stop_asked_for_before_the_start_ends_it_before_it_takes_anything() -> None:
    process = Process(Node(nothing))
    process.worker.request_stop()
    await asyncio.wait_for(process.worker.run(), 5)
    assert process.consumer.closed


async def test_bad_bytes_and_tombstones_are_accounted_for() -> None:
    process = Process(Node(nothing))
    async with process.running():
        process.publish(b"junk")
        process.consumer.then(ScriptedMessage(REQUESTS, 1, 0, None))
        await until(lambda: process.consumer.offsets[REQUESTS, 0] == 1 and process.consumer.offsets[REQUESTS, 1] == 1)
    assert [record.topic for record in process.producer.sent] == [str(process.node.spec.dead_letter_topic)]
    assert process.metric("omnibase_records_ignored_total") == 1
    assert process.metric("omnibase_in_flight_records") == 0
    assert process.metric("omnibase_in_flight_bytes") == 0


async def test_a_batch_that_ended_shows_in_the_metrics_though_nothing_follows_it() -> None:
    process = Process(Node(nothing))
    async with process.running():
        process.publish()
        await until(lambda: process.producer.sent and process.worker.info()["in_flight"]["records"] == 0)
        assert process.metric("omnibase_in_flight_records") == 0


async def test_a_parked_record_that_ended_shows_in_the_metrics_though_nothing_follows_it() -> None:
    failures = iter([TransientError("not now", dependency="carrier")])

    async def fail_once() -> None:
        for error in failures:
            raise error

    process = Process(Node(fail_once, retry=RetrySpec(in_lane=1, tiers=(0.01,))))
    async with process.running():
        process.publish()
        await until(lambda: process.producer.sent, "it is parked")
        parked = process.producer.sent[0]
        assert parked.value is not None
        assert process.metric("omnibase_parked_records") == 1
        retry = f"dev.{parked.topic}"
        process.consumer.then(
            ScriptedMessage(retry, 0, 0, parked.value, parked.key, headers=list(parked.headers or ())),
            # What waits for records before it is sure of them only at the end of its source.
            ScriptedMessage(REQUESTS, 0, 1, error=KafkaError(KafkaError._PARTITION_EOF)),
        )
        await until(lambda: process.metric("omnibase_parked_records") == 0, "the record has ended")
        assert process.metric("omnibase_parked_keys") == 0
        assert process.node.handler.runs == 2


async def test_liveness_follows_the_loop_and_the_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(Node(nothing), revoke_budget_seconds=0.1)
    assert process.worker.live() == (True, "ok")
    blocked = 0.0
    process.worker.watched_by(lambda: blocked)
    async with process.running():
        await until(lambda: process.worker.ready()[0])
        assert process.worker.live()[0]
        monkeypatch.setattr(worker_module, "POLL_STALE_SECONDS", 0.2)
        held = threading.Event()

        def hold() -> None:
            held.wait(5)

        process.consumer.then(hold)
        await until(lambda: "has not polled" in process.worker.live()[1])
        held.set()
        await until(lambda: process.worker.live()[0])
        blocked = 31.0
        assert "blocked for 31 s" in process.worker.live()[1]
        blocked = 0.0


@pytest.mark.parametrize("trouble", ["consumer", "producer", "group"])
async def test_a_client_that_finds_no_way_back_to_brokers_that_answer_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(client_watch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 0.05)
    monkeypatch.setattr(worker_module, "OUTSIDE_SECONDS", 0.05)
    answering = cut_off = False
    asked = 0

    async def brokers_answer() -> bool:
        nonlocal asked
        asked += 1
        return answering

    process = Process(Node(nothing), brokers_answer=brokers_answer, producer_is_cut_off=lambda: cut_off)
    async with process.running() as task:
        await until(lambda: process.worker.ready()[0])
        await asyncio.sleep(0.1)
        assert asked == 0, "while all is well nobody is asked"
        if trouble == "consumer":
            process.consumer.then(lambda: process.callbacks["statistics"](statistics("DOWN")))
        elif trouble == "producer":
            cut_off = True
        else:
            process.consumer.lose((REQUESTS, 0), (REQUESTS, 1))
        await until(lambda: asked > 3)
        assert not task.done(), "an outage is for waiting"
        answering = True
        with pytest.raises(DependencyUnavailableError, match=f"the {trouble}.*though brokers answer"):
            await asyncio.wait_for(task, 5)


async def test_a_worker_that_is_no_longer_let_in_ends_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_watch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 0.05)

    async def brokers_let_us_in() -> bool:
        raise KafkaAccessError("it refuses user 'worker' with this password")

    process = Process(Node(nothing), brokers_answer=brokers_let_us_in)
    async with process.running() as task:
        await until(lambda: process.worker.ready()[0])
        refused = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
        process.consumer.then(lambda: process.callbacks["error"](refused))
        with pytest.raises(KafkaAccessError, match="refuses user"):
            await asyncio.wait_for(task, 5)


async def test_clients_that_come_back_with_the_brokers_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_watch, "LOOK_SECONDS", 0.01)
    cut_off, asked = {"the producer has had no connection": 0.0}, 0

    async def brokers_answer() -> bool:
        nonlocal asked
        asked += 1
        cut_off.clear()
        return True

    watch = asyncio.create_task(client_watch.ClientWatch(brokers_answer).run(lambda: dict(cut_off)))
    await until(lambda: asked)
    await asyncio.sleep(0.05)
    assert not watch.done()
    watch.cancel()


async def test_info_says_what_runs_and_what_it_owns() -> None:
    process = Process(Node(nothing))
    async with process.running():
        await until(lambda: len(process.worker.info()["assignment"]) == 2)
        info = process.worker.info()
    assert (info["worker"], info["realm"], info["operations"]) == ("order-store", "dev", ["insert_order"])
    work = {"topic": REQUESTS, "partition": 0, "in_flight": 0, "parked": 0}
    assert info["assignment"][0] == work | {"position": None, "committed": None, "end": None, "lag": None}
    assert info["kafka"]["consumer"]["last_error"] == ""


async def test_a_partition_that_moves_away_waits_for_what_runs_and_its_records_leave_the_books() -> None:
    gate = asyncio.Event()

    async def act() -> None:
        await gate.wait()

    process = Process(Node(act))
    async with process.running():
        process.publish()
        await until(lambda: process.node.handler.runs)
        process.consumer.revoke((REQUESTS, 0))
        await asyncio.sleep(0.05)
        assert (REQUESTS, 0) in process.consumer.assigned
        gate.set()
        await until(lambda: (REQUESTS, 0) not in process.consumer.assigned)
        assert process.consumer.offsets[REQUESTS, 0] == 1
        assert process.worker.info()["in_flight"] == {"records": 0, "bytes": 0}


async def test_a_lost_partition_is_dropped_and_its_records_leave_the_books() -> None:
    gate = asyncio.Event()

    async def act() -> None:
        await gate.wait()

    process = Process(Node(act))
    async with process.running():
        process.publish()
        await until(lambda: process.node.handler.runs)
        process.consumer.lose((REQUESTS, 0))
        await until(lambda: (REQUESTS, 0) not in process.consumer.assigned)
        gate.set()
        await until(lambda: process.worker.info()["in_flight"]["records"] == 0)
        assert process.consumer.offsets[REQUESTS, 0] == 0
