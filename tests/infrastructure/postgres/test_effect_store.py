from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg
import pytest

from omnibase_infra.shared.core.errors import (
    BusinessError,
    DependencyBusyError,
    DependencyUnavailableError,
    SchemaMissingError,
    TransientError,
)
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    EffectSession,
    EffectStore,
    Fresh,
    InboxMessage,
    IsolationLevel,
    Reused,
    StoredOutput,
)
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.postgres.inbox import GroupInbox, inbox_day
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase, PostgresServer

MessageFactory = Callable[..., InboxMessage]

RESULTS = "onex.evt.postgres-adapter.results.v1"
GROUP = "test.omnibase-infra.postgres-adapter.consume.v1"
LAST_SECOND_OF_A_DAY = 1_767_225_599_000  # 2025-12-31T23:59:59Z


def output(value: bytes = b"{}", key: bytes | None = b"order-1") -> StoredOutput:
    return StoredOutput(RESULTS, key, value)


@pytest.fixture
async def counter(postgres_test_db: PostgresDatabase) -> str:
    """A table in which each effect adds a row."""
    connection = await postgres_test_db.connect()
    await connection.execute("CREATE TABLE effect (message_id text NOT NULL)")
    await connection.close()
    return "effect"


async def count(pool: PostgresConnectionPool, table: str) -> int:
    async with pool.acquire() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def process(store: PostgresEffectStore, message: InboxMessage, *outputs: StoredOutput) -> object:
    """Do what the runtime does with one message; the effect is a row."""
    async with store.session() as session:
        (claim,) = await session.claim([message])
        if isinstance(claim, Fresh):
            await session.connection.execute("INSERT INTO effect VALUES ($1)", message.message_id)
            await session.store([(message, outputs)])
        return claim


async def test_it_implements_the_ports(store: PostgresEffectStore) -> None:
    port: EffectStore = store
    assert port.dependency == "postgres"
    await port.ping()
    async with port.session() as session:
        session_port: EffectSession = session
        assert await session_port.claim([]) == []
        await session_port.store([])


async def test_a_redelivery_gets_the_stored_outputs_byte_for_byte_and_has_no_effect(
    store: PostgresEffectStore,
    postgres_connection_pool: PostgresConnectionPool,
    counter: str,
    new_message: MessageFactory,
) -> None:
    message = new_message()
    outputs = (
        output(bytes(range(256)) * 40),
        output(b"", key=None),
        StoredOutput("onex.intent.x.y.v1", b"\x00\xff", b"\x00"),
        output(os.urandom(100_000)),
    )
    assert isinstance(await process(store, message, *outputs), Fresh)
    assert await process(store, message) == AlreadyProcessed(outputs)
    assert await process(store, message) == AlreadyProcessed(outputs)
    assert await count(postgres_connection_pool, counter) == 1


async def test_a_message_without_outputs_is_remembered_too(
    store: PostgresEffectStore, counter: str, new_message: MessageFactory
) -> None:
    message = new_message()
    await process(store, message)
    assert await process(store, message) == AlreadyProcessed(())


async def test_claims_come_back_in_the_order_of_the_messages(
    store: PostgresEffectStore, new_message: MessageFactory
) -> None:
    known = [new_message() for _ in range(20)]
    async with store.session() as session:
        await session.claim(known)
        await session.store([(message, [output(message.message_id.encode())]) for message in known])
    fresh = [new_message() for _ in range(20)]
    mixed = [message for pair in zip(known, fresh, strict=True) for message in pair]
    async with store.session() as session:
        claims = await session.claim(mixed)
    expected = [
        claim for message in known for claim in (AlreadyProcessed((output(message.message_id.encode()),)), Fresh())
    ]
    assert claims == expected


async def test_one_identity_with_another_payload_is_reused(
    store: PostgresEffectStore, counter: str, new_message: MessageFactory
) -> None:
    message = new_message(message_id="order-7", payload_hash=b"a" * 16)
    await process(store, message)
    other = new_message(message_id="order-7", payload_hash=b"b" * 16)
    assert await process(store, other) == Reused()
    assert isinstance(await process(store, message), AlreadyProcessed)


