"""The executor decides what an error becomes: an answer, a retry, a dead letter, or waiting for a dependency."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import (
    BreakerOpenError,
    BusinessError,
    DeliveryError,
    DependencyBusyError,
    DependencyUnavailableError,
    ForbiddenError,
    TransientError,
    UndecodableError,
)
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    BatchContext,
    Claim,
    Fresh,
    InboxMessage,
    IsolationLevel,
    OutboundRecord,
    Reused,
    StoredOutput,
)
from omnibase_infra.shared.core.worker_spec import DeadLetterSpec, OperationSpec, RetrySpec, WorkerSpec
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.resilience.circuit_breaker_factory import CircuitBreakerFactory
from omnibase_infra.shared.resilience.retry_policy import RetryPolicy
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.careful import Careful
from omnibase_infra.shared.runtime.dead_letters import DeadLetters, TooManyDeadLettersError
from omnibase_infra.shared.runtime.delivery import Delivery
from omnibase_infra.shared.runtime.dependencies import Dependencies
from omnibase_infra.shared.runtime.execution import Execution, inbox_message
from omnibase_infra.shared.runtime.executor import Executor
from omnibase_infra.shared.runtime.intake import Intake
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.parking import Parking
from omnibase_infra.shared.runtime.records import DONE, PartitionWork, Record
from omnibase_infra.shared.runtime.refusal_answers import RefusalAnswers

COMMANDS = "onex.cmd.shop.requests.v1"
ANSWERS = "onex.evt.shop.results.v1"
DEAD = "onex.dlq.shop.dead-letters.v1"
QUICK = RetryPolicy(attempts=3, base=0.001, cap=0.002)


ORDER = OperationSpec(
    name="order",
    topic=COMMANDS,
    event_type="onex.cmd.shop.order.v1",
    completed_type="onex.evt.shop.order-completed.v1",
    failed_type="onex.evt.shop.order-failed.v1",
    answer_topic=ANSWERS,
    needs=("postgres",),
    guarantee="effectively_once",
    batch_max=100,
    concurrency=2,
)


class Order(msgspec.Struct, frozen=True):
    """The request and, for the tests, the response."""

    number: int
    text: str = ""


class MemoryStore:
    """An effect store in memory, with the transactions and the inbox of a real one."""

    dependency = "postgres"

    def __init__(self) -> None:
        self.inbox: dict[tuple[str, str], tuple[bytes, tuple[StoredOutput, ...]]] = {}
        self.effects: list[int] = []
        self.down = False
        self.broken = 0  # how many sessions cannot store an outcome, for a reason nobody knows

    @asynccontextmanager
    async def session(self, isolation: IsolationLevel | None = None) -> AsyncIterator[MemorySession]:
        if self.down:
            raise DependencyUnavailableError("down", dependency="postgres")
        session = MemorySession(self)
        yield session
        self.inbox |= session.stored
        self.effects += session.effects

    async def ping(self) -> None:
        if self.down:
            raise DependencyUnavailableError("down", dependency="postgres")


class MemorySession:
    """One transaction: what it did shows only when the block ends well."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.stored: dict[tuple[str, str], tuple[bytes, tuple[StoredOutput, ...]]] = {}
        self.effects: list[int] = []

    @property
    def connection(self) -> Any:
        return self

    async def claim(self, messages: Sequence[InboxMessage]) -> list[Claim]:
        return [self._claim(message) for message in messages]

    def _claim(self, message: InboxMessage) -> Claim:
        found = self._store.inbox.get((message.source, message.message_id))
        if found is None:
            return Fresh()
        return AlreadyProcessed(found[1]) if found[0] == message.payload_hash else Reused()

    async def store(self, outputs: Sequence[tuple[InboxMessage, Sequence[StoredOutput]]]) -> None:
        if self._store.broken:
            self._store.broken -= 1
            raise RuntimeError("what is this")
        for message, produced in outputs:
            self.stored[message.source, message.message_id] = (message.payload_hash, tuple(produced))


class MemoryProducer:
    """Keeps what was sent; as often as told it fails with the first of several."""

    def __init__(self) -> None:
        self.sent: list[OutboundRecord] = []
        self.failures = 0

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        if self.failures:
            self.failures -= 1
            self.sent += records[1:]
            raise DeliveryError("not confirmed", errors={0: "timed out"})
        self.sent += records


