"""Effects outside PostgreSQL happen once: crashes at every await, two workers at once, journals that are away.

Each test runs on a journal in memory and on the real one. The server the effects are made on is a script.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import pytest

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import (
    BusinessError,
    ConfigurationError,
    DependencyBusyError,
    DependencyUnavailableError,
    OutcomeUnknownError,
    RateLimitedError,
    TransientError,
)
from omnibase_infra.shared.core.ids import original_id
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    BatchContext,
    Claim,
    EffectJournal,
    EffectSession,
    EffectStore,
    Fresh,
    Held,
    InboxMessage,
    Intent,
    IsolationLevel,
    NotDone,
    ResolvableHandler,
    Reused,
    StoredOutput,
    Unresolved,
)
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.execution import Execution, Settled
from omnibase_infra.shared.runtime.journaled_effects import idempotency_key
from omnibase_infra.shared.runtime.lanes import Gate, Lane
from omnibase_infra.shared.runtime.records import Origin, PartitionWork, Record

COMMANDS = "onex.cmd.keys.requests.v1"
CREATE = OperationSpec(
    name="create",
    topic=COMMANDS,
    event_type="onex.cmd.keys.create.v1",
    completed_type="onex.evt.keys.create-completed.v1",
    failed_type="onex.evt.keys.create-failed.v1",
    answer_topic="onex.evt.keys.results.v1",
    needs=("consul", "postgres"),
    guarantee="effectively_once",
    timeout_seconds=0.05,
    effect="journal",
)
SPEC = WorkerSpec(
    generation=1,
    node="keys",
    worker="keys",
    class_name="NodeKeysEffect",
    version="1.0.0",
    contract_sha256="0" * 64,
    description="",
    node_type="effect",
    subscribe=(COMMANDS,),
    publish=("onex.evt.keys.results.v1",),
    dependencies=("consul", "postgres"),
    operations=(CREATE,),
)
SHORT_MARGIN = 0.05


class Crash(BaseException):
    """The process dies here: nothing of it runs any more, no clean-up either."""


class Order(msgspec.Struct, frozen=True):
    """The request and, for the tests, the response."""

    number: int
    text: str = ""


class Server:
    """What the effects are made on. Counts them by idempotency key."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.made: dict[str, Order] = {}

    def make(self, key: str, order: Order) -> None:
        self.calls[key] += 1
        self.made[key] = order

    @property
    def effects(self) -> int:
        return sum(self.calls.values())


Step = Callable[[str], Awaitable[None]]


async def go_on(_: str) -> None:
    """Do nothing at a step."""


class Handler:
    """Makes the effect between two steps at which tests can have something happen."""

    def __init__(self, server: Server, step: Step = go_on) -> None:
        self._server = server
        self._step = step
        self.batches = 0

    def decode(self, data: msgspec.Raw) -> Order:
        return decode_payload(msgspec.json.Decoder(Order), data)

    def isolation(self, requests: Sequence[Order]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Any]:
        assert context.session is None
        self.batches += 1
        (request,), (key,) = requests, context.idempotency_keys
        await self._step("before the effect")
        self._server.make(key, request)
        await self._step("after the effect")
        return [Order(request.number, request.text)]


class LookingHandler(Handler):
    """One that can find out what became of an effect."""

    def __init__(self, server: Server, step: Step = go_on, tells: Callable[[Any], Any] = lambda found: found) -> None:
        super().__init__(server, step)
        self._tells = tells
        self.looks = 0

    async def resolve(self, request: Order, context: BatchContext) -> Any:
        self.looks += 1
        (key,) = context.idempotency_keys
        await self._step("looking")
        return self._tells(self._server.made.get(key, NotDone()))