@pytest.mark.parametrize("change", [{"source": "/omnibase/test/other"}, {"redrive_id": "r-1"}, {"message_id": "2"}])
async def test_source_id_and_redrive_together_make_the_identity(
    store: PostgresEffectStore, counter: str, new_message: MessageFactory, change: dict[str, str]
) -> None:
    same = {"message_id": "1", "payload_hash": b"p" * 16}
    await process(store, new_message(**same))
    assert await process(store, new_message(**(same | change))) == Fresh()
    assert isinstance(await process(store, new_message(**(same | change))), AlreadyProcessed)


async def test_consumer_groups_have_inboxes_of_their_own(
    postgres_connection_pool: PostgresConnectionPool, counter: str, new_message: MessageFactory
) -> None:
    message = new_message()
    for group in ("test.a.b.consume.v1", "test.a.c.consume.v1"):
        store = PostgresEffectStore(postgres_connection_pool, group)
        assert await process(store, message) == Fresh()
        again = PostgresEffectStore(postgres_connection_pool, group)  # as after a restart
        assert isinstance(await process(again, message), AlreadyProcessed)
    assert await count(postgres_connection_pool, "omnibase.consumer_group") == 2


async def test_a_redelivery_after_midnight_finds_its_row(
    store: PostgresEffectStore,
    postgres_connection_pool: PostgresConnectionPool,
    counter: str,
    new_message: MessageFactory,
) -> None:
    message = new_message(day_ms=LAST_SECOND_OF_A_DAY)
    await process(store, message, output(b"before midnight"))
    # However late it comes, the message's own time has not changed.
    assert await process(store, message) == AlreadyProcessed((output(b"before midnight"),))
    async with postgres_connection_pool.acquire() as connection:
        assert await connection.fetchval("SELECT day FROM omnibase.inbox") == date(2025, 12, 31)
        assert await connection.fetchval("SELECT day FROM omnibase.outbox") == date(2025, 12, 31)
        assert await connection.fetchval("SELECT processed_at FROM omnibase.inbox") > datetime(2026, 1, 1, tzinfo=UTC)


def test_the_day_is_utc_and_ends_with_its_last_millisecond(new_message: MessageFactory) -> None:
    assert inbox_day(new_message(day_ms=LAST_SECOND_OF_A_DAY + 999)) == date(2025, 12, 31)
    assert inbox_day(new_message(day_ms=LAST_SECOND_OF_A_DAY + 1000)) == date(2026, 1, 1)
    assert inbox_day(new_message(day_ms=0)) == date(1970, 1, 1)


def key_of(message: InboxMessage, timed_since_ms: int = 0) -> UUID:
    return GroupInbox(GROUP, 1, timed_since_ms).key(message)


def test_the_recipe_of_the_inbox_key_never_changes(new_message: MessageFactory) -> None:
    message = new_message(source="/omnibase/dev/client", message_id="018f4a7e-0000-7000-8000-000000000000")
    assert key_of(message) == UUID("5a7f74eb-c815-d35c-a276-a595b9567b45")
    redriven = new_message(source="/omnibase/dev/client", message_id=message.message_id, redrive_id="r")
    assert key_of(redriven) == UUID("7bd9930d-8169-ff07-a8a3-1e32e862bf85")


def test_the_key_of_an_id_that_holds_its_time_begins_with_the_second_of_its_day(new_message: MessageFactory) -> None:
    moment = LAST_SECOND_OF_A_DAY + 7
    message = new_message(
        source="/omnibase/dev/client",
        message_id="018f4a7e-0000-7000-8000-000000000000",
        day_ms=moment,
        timed=True,
    )
    assert key_of(message) == UUID("01517feb-c815-d35c-a276-a595b9567b45")
    assert 0x01517F == 86_399
    # Rows of the days before a database was migrated keep theirs.
    assert key_of(message, moment + 1) == UUID("5a7f74eb-c815-d35c-a276-a595b9567b45")


def test_the_key_tells_apart_what_only_concatenates_alike(new_message: MessageFactory) -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("1:a", "b"), ("a1:", "b")]
    keys = {key_of(new_message(source=source, message_id=ident)) for source, ident in pairs}
    assert len(keys) == len(pairs)