class Handler:
    """Runs `act` on each request inside the open transaction."""

    def __init__(self, act: Callable[[int], Awaitable[None]]) -> None:
        self._act = act
        self.batches: list[list[int]] = []
        self.text: dict[int, str] = {}

    def decode(self, data: msgspec.Raw) -> Order:
        return decode_payload(msgspec.json.Decoder(Order), data)

    def isolation(self, requests: Sequence[Order]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Order]:
        self.batches.append([request.number for request in requests])
        for request in requests:
            await self._act(request.number)
            assert context.session is not None
            context.session.connection.effects.append(request.number)
        return [Order(request.number, self.text.get(request.number, "")) for request in requests]


class Shop:
    """A worker's inside without Kafka: records in, outputs out."""

    def __init__(self, act: Callable[[int], Awaitable[None]], **operation: Any) -> None:
        spec = msgspec.structs.replace(ORDER, **operation)
        self.spec = WorkerSpec(
            generation=1,
            node="shop",
            worker="shop",
            class_name="NodeShopEffect",
            version="1.0.0",
            contract_sha256="0" * 64,
            description="",
            node_type="effect",
            subscribe=(COMMANDS,),
            publish=(ANSWERS,),
            dependencies=("postgres",),
            operations=(spec,),
            retry=RetrySpec(in_lane=3),
            dead_letters=DeadLetterSpec(consecutive=3, ratio=1.0),
        )
        realm = Realm("test")
        self.store, self.producer, self.handler = MemoryStore(), MemoryProducer(), Handler(act)
        self.lanes = Lanes(lambda records, size: None)
        metrics = WorkerMetrics(MetricsRegistry(process_metrics=False), self.spec)
        stores = {"postgres": self.store}
        self.dependencies = Dependencies(self.spec, stores, CircuitBreakerFactory(metrics.dependencies), lambda: None)
        self.postgres = self.dependencies.by_name["postgres"]
        self.postgres.answers = True
        self.lane = Lane(spec, self.handler, self.dependencies.gate(spec.needs))
        self.lanes.add(self.lane)
        delivery = Delivery(self.producer, QUICK, lambda error: None)
        dead_letters = DeadLetters(self.spec, "group")
        answers = Answers(self.spec, realm)
        self.parking = Parking(
            self.spec,
            "group",
            lanes=self.lanes,
            intake=Intake(self.spec, realm, self.lanes.by_operation, self.lane),
            delivery=delivery,
            dead_letters=dead_letters,
            refuse=lambda record, error: self.executor.refuse(record, error),  # noqa: PLW0108 - made below
            metrics=metrics,
            log=get_logger(),
            max_records=1000,
            max_bytes=1_000_000,
        )
        self.executor = Executor(
            self.spec,
            lanes=self.lanes,
            execution=Execution(self.spec, answers, dict(stores)),
            delivery=delivery,
            dead_letters=dead_letters,
            refusal_answers=RefusalAnswers(self.spec, realm, answers),
            retry=QUICK,
            metrics=metrics,
            log=get_logger(),
            parking=self.parking,
            careful=Careful(get_logger()),
        )
        self.work = PartitionWork(TopicName.parse(COMMANDS), "test." + COMMANDS, 0)
        self._offset = 0

    def submit(
        self, payload: Any, key: bytes | None = None, message_id: str = "", dataschema: str | None = None
    ) -> Record:
        """Let a command in, as intake does."""
        command = envelopes.original(
            source="/outside",
            event_type="onex.cmd.shop.order.v1",
            data=envelopes.encode_data(payload),
            dataschema=dataschema,
        )
        if message_id:
            command = msgspec.structs.replace(command, id=message_id)
        record = Record(self.work, self._offset, 0, key, envelopes.encode(command), None)
        record.envelope, record.lane = command, self.lane
        self._offset += 1
        self.work.enter([record])
        self.lanes.submit(record)
        return record

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.executor.run())
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, BaseExceptionGroup):
                await task

    async def all_done(self) -> None:
        """Wait until every record is finished and its offset could be committed."""
        async with asyncio.timeout(5):
            while self.work.advance() != self._offset:
                await asyncio.sleep(0.001)

    def answers(self) -> list[envelopes.Envelope]:
        return [envelopes.decode(record.value) for record in self.producer.sent if record.topic == ANSWERS]

    def failures(self) -> list[ModelErrorResponse]:
        failed = [answer for answer in self.answers() if answer.type.endswith("-failed.v1")]
        return [msgspec.json.decode(answer.data, type=ModelErrorResponse) for answer in failed]

    def dead(self) -> list[OutboundRecord]:
        return [record for record in self.producer.sent if record.topic == DEAD]