class MemoryJournal:
    """The port in memory, with leases on the loop's clock."""

    def __init__(self) -> None:
        self.done: dict[tuple[str, str, str], tuple[bytes, tuple[StoredOutput, ...]]] = {}
        self.intents: dict[tuple[str, str, str], tuple[uuid.UUID, float, int, bytes]] = {}

    async def intend(
        self, messages: Sequence[InboxMessage], *, owner: uuid.UUID, lease_seconds: float
    ) -> Sequence[Intent]:
        await asyncio.sleep(0)
        return [self._intend(message, owner, lease_seconds) for message in messages]

    def _intend(self, message: InboxMessage, owner: uuid.UUID, lease_seconds: float) -> Intent:
        key, now = identity(message), asyncio.get_running_loop().time()
        if key in self.done:
            return self._done(message)
        standing = self.intents.get(key)
        if standing is not None and standing[1] > now:
            return Held()
        if standing is not None and standing[3] != message.payload_hash:
            return Reused()
        attempts = standing[2] if standing else 0
        self.intents[key] = (owner, now + lease_seconds, attempts + 1, message.payload_hash)
        return Unresolved(attempts) if standing else Fresh()

    def _done(self, message: InboxMessage) -> AlreadyProcessed | Reused:
        payload, outputs = self.done[identity(message)]
        return AlreadyProcessed(outputs) if payload == message.payload_hash else Reused()

    async def withdraw(self, messages: Sequence[InboxMessage], *, owner: uuid.UUID) -> None:
        for message in messages:
            if self.intents.get(identity(message), (None,))[0] == owner:
                del self.intents[identity(message)]

    async def give_up(self, messages: Sequence[InboxMessage], *, owner: uuid.UUID) -> None:
        for message in messages:
            standing = self.intents.get(identity(message))
            if standing is not None and standing[0] == owner:
                self.intents[identity(message)] = (standing[0], 0.0, standing[2], standing[3])

    async def conclude(self, message: InboxMessage, outputs: Sequence[StoredOutput]) -> Claim:
        await asyncio.sleep(0)
        self.intents.pop(identity(message), None)
        if identity(message) in self.done:
            return self._done(message)
        self.done[identity(message)] = (message.payload_hash, tuple(outputs))
        return Fresh()


def identity(message: InboxMessage) -> tuple[str, str, str]:
    return (message.source, message.message_id, message.redrive_id)


class WatchedJournal:
    """A journal with steps around its calls; also what the runtime takes for the store."""

    dependency = "postgres"

    def __init__(self, journal: EffectJournal, step: Step = go_on) -> None:
        self.journal = journal
        self.step = step

    def session(self, isolation: IsolationLevel | None = None) -> AbstractAsyncContextManager[EffectSession]:
        raise AssertionError("no transaction of the store's own is needed")

    async def ping(self) -> None:
        return

    async def intend(
        self, messages: Sequence[InboxMessage], *, owner: uuid.UUID, lease_seconds: float
    ) -> Sequence[Intent]:
        await self.step("before intending")
        intents = await self.journal.intend(messages, owner=owner, lease_seconds=lease_seconds)
        await self.step("after intending")
        return intents

    async def withdraw(self, messages: Sequence[InboxMessage], *, owner: uuid.UUID) -> None:
        await self.step("withdrawing")
        await self.journal.withdraw(messages, owner=owner)

    async def give_up(self, messages: Sequence[InboxMessage], *, owner: uuid.UUID) -> None:
        await self.step("giving up")
        await self.journal.give_up(messages, owner=owner)

    async def conclude(self, message: InboxMessage, outputs: Sequence[StoredOutput]) -> Claim:
        await self.step("before concluding")
        claim = await self.journal.conclude(message, outputs)
        await self.step("after concluding")
        return claim


class Process:
    """A worker process: its executions share nothing with those of another but the journal and the server."""

    def __init__(
        self,
        journal: EffectJournal,
        handler: Handler,
        step: Step = go_on,
        *,
        margin: float = 60.0,
        answer_bytes: int | None = None,
        **operation: Any,
    ) -> None:
        self.handler = handler
        self.lane = Lane(msgspec.structs.replace(CREATE, **operation), handler, cast("Gate", None))
        stores: dict[str, EffectStore] = {"postgres": WatchedJournal(journal, step)}
        answers = Answers(SPEC, Realm("test"), answer_bytes)
        self.execution = Execution(SPEC, answers, stores, lease_margin=margin)

    async def deliver(self, *records: Record) -> list[Settled]:
        return await self.execution.run(self.lane, records)

    async def settle(self, record: Record, failed: OperationFailed) -> Settled:
        return await self.execution.settle(self.lane, record, failed)