async def test_an_error_leaves_nothing_behind(
    store: PostgresEffectStore,
    postgres_connection_pool: PostgresConnectionPool,
    counter: str,
    new_message: MessageFactory,
) -> None:
    message = new_message()

    async def fail() -> None:
        async with store.session() as session:
            await session.claim([message])
            await session.connection.execute("INSERT INTO effect VALUES ($1)", message.message_id)
            await session.store([(message, [output()])])
            raise RuntimeError("after everything")

    with pytest.raises(RuntimeError, match="after everything"):
        await fail()
    for table in ("effect", "omnibase.inbox", "omnibase.outbox"):
        assert await count(postgres_connection_pool, table) == 0
    assert await process(store, message) == Fresh()


async def test_a_cancelled_session_leaves_nothing_behind(
    store: PostgresEffectStore,
    postgres_connection_pool: PostgresConnectionPool,
    counter: str,
    new_message: MessageFactory,
) -> None:
    message = new_message()
    claimed = asyncio.Event()

    async def hang() -> None:
        async with store.session() as session:
            await session.claim([message])
            claimed.set()
            await session.connection.execute("SELECT pg_sleep(30)")

    task = asyncio.create_task(hang())
    await claimed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count(postgres_connection_pool, "omnibase.inbox") == 0
    assert await process(store, message) == Fresh()
    assert postgres_connection_pool.state().in_use == 0


async def test_a_swallowed_sql_error_does_not_end_in_a_commit(
    store: PostgresEffectStore, counter: str, new_message: MessageFactory
) -> None:
    message = new_message()

    async def swallow() -> None:
        async with store.session() as session:
            await session.claim([message])
            await session.store([(message, [output()])])
            with contextlib.suppress(asyncpg.PostgresError):
                await session.connection.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await swallow()
    assert await process(store, message) == Fresh()


async def test_a_constraint_that_only_the_commit_checks_is_a_business_error(
    store: PostgresEffectStore, postgres_connection_pool: PostgresConnectionPool, new_message: MessageFactory
) -> None:
    async with postgres_connection_pool.acquire() as connection:
        await connection.execute("CREATE TABLE deferred (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    message = new_message()

    async def violate() -> None:
        async with store.session() as session:
            await session.claim([message])
            await session.connection.execute("INSERT INTO deferred VALUES (4711), (4711)")

    with pytest.raises(BusinessError) as caught:
        await violate()
    assert caught.value.instance_code == "constraint-violated"
    assert caught.value.__suppress_context__, "a traceback would show the driver's text, which holds the values"
    assert await count(postgres_connection_pool, "omnibase.inbox") == 0


async def test_two_connections_race_for_one_message_and_one_wins(
    store: PostgresEffectStore,
    postgres_connection_pool: PostgresConnectionPool,
    counter: str,
    new_message: MessageFactory,
) -> None:
    for _ in range(30):
        message = new_message()
        claims = await asyncio.gather(*(process(store, message, output(message.message_id.encode())) for _ in range(4)))
        assert sum(isinstance(claim, Fresh) for claim in claims) == 1
        losers = [claim for claim in claims if not isinstance(claim, Fresh)]
        assert losers == [AlreadyProcessed((output(message.message_id.encode()),))] * 3
    assert await count(postgres_connection_pool, counter) == 30


async def test_the_waiting_one_of_a_race_gets_the_message_when_the_first_rolls_back(
    store: PostgresEffectStore, counter: str, new_message: MessageFactory
) -> None:
    message = new_message()
    waiting: list[asyncio.Task[object]] = []

    async def fail_while_another_waits() -> None:
        async with store.session() as session:
            await session.claim([message])
            waiting.append(asyncio.create_task(process(store, message)))
            await _eventually_waits_for_a_lock(session)
            raise RuntimeError("the first one fails")

    with pytest.raises(RuntimeError):
        await fail_while_another_waits()
    assert await waiting[0] == Fresh()


async def _eventually_waits_for_a_lock(session: EffectSession) -> None:
    async with asyncio.timeout(10):
        while not await session.connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)


async def test_waiting_for_a_frozen_worker_ends_with_an_error_that_spends_no_attempt(
    postgres_test_db: PostgresDatabase, counter: str, new_message: MessageFactory
) -> None:
    async with PostgresConnectionPool(postgres_test_db.dsn, PoolOptions(lock_timeout=0.1)) as pool:
        store = PostgresEffectStore(pool, GROUP)
        message = new_message()
        async with store.session() as session:
            await session.claim([message])
            with pytest.raises(DependencyBusyError, match="another delivery"):
                await process(store, message)