async def fine(number: int) -> None:
    """Do nothing, successfully."""


def failing(
    numbers: set[int], error: Callable[[], BaseException], times: int = 10**9
) -> Callable[[int], Awaitable[None]]:
    """Return an act that raises for some requests, the first `times` times."""
    left = dict.fromkeys(numbers, times)

    async def act(number: int) -> None:
        if left.get(number, 0) > 0:
            left[number] -= 1
            raise error()

    return act


async def test_every_record_has_one_effect_and_one_answer() -> None:
    shop = Shop(fine)
    async with shop.running():
        ids = {shop.submit({"number": number}).envelope.id for number in range(50)}
        await shop.all_done()
    assert sorted(shop.store.effects) == list(range(50))
    assert {answer.causationid for answer in shop.answers()} == ids


async def test_a_business_error_is_found_by_halving_answered_and_spares_its_neighbours() -> None:
    shop = Shop(failing({17}, lambda: BusinessError("no", code="constraint-violated")))
    async with shop.running():
        for number in range(40):
            shop.submit({"number": number})
        await shop.all_done()
    assert sorted(shop.store.effects) == [number for number in range(40) if number != 17]
    (failure,) = shop.failures()
    assert (failure.code, failure.retryable, failure.attempts) == ("constraint-violated", False, 1)
    assert not shop.dead()


async def test_a_record_that_fails_for_a_while_is_retried_in_place_and_its_key_waits() -> None:
    shop = Shop(failing({0}, lambda: RuntimeError("flaky"), times=2))
    async with shop.running():
        shop.submit({"number": 0}, key=b"a")
        shop.submit({"number": 1}, key=b"a")
        await shop.all_done()
    assert shop.store.effects == [0, 1]
    assert not shop.failures()


async def test_an_error_nobody_knows_ends_as_dead_letter_and_failed_answer_without_its_text() -> None:
    shop = Shop(failing({0}, lambda: RuntimeError("password=hunter2")))
    async with shop.running():
        value = shop.submit({"number": 0}, key=b"k").value
        await shop.all_done()
    (letter,) = shop.dead()
    headers = dict(letter.headers or [])
    assert (letter.value, letter.key) == (value, b"k")
    assert headers[TransportHeader.ERROR_CODE] == b"internal-error"
    assert headers[TransportHeader.ATTEMPT] == b"3"
    (failure,) = shop.failures()
    assert failure.code == "internal-error"
    assert "hunter2" not in failure.message


async def test_a_dead_record_redelivered_after_a_crash_is_buried_again_and_not_run_again() -> None:
    shop = Shop(failing({0}, lambda: RuntimeError("always")))
    async with shop.running():
        message_id = shop.submit({"number": 0}).envelope.id
        await shop.all_done()
        runs = len(shop.handler.batches)
        shop.submit({"number": 0}, message_id=message_id)
        await shop.all_done()
    assert len(shop.handler.batches) == runs
    assert [dict(letter.headers or [])[TransportHeader.ERROR_CODE] for letter in shop.dead()] == [b"internal-error"] * 2
    assert len({answer.id for answer in shop.answers()}) == 1


async def test_an_outage_spends_no_attempt_and_makes_no_dead_letter() -> None:
    shop = Shop(fine)
    shop.store.down = True
    async with shop.running():
        record = shop.submit({"number": 0})
        await asyncio.sleep(0.5)
        assert record.attempts == 0
        shop.store.down = False
        await shop.all_done()
    assert shop.store.effects == [0]
    assert not shop.dead()


async def test_a_service_whose_breaker_is_open_is_asked_again_when_that_is_worth_it() -> None:
    calls: list[float] = []

    async def act(number: int) -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise BreakerOpenError("not asked", dependency="carrier", retry_in_seconds=0.6)

    shop = Shop(act)
    async with shop.running():
        record = shop.submit({"number": 0})
        await shop.all_done()
    assert calls[1] - calls[0] >= 0.59
    assert record.attempts == 0
    assert shop.store.effects == [0]


async def test_a_busy_dependency_spends_no_attempt() -> None:
    shop = Shop(failing({0}, lambda: DependencyBusyError("no connection", dependency="postgres"), times=6))
    async with shop.running():
        record = shop.submit({"number": 0})
        await shop.all_done()
    assert record.attempts == 0
    assert shop.store.effects == [0]