@pytest.fixture(params=["memory", "postgres"])
def journal(request: pytest.FixtureRequest) -> EffectJournal:
    if request.param == "memory":
        return MemoryJournal()
    pool: PostgresConnectionPool = request.getfixturevalue("postgres_connection_pool")
    return PostgresEffectStore(pool, "test.omnibase-infra.keys.consume.v1")


async def end_leases(journal: EffectJournal) -> None:
    """Let the time pass after which a worker that died is believed to be gone."""
    if isinstance(journal, MemoryJournal):
        journal.intents = {key: (one[0], 0.0, *one[2:]) for key, one in journal.intents.items()}
    else:
        async with cast("PostgresEffectStore", journal).session() as session:
            await session.connection.execute("UPDATE omnibase.effect_intent SET lease_until = now()")


def command(
    number: int = 1, *, message_id: str = "", expires: float | None = None, redrive: str = "", text: str = ""
) -> Record:
    sent = envelopes.original(
        source="/outside", event_type=CREATE.event_type, data=envelopes.encode_data(Order(number, text))
    )
    expirytime = (
        None if expires is None else clock.rfc3339((datetime.now(UTC) + timedelta(seconds=expires)).timestamp())
    )
    sent = msgspec.structs.replace(sent, id=message_id or original_id(), expirytime=expirytime)
    work = PartitionWork(TopicName.parse(COMMANDS), "test." + COMMANDS, 0)
    record = Record(work, number, 0, b"k", envelopes.encode(sent), None)
    record.envelope = sent
    if redrive:
        record.origin = Origin("test." + COMMANDS, 0, number, 0, redrive)
    return record


def answer(settled: Settled) -> tuple[str, Any]:
    """Return the last part of the answer's type, and its code or number."""
    (output,) = settled.outputs
    envelope = msgspec.json.decode(output.value)
    data = envelope["data"]
    return envelope["type"].split(".")[-2], data.get("code", data.get("number"))


def crash_at(point: str) -> Step:
    async def step(name: str) -> None:
        if name == point:
            raise Crash(point)

    return step


POINTS = (
    "before intending",
    "after intending",
    "before the effect",
    "after the effect",
    "before concluding",
    "after concluding",
)
UNCERTAIN = POINTS[1:5]


async def die_at(point: str, journal: EffectJournal, handler: Handler, record: Record, **operation: Any) -> None:
    step = crash_at(point)
    handler._step = step
    with pytest.raises(Crash):
        await Process(journal, handler, step, **operation).deliver(record)
    handler._step = go_on


# -- crashes ----------------------------------------------------------------------------------------------------------


def test_the_stores_implement_the_port() -> None:
    assert isinstance(MemoryJournal(), EffectJournal)
    pool = PostgresConnectionPool("postgresql://nobody@127.0.0.1:1/none")
    assert isinstance(PostgresEffectStore(pool, "g"), EffectJournal)
    assert isinstance(LookingHandler(Server()), ResolvableHandler)
    assert not isinstance(Handler(Server()), ResolvableHandler)


@pytest.mark.parametrize("point", POINTS)
async def test_a_handler_that_can_look_makes_every_effect_once_wherever_the_process_died(
    journal: EffectJournal, point: str
) -> None:
    server, record = Server(), command()
    await die_at(point, journal, LookingHandler(server), record)
    await end_leases(journal)
    (settled,) = await Process(journal, LookingHandler(server)).deliver(record)
    assert server.effects == 1
    assert answer(settled) == ("create-completed", 1)
    (again,) = await Process(journal, LookingHandler(server)).deliver(record)
    assert again.repeated
    assert again.outputs == settled.outputs
    assert server.effects == 1


@pytest.mark.parametrize("point", POINTS)
async def test_an_effect_that_must_not_be_repeated_is_not_and_the_answer_says_what_is_known(
    journal: EffectJournal, point: str
) -> None:
    server, record = Server(), command()
    await die_at(point, journal, Handler(server), record)
    before = server.effects
    await end_leases(journal)
    (settled,) = await Process(journal, Handler(server)).deliver(record)
    if point in UNCERTAIN:
        assert answer(settled) == ("create-failed", "outcome-unknown")
        assert server.effects == before
    else:
        assert answer(settled) == ("create-completed", 1)
        assert server.effects == 1
    (again,) = await Process(journal, Handler(server)).deliver(record)
    assert again.outputs == settled.outputs