async def test_a_frozen_worker_loses_its_claims(
    postgres_test_db: PostgresDatabase, counter: str, new_message: MessageFactory
) -> None:
    message = new_message()
    options = PoolOptions(idle_in_transaction_timeout=0.2)
    async with PostgresConnectionPool(postgres_test_db.dsn, options) as pool:
        store = PostgresEffectStore(pool, GROUP)

        async def freeze() -> None:
            async with store.session() as session:
                await session.claim([message])
                assert await process(store, message) == Fresh()  # waits for the server to end the other session
                await session.store([(message, [output()])])

        with pytest.raises((TransientError, DependencyUnavailableError)):
            await freeze()
        assert isinstance(await process(store, message), AlreadyProcessed)


async def test_batches_that_overlap_in_opposite_order_do_not_deadlock(
    store: PostgresEffectStore, postgres_connection_pool: PostgresConnectionPool, new_message: MessageFactory
) -> None:
    for _ in range(10):
        messages = [new_message() for _ in range(200)]

        async def claim(batch: list[InboxMessage]) -> int:
            async with store.session() as session:
                claims = await session.claim(batch)
                fresh = [message for message, claim in zip(batch, claims, strict=True) if isinstance(claim, Fresh)]
                await session.store([(message, [output()]) for message in fresh])
                return len(fresh)

        counts = await asyncio.gather(claim(messages), claim(messages[::-1]), claim(messages[50:]))
        assert sum(counts) == 200
    assert await count(postgres_connection_pool, "omnibase.outbox") == 2000


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_the_isolation_level_is_the_one_asked_for(store: PostgresEffectStore, isolation: IsolationLevel) -> None:
    async with store.session(isolation) as session:
        assert await session.connection.fetchval("SHOW transaction_isolation") == isolation


async def test_a_claim_that_a_newer_snapshot_would_see_is_transient_at_higher_isolation(
    store: PostgresEffectStore, counter: str, new_message: MessageFactory
) -> None:
    message = new_message()

    async def claim_behind_the_times() -> None:
        async with store.session("serializable") as session:
            await session.connection.fetchval("SELECT count(*) FROM effect")  # fixes the snapshot
            await process(store, message)
            await session.claim([message])

    with pytest.raises(TransientError, match="40001"):
        await claim_behind_the_times()


async def test_two_messages_of_one_identity_in_a_claim_are_refused(
    store: PostgresEffectStore, new_message: MessageFactory
) -> None:
    message = new_message()
    with pytest.raises(ValueError, match="one identity"):
        async with store.session() as session:
            await session.claim([message, new_message(message_id=message.message_id, offset=99)])


async def test_outputs_are_stored_only_for_messages_claimed_here_and_once(
    store: PostgresEffectStore, new_message: MessageFactory
) -> None:
    message = new_message()
    async with store.session() as session:
        await session.claim([message])
        await session.store([(message, [output()])])
        with pytest.raises(ValueError, match="not claimed"):
            await session.store([(message, [output()])])
        with pytest.raises(ValueError, match="not claimed"):
            await session.store([(new_message(), [output()])])
    async with store.session() as session:
        assert isinstance((await session.claim([message]))[0], AlreadyProcessed)
        with pytest.raises(ValueError, match="not claimed"):
            await session.store([(message, [output()])])


async def test_a_database_without_the_schema_says_what_to_run(
    postgres_container: PostgresServer, new_message: MessageFactory
) -> None:
    async with PostgresConnectionPool(postgres_container.dsn_of("template1")) as pool:
        store = PostgresEffectStore(pool, GROUP)
        with pytest.raises(SchemaMissingError, match="omninode migrate"):
            await store.check_schema()
        with pytest.raises(DependencyUnavailableError, match="omninode migrate"):
            async with store.session():
                pass


async def test_a_migrated_database_passes_the_check(store: PostgresEffectStore) -> None:
    await store.check_schema()


async def test_claims_and_stores_are_measured(
    store: PostgresEffectStore,
    postgres_connection_pool: PostgresConnectionPool,
    counter: str,
    new_message: MessageFactory,
) -> None:
    await process(store, new_message(), output())
    totals = postgres_connection_pool.query_metrics.snapshot()
    assert totals["claim_inbox"].calls == 1
    assert totals["store_outbox"].calls == 1
    assert totals["claim_inbox"].seconds > 0