async def test_a_deadlocked_batch_is_tried_again_whole() -> None:
    shop = Shop(failing({3}, lambda: TransientError("deadlock", dependency="postgres"), times=1))
    for number in range(8):
        shop.submit({"number": number})
    async with shop.running():
        await shop.all_done()
    assert sorted(shop.store.effects) == list(range(8))
    assert min(map(len, shop.handler.batches)) > 1


async def test_a_handler_that_hangs_meets_its_deadline_and_its_neighbours_are_done() -> None:
    async def act(number: int) -> None:
        if number == 2:
            await asyncio.Event().wait()

    shop = Shop(act, timeout_seconds=0.02)
    async with shop.running():
        for number in range(4):
            shop.submit({"number": number})
        await shop.all_done()
    assert sorted(shop.store.effects) == [0, 1, 3]
    assert [failure.code for failure in shop.failures()] == ["transient"]


async def test_outputs_are_sent_until_confirmed_and_only_then_is_the_record_finished() -> None:
    shop = Shop(fine)
    shop.producer.failures = 4
    async with shop.running():
        shop.submit({"number": 0})
        await shop.all_done()
    assert len(shop.answers()) == 1
    assert shop.store.effects == [0]


async def test_the_same_message_twice_in_a_batch_has_one_effect_and_equal_answers() -> None:
    shop = Shop(fine)
    shop.submit({"number": 0}, message_id="same")
    shop.submit({"number": 0}, message_id="same")
    async with shop.running():
        await shop.all_done()
    assert shop.store.effects == [0]
    first, second = (record.value for record in shop.producer.sent)
    assert first == second


async def test_a_reused_id_is_refused_and_the_first_message_keeps_its_answer() -> None:
    shop = Shop(fine)
    async with shop.running():
        shop.submit({"number": 0}, message_id="same")
        await shop.all_done()
        shop.submit({"number": 1}, message_id="same")
        await shop.all_done()
    assert shop.store.effects == [0]
    assert [dict(letter.headers or [])[TransportHeader.ERROR_CODE] for letter in shop.dead()] == [b"id-reused"]
    assert [answer.type for answer in shop.answers()] == [ORDER.completed_type]  # the first one's, and no other


async def test_a_refused_command_is_answered_beside_its_dead_letter_and_unfinished_until_both_are_confirmed() -> None:
    shop = Shop(fine)
    shop.producer.failures = 1
    command = envelopes.original(source="/outside", event_type=ORDER.event_type, data=msgspec.Raw(b"{}"))
    record = Record(shop.work, 0, 0, b"k", envelopes.encode(command), None)
    record.envelope = command
    shop.work.enter([record])
    shop._offset = 1
    async with shop.running():
        shop.executor.refuse(record, ForbiddenError("not here"))
        async with asyncio.timeout(5):
            while not shop.answers():
                await asyncio.sleep(0)
        assert (shop.dead(), shop.work.advance() == 1) == ([], False)
        await shop.all_done()
    assert len(shop.dead()) == 1
    assert [answer.causationid for answer in shop.answers()] == [command.id]
    assert [failure.code for failure in shop.failures()] == ["forbidden"]
    assert not shop.store.inbox  # it may be another's id


async def test_a_bad_payload_is_answered_and_remembered() -> None:
    shop = Shop(fine)
    async with shop.running():
        shop.submit({"number": "one"}, message_id="bad")
        await shop.all_done()
    (failure,) = shop.failures()
    assert failure.code == "invalid-payload"
    assert "$.number" in failure.message
    assert ("/outside", "bad") in shop.store.inbox


async def test_too_many_dead_letters_in_a_row_stop_the_worker() -> None:
    shop = Shop(fine)
    async with shop.running() as task:
        for _ in range(3):
            record = Record(shop.work, shop._offset, 0, None, b"junk", None)
            shop.work.enter([record])
            shop._offset += 1
            shop.executor.refuse(record, UndecodableError("junk"))
        with pytest.raises(BaseExceptionGroup) as caught:
            await asyncio.wait_for(task, 5)
    assert caught.group_contains(TooManyDeadLettersError)


async def test_work_of_a_partition_given_up_is_not_finished_for_its_next_owner() -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def act(number: int) -> None:
        entered.set()
        await gate.wait()

    shop = Shop(act, batch_max=1, concurrency=1)
    async with shop.running():
        shop.submit({"number": 0}, key=b"a")
        shop.submit({"number": 1}, key=b"a")
        await entered.wait()
        shop.lanes.close([shop.work])
        gate.set()
        async with asyncio.timeout(5):
            while shop.work.running:
                await asyncio.sleep(0.001)
    assert shop.store.effects == [0]
    assert shop.work.advance() == 1