@pytest.mark.parametrize("point", POINTS)
async def test_a_repeatable_effect_is_repeated_under_the_same_key(journal: EffectJournal, point: str) -> None:
    server, record = Server(), command()
    await die_at(point, journal, Handler(server), record, repeatable=True)
    await end_leases(journal)
    (settled,) = await Process(journal, Handler(server), repeatable=True).deliver(record)
    assert answer(settled) == ("create-completed", 1)
    assert list(server.calls) == [idempotency_key(record.envelope)]
    assert server.effects == (2 if point in ("after the effect", "before concluding") else 1)


async def test_a_process_that_dies_while_it_looks_leaves_it_to_the_next(journal: EffectJournal) -> None:
    server, record = Server(), command()
    await die_at("after the effect", journal, LookingHandler(server), record)
    await end_leases(journal)
    await die_at("looking", journal, LookingHandler(server), record)
    await end_leases(journal)
    (settled,) = await Process(journal, LookingHandler(server)).deliver(record)
    assert answer(settled) == ("create-completed", 1)
    assert server.effects == 1


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_look_that_cannot_tell_is_decided_by_the_contract(journal: EffectJournal, repeatable: bool) -> None:
    server, record = Server(), command()
    await die_at("after the effect", journal, LookingHandler(server), record)
    await end_leases(journal)
    blind = LookingHandler(server, tells=lambda found: None)
    (settled,) = await Process(journal, blind, repeatable=repeatable).deliver(record)
    assert blind.looks == 1
    expected = ("create-completed", 1) if repeatable else ("create-failed", "outcome-unknown")
    assert answer(settled) == expected
    assert server.effects == (2 if repeatable else 1)


# -- two at once ------------------------------------------------------------------------------------------------------


async def test_another_worker_waits_while_one_is_at_it_and_then_answers_from_the_inbox(
    journal: EffectJournal,
) -> None:
    server, record = Server(), command()
    reached, go = asyncio.Event(), asyncio.Event()

    async def step(name: str) -> None:
        if name == "before the effect":
            reached.set()
            await go.wait()

    first = asyncio.create_task(Process(journal, Handler(server, step)).deliver(record))
    await reached.wait()
    other = Process(journal, LookingHandler(server))
    for _ in range(3):
        with pytest.raises(DependencyBusyError, match="another attempt"):
            await other.deliver(record)
    go.set()
    (settled,) = await first
    (repeated,) = await other.deliver(record)
    assert repeated.repeated
    assert repeated.outputs == settled.outputs
    assert (server.effects, other.handler.batches) == (1, 0)


async def test_two_copies_in_one_process_do_not_run_at_once(journal: EffectJournal) -> None:
    server, record = Server(), command()
    reached, go = asyncio.Event(), asyncio.Event()

    async def step(name: str) -> None:
        if name == "before the effect":
            reached.set()
            await go.wait()

    process = Process(journal, Handler(server, step))
    first = asyncio.create_task(process.deliver(record))
    await reached.wait()
    with pytest.raises(DependencyBusyError, match="another executor"):
        await process.deliver(command(message_id=record.envelope.id))
    go.set()
    await first
    assert server.effects == 1


async def test_many_workers_and_the_same_messages_make_each_effect_once(journal: EffectJournal) -> None:
    server, records = Server(), [command(number) for number in range(12)]

    async def step(name: str) -> None:
        await asyncio.sleep(0.002)

    async def work(process: Process) -> list[tuple[StoredOutput, ...]]:
        outputs: list[tuple[StoredOutput, ...]] = []
        for record in records:
            while True:
                try:
                    (settled,) = await process.deliver(record)
                except DependencyBusyError:
                    await asyncio.sleep(0.005)
                else:
                    outputs.append(tuple(settled.outputs))
                    break
        return outputs

    processes = [Process(journal, Handler(server, step), step) for _ in range(4)]
    results = await asyncio.gather(*(work(process) for process in processes))
    assert set(server.calls.values()) == {1}
    assert len(server.calls) == len(records)
    assert all(result == results[0] for result in results)