async def test_having_no_room_for_us_is_no_proof_that_a_dependency_answers() -> None:
    shop = Shop(failing({0}, lambda: DependencyBusyError("no connection", dependency="postgres"), times=1))
    shop.postgres.answers = False
    async with shop.running():
        shop.submit({"number": 0})
        while not shop.handler.batches:
            await asyncio.sleep(0.001)
        assert not shop.postgres.answers
        await shop.all_done()
    assert shop.postgres.answers


async def test_a_deadline_missed_while_a_dependency_is_silent_spends_no_attempt() -> None:
    thawed = asyncio.Event()

    async def act(number: int) -> None:
        await thawed.wait()

    shop = Shop(act, timeout_seconds=0.02)
    shop.postgres.answers = False
    async with shop.running():
        record = shop.submit({"number": 0})
        while len(shop.handler.batches) < 2:
            await asyncio.sleep(0.001)
        assert record.attempts == 0
        thawed.set()
        await shop.all_done()
    assert shop.store.effects == [0]
    assert not shop.dead()


async def test_a_record_whose_outcome_cannot_be_stored_is_kept_and_ends_no_executor() -> None:
    shop = Shop(failing({0}, lambda: BusinessError("no", code="constraint-violated")))
    async with shop.running() as task:
        shop.store.broken = 2
        shop.submit({"number": 0})
        shop.submit({"number": 1})
        async with asyncio.timeout(5):
            while shop.store.broken:
                await asyncio.sleep(0.001)
            assert shop.work.advance() < 0
            await shop.all_done()
        assert not task.done()
    assert [failure.code for failure in shop.failures()] == ["constraint-violated"]
    assert shop.store.effects == [1]


async def test_a_handler_that_waits_for_something_cancelled_fails_like_any_other_and_its_executor_lives() -> None:
    shop = Shop(failing({0}, asyncio.CancelledError, times=1), concurrency=1)
    async with shop.running():
        shop.submit({"number": 0})
        await shop.all_done()
    assert shop.store.effects == [0]


async def test_an_answer_larger_than_a_record_may_be_rolls_the_effect_back_and_is_answered_failed() -> None:
    shop = Shop(fine)
    shop.handler.text = {3: "x" * 1_048_576}
    async with shop.running():
        for number in range(6):
            shop.submit({"number": number})
        await shop.all_done()
    (failure,) = shop.failures()
    assert failure.code == "answer-too-large"
    assert sorted(shop.store.effects) == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("message_id", ["ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-7000-8000-000000000000"])
async def test_an_id_whose_time_is_beyond_the_calendar_has_an_inbox_day_all_the_same(message_id: str) -> None:
    shop = Shop(fine)
    record = shop.submit({"number": 0}, message_id=message_id)
    message = inbox_message(record)
    assert datetime.fromtimestamp(message.day_ms / 1000, UTC).date() < date.max


async def test_a_time_stamp_beyond_the_calendar_has_an_inbox_day_all_the_same() -> None:
    shop = Shop(fine)
    record = shop.submit({"number": 0}, message_id="outside")
    record.timestamp_ms = 2**62
    assert datetime.fromtimestamp(inbox_message(record).day_ms / 1000, UTC).date() < date.max


async def test_a_finished_record_keeps_nothing_but_its_place() -> None:
    shop = Shop(fine)
    async with shop.running():
        record = shop.submit({"number": 0}, key=b"a")
        await shop.all_done()
    assert not any((record.value, record.key, record.headers, record.envelope))
    assert record.offset == 0


async def test_a_record_for_a_newer_contract_is_tried_for_a_while_then_answered_and_kept_and_nobody_else_waits() -> (
    None
):
    shop = Shop(fine)
    async with shop.running():
        newer = shop.submit({"number": 1}, dataschema="urn:omnibase:shop:ModelOrder:1.5.0")
        for number in range(2, 12):
            shop.submit({"number": number})
        await shop.all_done()
    assert sorted(shop.store.effects) == list(range(2, 12))
    (failed,) = shop.failures()
    assert (failed.code, failed.retryable, failed.attempts) == ("newer-contract", True, 3)
    (dead,) = shop.dead()
    assert newer.stage == DONE
    assert ("onex-error-code", b"newer-contract") in list(dead.headers or ())