async def test_one_that_stood_still_for_longer_than_its_lease_begins_nothing(journal: EffectJournal) -> None:
    server, record = Server(), command()

    async def step(name: str) -> None:
        if name == "after intending":
            await asyncio.sleep(CREATE.timeout_seconds + SHORT_MARGIN + 0.05)

    frozen = asyncio.create_task(Process(journal, Handler(server), step, margin=SHORT_MARGIN).deliver(record))
    with pytest.raises(DependencyBusyError, match="stood still"):
        await frozen
    assert server.effects == 0
    (settled,) = await Process(journal, Handler(server)).deliver(record)
    assert answer(settled) == ("create-completed", 1)


async def test_the_first_result_counts_when_a_zombie_comes_late(journal: EffectJournal) -> None:
    server, record = Server(), command()
    reached, go = asyncio.Event(), asyncio.Event()

    async def step(name: str) -> None:
        if name == "before concluding":
            reached.set()
            await go.wait()

    zombie = asyncio.create_task(Process(journal, Handler(server), step).deliver(record))
    await reached.wait()
    await end_leases(journal)
    (settled,) = await Process(journal, LookingHandler(server)).deliver(record)
    go.set()
    (late,) = await zombie
    assert late.repeated
    assert late.outputs == settled.outputs
    assert server.effects == 1


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [DependencyUnavailableError("down", dependency="consul"), TransientError("locked", dependency="consul")]
)
async def test_a_server_that_was_away_is_simply_asked_again_by_whoever_comes_first(
    journal: EffectJournal, error: Exception
) -> None:
    server, record = Server(), command()

    async def step(name: str) -> None:
        if name == "before the effect":
            raise error

    with pytest.raises(type(error)):
        await Process(journal, Handler(server, step)).deliver(record)
    other = LookingHandler(server)
    (settled,) = await Process(journal, other).deliver(record)
    assert answer(settled) == ("create-completed", 1)
    assert (server.effects, other.looks) == (1, 0)


async def test_an_effect_that_did_not_report_back_is_looked_for_without_waiting_for_the_lease(
    journal: EffectJournal,
) -> None:
    server, record = Server(), command()

    async def step(name: str) -> None:
        if name == "after the effect":
            raise OutcomeUnknownError("no answer within 5 s")

    with pytest.raises(OutcomeUnknownError):
        await Process(journal, Handler(server, step)).deliver(record)
    other = LookingHandler(server)
    (settled,) = await Process(journal, other).deliver(record)
    assert answer(settled) == ("create-completed", 1)
    assert (server.effects, other.looks) == (1, 1)


async def test_an_attempt_cut_by_its_deadline_may_still_go_on_and_is_looked_for_when_its_lease_is_over(
    journal: EffectJournal,
) -> None:
    server, record = Server(), command()
    handler, made = LookingHandler(server), asyncio.Event()

    async def hang(name: str) -> None:
        if name == "after the effect":
            made.set()
            await asyncio.Event().wait()

    handler._step = hang
    process = Process(journal, handler)
    attempt = asyncio.create_task(process.deliver(record))
    await made.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    handler._step = go_on
    with pytest.raises(DependencyBusyError, match="another attempt"):
        await process.deliver(record)
    await end_leases(journal)
    (settled,) = await process.deliver(record)
    assert answer(settled) == ("create-completed", 1)
    assert (server.effects, handler.looks) == (1, 1)


async def test_a_refusal_of_the_server_is_the_answer(journal: EffectJournal) -> None:
    server, record = Server(), command()

    async def step(name: str) -> None:
        if name == "before the effect":
            raise BusinessError("no such path", code="not-found")

    (settled,) = await Process(journal, Handler(server, step)).deliver(record)
    assert answer(settled) == ("create-failed", "not-found")
    (again,) = await Process(journal, Handler(server)).deliver(record)
    assert again.repeated
    assert again.outputs == settled.outputs
    assert server.effects == 0


async def test_a_result_that_could_not_be_stored_is_stored_later_and_nothing_is_done_or_looked_for_again(
    journal: EffectJournal,
) -> None:
    server, record = Server(), command()
    away = True

    async def step(name: str) -> None:
        if away and name in ("before concluding", "giving up"):
            raise DependencyUnavailableError("down", dependency="postgres")

    handler = LookingHandler(server)
    process = Process(journal, handler, step)
    for _ in range(2):
        with pytest.raises(DependencyUnavailableError):
            await process.deliver(record)
    away = False
    (settled,) = await process.deliver(record)
    assert answer(settled) == ("create-completed", 1)
    assert not settled.failed
    assert (server.effects, handler.looks) == (1, 0)


async def test_giving_up_on_a_record_whose_effect_was_made_says_that_it_was_made(journal: EffectJournal) -> None:
    server, record = Server(), command()
    broken = True

    async def step(name: str) -> None:
        if broken and name == "before concluding":
            raise TransientError("lock time-out", dependency="postgres")

    process = Process(journal, Handler(server), step)
    with pytest.raises(TransientError):
        await process.deliver(record)
    broken = False
    settled = await process.settle(record, OperationFailed("transient", "three times"))
    assert answer(settled) == ("create-completed", 1)
    assert not settled.failed


async def test_a_failure_made_the_outcome_stays_it(journal: EffectJournal) -> None:
    server, record = Server(), command()

    async def step(name: str) -> None:
        if name == "before the effect":
            raise RuntimeError("what is this")

    process = Process(journal, LookingHandler(server, step))
    with pytest.raises(RuntimeError):
        await process.deliver(record)
    settled = await process.settle(record, OperationFailed("internal-error", "failed"))
    assert settled.failed
    (again,) = await Process(journal, Handler(server)).deliver(record)
    assert again.repeated
    assert answer(again) == ("create-failed", "internal-error")


async def test_of_a_batch_what_is_done_stays_done_and_what_was_not_begun_is_free(journal: EffectJournal) -> None:
    server = Server()
    records = [command(number) for number in range(3)]
    failing = True

    async def step(name: str) -> None:
        if failing and name == "before the effect" and server.effects == 1:
            raise DependencyUnavailableError("down", dependency="consul")

    with pytest.raises(DependencyUnavailableError):
        await Process(journal, Handler(server, step)).deliver(*records)
    other = LookingHandler(server)
    settled = await Process(journal, other).deliver(*records)
    by_number = {one.record.offset: one for one in settled}
    assert [by_number[number].repeated for number in range(3)] == [True, False, False]
    assert set(server.calls.values()) == {1}
    assert (server.effects, other.looks) == (3, 0)


async def test_an_answer_that_is_too_large_is_a_failed_one_and_the_effect_stands(journal: EffectJournal) -> None:
    server, record = Server(), command(text="x" * 2000)
    (settled,) = await Process(journal, Handler(server), answer_bytes=1500).deliver(record)
    assert answer(settled) == ("create-failed", "answer-too-large")
    (again,) = await Process(journal, Handler(server)).deliver(record)
    assert again.repeated
    assert server.effects == 1


async def test_an_operation_without_a_journal_is_told_what_it_lacks() -> None:
    process = Process(MemoryJournal(), Handler(Server()), needs=("consul",))
    with pytest.raises(ConfigurationError, match="needs a journal"):
        await process.deliver(command())


async def test_at_least_once_needs_no_journal() -> None:
    class PlainHandler(Handler):
        async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Any]:
            return list(requests)

    process = Process(MemoryJournal(), PlainHandler(Server()), guarantee="at_least_once", needs=("consul",))
    (settled,) = await process.deliver(command())
    assert answer(settled) == ("create-completed", 1)


# -- the inbox comes first --------------------------------------------------------------------------------------------


async def test_a_done_command_is_answered_done_after_it_expired(journal: EffectJournal) -> None:
    server, message_id = Server(), original_id()
    fresh = command(message_id=message_id, expires=60.0)
    (settled,) = await Process(journal, Handler(server)).deliver(fresh)
    late = command(message_id=message_id, expires=-60.0)
    (again,) = await Process(journal, Handler(server)).deliver(late)
    assert again.repeated
    assert again.outputs == settled.outputs


async def test_a_command_that_expired_before_it_was_begun_is_not_run(journal: EffectJournal) -> None:
    server = Server()
    (settled,) = await Process(journal, Handler(server)).deliver(command(expires=-60.0))
    assert answer(settled) == ("create-failed", "expired")
    assert server.effects == 0


@pytest.mark.parametrize(("point", "expected"), [("after the effect", 1), ("before the effect", "expired")])
async def test_a_command_that_expired_after_a_crash_is_looked_for_first(
    journal: EffectJournal, point: str, expected: object
) -> None:
    server, message_id = Server(), original_id()
    await die_at(point, journal, LookingHandler(server), command(message_id=message_id, expires=60.0))
    await end_leases(journal)
    late = command(message_id=message_id, expires=-60.0)
    (settled,) = await Process(journal, LookingHandler(server)).deliver(late)
    assert answer(settled)[1] == expected


async def test_a_refusal_by_a_rate_limit_counts_only_for_what_is_not_done(journal: EffectJournal) -> None:
    server, record, other = Server(), command(1), command(2)
    await Process(journal, Handler(server)).deliver(record)
    for one in (record, other):
        one.refusal = RateLimitedError("too fast")
    settled = await Process(journal, Handler(server)).deliver(record, other)
    assert sorted(answer(one) for one in settled) == [("create-completed", 1), ("create-failed", "rate-limited")]
    assert server.effects == 1


async def test_one_id_with_another_payload_is_refused_before_and_after_the_result(journal: EffectJournal) -> None:
    server, message_id = Server(), original_id()
    first, other = command(1, message_id=message_id), command(2, message_id=message_id)
    await die_at("before the effect", journal, LookingHandler(server), first)
    await end_leases(journal)
    (settled,) = await Process(journal, LookingHandler(server)).deliver(other)
    assert settled.refused is not None
    await Process(journal, LookingHandler(server)).deliver(first)
    (settled,) = await Process(journal, LookingHandler(server)).deliver(other)
    assert settled.refused is not None
    assert server.effects == 1


# -- redrives ---------------------------------------------------------------------------------------------------------


async def test_a_redrive_looks_first_and_then_runs_with_the_same_key_although_it_expired(
    journal: EffectJournal,
) -> None:
    server, message_id = Server(), original_id()
    lost = command(message_id=message_id, expires=-60.0)
    process = Process(journal, LookingHandler(server))
    await process.settle(lost, OperationFailed("internal-error", "dead"))
    redriven = command(message_id=message_id, expires=-60.0, redrive=original_id())
    (settled,) = await process.deliver(redriven)
    assert answer(settled) == ("create-completed", 1)
    assert list(server.calls) == [message_id]
    once_more = command(message_id=message_id, redrive=original_id())
    handler = LookingHandler(server)
    (settled,) = await Process(journal, handler).deliver(once_more)
    assert answer(settled) == ("create-completed", 1)
    assert (server.effects, handler.looks, handler.batches) == (1, 1, 0)


async def test_a_redrive_of_what_cannot_look_runs_since_somebody_wanted_it_to(journal: EffectJournal) -> None:
    server, redriven = Server(), command(redrive=original_id())
    (settled,) = await Process(journal, Handler(server)).deliver(redriven)
    assert answer(settled) == ("create-completed", 1)
    (again,) = await Process(journal, Handler(server)).deliver(redriven)
    assert again.repeated
    assert server.effects == 1


def test_a_key_is_the_message_id_where_that_is_unique_and_else_made_of_both_parts() -> None:
    message_id = original_id()
    assert idempotency_key(command(message_id=message_id).envelope) == message_id
    order = command(message_id="order-7").envelope
    other = msgspec.structs.replace(order, source="/elsewhere")
    assert uuid.UUID(idempotency_key(order)).version == 5
    assert idempotency_key(order) != idempotency_key(other)
    assert idempotency_key(order) == idempotency_key(command(message_id="order-7").envelope)
