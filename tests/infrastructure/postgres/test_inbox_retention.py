"""Inbox and outbox by day: messages find their day, days come and go, and nobody's work waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError, TransientError
from omnibase_infra.shared.core.ports import AlreadyProcessed, Fresh, Held, InboxMessage, StoredOutput
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import TopicSettings, WorkerSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.postgres import day_partitions, outbox
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.day_partitions import TABLES, BusyError, add_day, read_partitions
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.postgres.inbox import GroupInbox, claim, find_inbox, find_or_add_group
from omnibase_infra.shared.postgres.inbox_retention import (
    DEFAULT_KEEP_DAYS,
    InboxRetention,
    RetentionOptions,
    RetentionReport,
    keep_days_of,
    maintain,
)
from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase, PostgresServer, fresh_database

MessageFactory = Callable[..., InboxMessage]

GROUP = "test.omnibase-infra.postgres-adapter.consume.v1"
OUTPUTS = (StoredOutput("onex.evt.postgres-adapter.results.v1", b"k", b"{}"),)
NEVER = 2**62  # in milliseconds
KEEP = RetentionOptions(keep_days=5)


def today() -> date:
    return datetime.now(UTC).date()


def day_ms(day: date, hour: float = 12.0) -> int:
    return int((datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + hour * 3600) * 1000)


def spec(*subscribe: str, settings: tuple[TopicSettings, ...] = ()) -> WorkerSpec:
    return WorkerSpec(
        generation=1,
        node="shop",
        worker="shop",
        class_name="Shop",
        version="1.0.0",
        contract_sha256="0" * 64,
        description="",
        node_type="effect",
        subscribe=subscribe or ("onex.cmd.shop.requests.v1",),
        publish=(),
        topic_settings=settings,
    )


@pytest.fixture
async def database_connection(postgres_test_db: PostgresDatabase) -> AsyncIterator[asyncpg.Connection]:
    connection = await postgres_test_db.connect()
    yield connection
    await connection.close()


@pytest.fixture
def filled_database(postgres_container: PostgresServer) -> Iterator[PostgresDatabase]:
    """A database as a release before partitions left it."""
    with fresh_database(postgres_container) as database:
        yield database


async def process(store: PostgresEffectStore, message: InboxMessage) -> object:
    async with store.session() as session:
        (claim,) = await session.claim([message])
        if isinstance(claim, Fresh):
            await session.store([(message, OUTPUTS)])
        return claim


async def place_of(connection: asyncpg.Connection, table: str, message: InboxMessage) -> list[str]:
    """Return the partitions in which a table holds rows of the message."""
    if table == "inbox":
        rows = await connection.fetch(
            "SELECT tableoid::regclass::text FROM omnibase.inbox WHERE message_id = $1", message.message_id
        )
    else:
        rows = await connection.fetch(
            "SELECT o.tableoid::regclass::text FROM omnibase.outbox AS o JOIN omnibase.inbox AS i "
            "USING (day, message_key) WHERE i.message_id = $1",
            message.message_id,
        )
    return [row[0] for row in rows]


async def make_old(connection: asyncpg.Connection, message: InboxMessage, days: float) -> None:
    await connection.execute(
        "UPDATE omnibase.inbox SET processed_at = now() - $2::interval WHERE message_id = $1",
        message.message_id,
        timedelta(days=days),
    )


async def names(connection: asyncpg.Connection) -> set[str]:
    return {one.name for one in await read_partitions(connection)}


# -- where a message lies -----------------------------------------------------------------------------------------------


async def test_a_redelivery_after_midnight_finds_the_row_in_the_day_of_the_message(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    yesterday = today() - timedelta(days=1)
    message = new_message(day_ms=day_ms(yesterday, 23.9999))
    assert await process(store, message) == Fresh()
    assert await process(store, message) == AlreadyProcessed(OUTPUTS)
    for table in TABLES:
        assert await place_of(database_connection, table, message) == [f"omnibase.{table}_{yesterday:%Y%m%d}"]


@pytest.mark.parametrize("moment", [0, 253_402_128_000_000, 4_000_000_000_000])
async def test_a_message_of_an_absurd_day_is_remembered_like_any_other(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory, moment: int
) -> None:
    message = new_message(day_ms=moment)
    assert await process(store, message) == Fresh()
    assert await process(store, message) == AlreadyProcessed(OUTPUTS)
    for table in TABLES:
        assert await place_of(database_connection, table, message) == [f"omnibase.{table}_default"]


async def test_one_batch_may_hold_messages_of_many_days(
    store: PostgresEffectStore, new_message: MessageFactory
) -> None:
    messages = [new_message(day_ms=day_ms(today() - timedelta(days=number))) for number in range(-5, 30)]
    async with store.session() as session:
        assert await session.claim(messages) == [Fresh()] * len(messages)
        await session.store([(message, OUTPUTS) for message in messages])
    async with store.session() as session:
        assert await session.claim(messages) == [AlreadyProcessed(OUTPUTS)] * len(messages)


async def test_a_claim_and_its_repeat_touch_the_partition_of_their_day_alone(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    for number in range(2, 42):
        await add_day(database_connection, today() - timedelta(days=number), TABLES, 1.0)
    messages = [new_message() for _ in range(500)]
    # Often enough for PostgreSQL to think about a plan without values.
    for _ in range(10):
        async with store.session() as session:
            await session.claim(messages)
            locked = await session.connection.fetch(
                "SELECT DISTINCT relation::regclass::text AS name FROM pg_locks "
                "WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation::regclass::text LIKE '%box\\_2%'"
            )
            leaves = {row["name"] for row in locked if "pkey" not in row["name"]}
            assert leaves <= {f"omnibase.{table}_{today():%Y%m%d}" for table in TABLES}


async def test_claims_stay_fast_plans_after_many_repeats(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    """What is prepared in the session, after PostgreSQL settled for a plan, reads no partition but the day's."""
    message = new_message()
    async with store.session() as session:
        await session.claim([message])
        await session.store([(message, OUTPUTS)])
    async with store.session() as session:
        for _ in range(10):
            await session.claim([message])
        prepared = await session.connection.fetch("SELECT name, statement FROM pg_prepared_statements")
        (name,) = [row["name"] for row in prepared if "LEFT JOIN omnibase.outbox" in row["statement"]]
        key = session.inbox.key(message)
        rows = await session.connection.fetch(f"EXPLAIN EXECUTE {name} ('{{{key}}}')")
    plan = "\n".join(row[0] for row in rows)
    assert f"inbox_{today():%Y%m%d}" in plan
    assert f"outbox_{today():%Y%m%d}" in plan
    assert "Append" not in plan
    assert "default" not in plan


# -- the migration of what is there -----------------------------------------------------------------------------------


async def test_a_filled_database_is_converted_and_every_message_is_still_known(
    filled_database: PostgresDatabase, new_message: MessageFactory
) -> None:
    await migrate(filled_database.dsn, [infrastructure_migrations()[:1]])
    days = [date(2020, 1, 1), today() - timedelta(days=40), today() - timedelta(days=1), today()]
    ahead = [today() + timedelta(days=1), today() + timedelta(days=300)]
    messages = [new_message(day_ms=day_ms(day), timed=True) for day in days + ahead]
    await _store_as_before(filled_database, messages)

    reports: list[RetentionReport] = []
    await migrate(filled_database.dsn, [infrastructure_migrations()], report_days=reports.append)

    connection = await filled_database.connect()
    places = [(await place_of(connection, "inbox", message))[0] for message in messages]
    expected = [*["inbox_before"] * 4, f"inbox_{ahead[0]:%Y%m%d}", "inbox_default"]
    assert places == [f"omnibase.{name}" for name in expected]
    assert reports[0].added
    assert not reports[0].kept
    await connection.close()
    async with PostgresConnectionPool(filled_database.dsn, PoolOptions()) as pool:
        store = PostgresEffectStore(pool, GROUP)
        for message in messages:
            assert await process(store, message) == AlreadyProcessed(OUTPUTS)


async def _store_as_before(database: PostgresDatabase, messages: list[InboxMessage]) -> None:
    """Write the rows that an earlier release wrote."""
    connection = await database.connect()
    group = GroupInbox(GROUP, await find_or_add_group(connection, GROUP), NEVER)
    keys = [group.key(message) for message in messages]
    assert await claim(connection, group.number, messages, keys) == [Fresh()] * len(messages)
    await outbox.store(connection, [(message, key, OUTPUTS) for message, key in zip(messages, keys, strict=True)])
    await connection.close()


async def test_keys_of_a_filled_database_change_from_a_day_on_of_which_it_has_no_rows(
    filled_database: PostgresDatabase, new_message: MessageFactory
) -> None:
    await migrate(filled_database.dsn, [infrastructure_migrations()[:3]])
    days = [today() + timedelta(days=number) for number in range(-1, 4)]
    messages = [new_message(day_ms=day_ms(day), timed=True) for day in days]
    group = GroupInbox(GROUP, 1, day_ms(today() + timedelta(days=2), 0.0))
    connection = await filled_database.connect()
    await connection.execute("INSERT INTO omnibase.consumer_group (name) VALUES ($1)", GROUP)
    old = GroupInbox(GROUP, 1, NEVER)
    for message in messages[:3]:
        await claim(connection, 1, [message], [old.key(message)])
    await migrate(filled_database.dsn, [infrastructure_migrations()])
    assert await find_inbox(connection, GROUP) == group
    assert [group.key(message) == old.key(message) for message in messages] == [True, True, True, False, False]
    await connection.close()
    async with PostgresConnectionPool(filled_database.dsn, PoolOptions()) as pool:
        store = PostgresEffectStore(pool, GROUP)
        assert [await process(store, message) for message in messages] == [AlreadyProcessed(())] * 3 + [Fresh()] * 2


async def test_a_new_database_has_keys_by_time_from_the_first_day(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    assert (await find_inbox(database_connection, GROUP)).timed_since_ms < 0
    messages = [new_message(day_ms=day_ms(today(), hour), timed=True) for hour in (9.0, 3.0, 6.0)]
    for message in messages:
        assert await process(store, message) == Fresh()
        assert await process(store, message) == AlreadyProcessed(OUTPUTS)
    rows = await database_connection.fetch("SELECT message_id FROM omnibase.inbox ORDER BY message_key")
    assert [row[0] for row in rows] == [messages[index].message_id for index in (1, 2, 0)]


async def test_an_empty_database_keeps_no_table_for_the_days_before(database_connection: asyncpg.Connection) -> None:
    partitions = await read_partitions(database_connection)
    days = [today() + timedelta(days=number) for number in range(-1, 4)]
    assert {(one.table, one.lower) for one in partitions} == {(table, day) for table in TABLES for day in days}


async def test_the_table_of_the_days_before_goes_when_its_last_day_has_outlived_its_use(
    filled_database: PostgresDatabase, new_message: MessageFactory
) -> None:
    await migrate(filled_database.dsn, [infrastructure_migrations()[:1]])
    await _store_as_before(filled_database, [new_message()])
    await migrate(filled_database.dsn, [infrastructure_migrations()])
    connection = await filled_database.connect()
    assert "inbox_before" in await names(connection)
    before = next(one for one in await read_partitions(connection) if one.name == "inbox_before")
    cutoff = datetime.now(UTC) + timedelta(days=1)
    assert await day_partitions.drop_days(connection, before, await read_partitions(connection), cutoff, 1.0) == 0
    assert not {"inbox_before", "outbox_before"} & await names(connection)
    await connection.close()


# -- days come --------------------------------------------------------------------------------------------------------


async def test_days_are_added_ahead_and_a_second_look_finds_nothing_to_do(
    database_connection: asyncpg.Connection,
) -> None:
    options = RetentionOptions(ahead_days=10)
    first = await maintain(database_connection, options)
    assert len(first.added) == 7 * len(TABLES)
    assert first.days == 12
    again = await maintain(database_connection, options)
    assert again == RetentionReport(days=12)


async def test_several_that_maintain_at_once_add_each_day_once(postgres_test_db: PostgresDatabase) -> None:
    connections = [await postgres_test_db.connect() for _ in range(4)]
    options = RetentionOptions(ahead_days=30)
    reports = await asyncio.gather(*(maintain(connection, options) for connection in connections))
    reports.append(await maintain(connections[0], options))
    added = [name for report in reports for name in report.added]
    assert len(added) == len(set(added)) == 27 * len(TABLES)
    assert not [reason for report in reports for reason in report.kept]
    for connection in connections:
        await connection.close()


async def test_a_change_that_somebody_made_meanwhile_is_left_to_them(database_connection: asyncpg.Connection) -> None:
    day = today() - timedelta(days=9)
    await add_day(database_connection, day, TABLES, 1.0)
    with pytest.raises(BusyError):
        await add_day(database_connection, day, TABLES, 1.0)
    partitions = await read_partitions(database_connection)
    inbox = next(one for one in partitions if one.name == f"inbox_{day:%Y%m%d}")
    cutoff = datetime.now(UTC)
    assert await day_partitions.drop_days(database_connection, inbox, partitions, cutoff, 1.0) == 0
    with pytest.raises(BusyError):
        await day_partitions.drop_days(database_connection, inbox, partitions, cutoff, 1.0)
    assert not [name for name in await names(database_connection) if f"{day:%Y%m%d}" in name]


async def test_messages_that_came_too_early_move_into_their_day(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    early = today() + timedelta(days=6)
    message, other = new_message(day_ms=day_ms(early)), new_message(day_ms=day_ms(early + timedelta(days=50)))
    for one in (message, other):
        await process(store, one)
    assert await place_of(database_connection, "inbox", message) == ["omnibase.inbox_default"]
    await maintain(database_connection, RetentionOptions(ahead_days=7))
    for table in TABLES:
        assert await place_of(database_connection, table, message) == [f"omnibase.{table}_{early:%Y%m%d}"]
    assert await place_of(database_connection, "inbox", other) == ["omnibase.inbox_default"]
    for one in (message, other):
        assert await process(store, one) == AlreadyProcessed(OUTPUTS)


async def test_a_day_with_too_many_early_messages_stays_in_the_default_partition(
    store: PostgresEffectStore,
    database_connection: asyncpg.Connection,
    new_message: MessageFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(day_partitions, "MOST_MOVED_ROWS", 2)
    early = today() + timedelta(days=4)
    messages = [new_message(day_ms=day_ms(early)) for _ in range(3)]
    for message in messages:
        await process(store, message)
    report = await maintain(database_connection, RetentionOptions(ahead_days=5))
    assert len(report.kept) == 1
    assert f"more than 2 rows of {early}" in report.kept[0]
    assert f"inbox_{early + timedelta(days=1):%Y%m%d}" in report.added
    assert f"inbox_{early:%Y%m%d}" not in await names(database_connection)
    for message in messages:
        assert await process(store, message) == AlreadyProcessed(OUTPUTS)


async def test_a_claim_that_waited_while_its_day_got_a_partition_is_tried_again(
    store: PostgresEffectStore, postgres_test_db: PostgresDatabase, new_message: MessageFactory
) -> None:
    day = today() + timedelta(days=8)
    message = new_message(day_ms=day_ms(day))
    changing, watching = await postgres_test_db.connect(), await postgres_test_db.connect()
    claiming: asyncio.Task[object] | None = None
    async with changing.transaction():
        await changing.execute("LOCK TABLE omnibase.inbox_default IN ACCESS EXCLUSIVE MODE")
        claiming = asyncio.create_task(process(store, message))
        await _waits_for_a_lock(watching)
        await changing.execute(
            "CREATE TABLE omnibase.inbox_new (LIKE omnibase.inbox INCLUDING ALL);"
            f"ALTER TABLE omnibase.inbox ATTACH PARTITION omnibase.inbox_new FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        )
    with pytest.raises(TransientError, match="partition"):
        await claiming
    assert await process(store, message) == Fresh()
    assert await place_of(watching, "inbox", message) == ["omnibase.inbox_new"]
    await changing.close()
    await watching.close()


async def _waits_for_a_lock(connection: asyncpg.Connection) -> None:
    async with asyncio.timeout(5):
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)


# -- days go ----------------------------------------------------------------------------------------------------------


async def test_a_day_past_its_retention_goes_with_its_outputs_and_younger_ones_stay(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    old, young = today() - timedelta(days=7), today() - timedelta(days=5)
    for day in (old, young):
        await add_day(database_connection, day, TABLES, 1.0)
    gone, known = new_message(day_ms=day_ms(old)), new_message(day_ms=day_ms(young))
    for message in (gone, known):
        await process(store, message)
        await make_old(database_connection, message, 6.5)
    report = await maintain(database_connection, KEEP)
    assert report.dropped == [f"inbox_{old:%Y%m%d}"]
    assert not {f"{table}_{old:%Y%m%d}" for table in TABLES} & await names(database_connection)
    assert await process(store, known) == AlreadyProcessed(OUTPUTS)
    assert await process(store, gone) == Fresh()
    assert await place_of(database_connection, "inbox", gone) == ["omnibase.inbox_default"]


async def test_a_message_processed_late_outlives_its_day_with_its_unsent_outputs(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    old = today() - timedelta(days=9)
    await add_day(database_connection, old, TABLES, 1.0)
    messages = [new_message(day_ms=day_ms(old)) for _ in range(20)]
    for message in messages:
        await process(store, message)
    for message in messages[:15]:
        await make_old(database_connection, message, 8.5)
    report = await maintain(database_connection, KEEP)
    assert report.dropped == [f"inbox_{old:%Y%m%d}"]
    assert report.moved == 5
    for message in messages[15:]:
        assert await process(store, message) == AlreadyProcessed(OUTPUTS)
    assert await database_connection.fetchval("SELECT count(*) FROM omnibase.outbox") == 5


async def test_a_day_with_too_many_late_messages_stays_until_they_are_old(
    store: PostgresEffectStore,
    database_connection: asyncpg.Connection,
    new_message: MessageFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(day_partitions, "MOST_MOVED_ROWS", 2)
    old = today() - timedelta(days=9)
    await add_day(database_connection, old, TABLES, 1.0)
    messages = [new_message(day_ms=day_ms(old)) for _ in range(3)]
    for message in messages:
        await process(store, message)
    report = await maintain(database_connection, KEEP)
    assert not report.dropped
    assert "processed late" in report.kept[0]
    for message in messages:
        assert await process(store, message) == AlreadyProcessed(OUTPUTS)
        await make_old(database_connection, message, 8.5)
    assert (await maintain(database_connection, KEEP)).dropped == [f"inbox_{old:%Y%m%d}"]


async def test_old_messages_of_the_default_partition_are_swept_with_their_outputs(
    store: PostgresEffectStore,
    database_connection: asyncpg.Connection,
    new_message: MessageFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(day_partitions, "SWEEP_ROWS", 10)
    messages = [new_message(day_ms=number * 86_400_000) for number in range(45)]
    for message in messages:
        await process(store, message)
    for message in messages[:40]:
        await make_old(database_connection, message, 5.1)
    report = await maintain(database_connection, KEEP)
    assert report.swept == 40
    assert report.default_rows == 5
    assert await database_connection.fetchval("SELECT count(*) FROM omnibase.outbox_default") == 5
    assert await process(store, messages[-1]) == AlreadyProcessed(OUTPUTS)


async def test_intents_that_nobody_can_take_up_any_more_are_swept(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    old, young = new_message(), new_message()
    await store.intend([old, young], owner=uuid4(), lease_seconds=10.0)
    await database_connection.execute(
        "UPDATE omnibase.effect_intent SET intended_at = now() - interval '6 days' WHERE message_id = $1",
        old.message_id,
    )
    assert (await maintain(database_connection, KEEP)).swept == 1
    assert await store.intend([old, young], owner=uuid4(), lease_seconds=10.0) == [Fresh(), Held()]


class StoppedClock:
    """A clock of this process that stands at one moment."""

    def __init__(self, moment: float) -> None:
        self._moment = moment

    def time(self) -> float:
        return self._moment

    def monotonic(self) -> float:
        return self._moment


@pytest.mark.parametrize(("behind_days", "dropped"), [(0.0, 1), (3.0, 0), (-4000.0, 1)])
async def test_nothing_is_dropped_before_both_clocks_say_so(
    database_connection: asyncpg.Connection, behind_days: float, dropped: int
) -> None:
    await add_day(database_connection, today() - timedelta(days=8), TABLES, 1.0)
    clock = StoppedClock(time.time() - behind_days * 86_400)
    assert len((await maintain(database_connection, KEEP, clock=clock)).dropped) == dropped


async def test_the_group_whose_messages_may_come_back_longest_decides(
    postgres_connection_pool: PostgresConnectionPool, database_connection: asyncpg.Connection
) -> None:
    await add_day(database_connection, today() - timedelta(days=50), TABLES, 1.0)
    await add_day(database_connection, today() - timedelta(days=70), TABLES, 1.0)
    long = spec("onex.evt.other.results.v1")  # events are kept for 30 days
    assert keep_days_of(long) == 30 + 7 + 14 + 7
    retention = InboxRetention(postgres_connection_pool, group=GROUP, spec=long, options=KEEP)
    report = await retention.look()
    assert len(report.dropped) == 1
    # Another worker on the same database, which knows nothing of it.
    assert not (await maintain(database_connection, KEEP)).dropped


def test_how_long_a_message_may_come_again_follows_from_the_topics() -> None:
    commands = "onex.cmd.shop.requests.v1"
    assert keep_days_of(spec(commands)) == 7 + 7 + 14 + 7 == DEFAULT_KEEP_DAYS
    stated = TopicSettings(topic=commands, retention_seconds=90 * 86_400.0)
    assert keep_days_of(spec(commands, settings=(stated,))) == 90 + 28


def test_the_setting_and_the_default_agree() -> None:
    assert Settings.model_validate({"env": "test"}).postgres_inbox_keep_days == RetentionOptions().keep_days


# -- beside the work --------------------------------------------------------------------------------------------------


async def test_days_come_and_go_under_load_without_an_error_or_a_long_wait(
    postgres_test_db: PostgresDatabase, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    for number in range(10, 20):
        await add_day(database_connection, today() - timedelta(days=number), TABLES, 1.0)
    stop = asyncio.Event()
    waits: list[float] = []
    processed: list[InboxMessage] = []

    async def work(store: PostgresEffectStore) -> None:
        while not stop.is_set():
            messages = [new_message() for _ in range(20)]
            began = time.perf_counter()
            async with store.session() as session:
                await session.claim(messages)
                await session.store([(message, OUTPUTS) for message in messages])
            waits.append(time.perf_counter() - began)
            processed.extend(messages)

    async with PostgresConnectionPool(postgres_test_db.dsn, PoolOptions(maximum=4)) as pool:
        store = PostgresEffectStore(pool, GROUP)
        workers = [asyncio.create_task(work(store)) for _ in range(4)]
        dropped: list[str] = []
        added: list[str] = []
        # On a machine that is busy with other things a look may leave a day to the next one.
        for _ in range(5):
            report = await maintain(database_connection, RetentionOptions(keep_days=5, ahead_days=13))
            dropped += report.dropped
            added += report.added
            if not report.kept:
                break
        stop.set()
        await asyncio.gather(*workers)
        assert len(dropped) == 10
        assert len(added) == 10 * len(TABLES)
        # No change holds up others for longer than a second; a worker's own time-out is five.
        assert max(waits) < 4.0
        async with store.session() as session:
            claims = await session.claim(processed[:500])
        assert claims == [AlreadyProcessed(OUTPUTS)] * len(claims)


async def test_a_transaction_that_stays_open_keeps_the_day_and_holds_up_nobody(
    store: PostgresEffectStore, database_connection: asyncpg.Connection, new_message: MessageFactory
) -> None:
    old = today() - timedelta(days=9)
    await add_day(database_connection, old, TABLES, 1.0)
    async with store.session() as session:
        await session.claim([new_message()])
        maintaining = asyncio.create_task(maintain(database_connection, KEEP))
        longest = 0.0
        while not maintaining.done():
            began = time.perf_counter()
            assert await process(store, new_message()) == Fresh()
            longest = max(longest, time.perf_counter() - began)
        report = await maintaining
    assert report.kept
    assert "in use" in report.kept[0]
    assert not report.dropped
    assert longest < 4.0
    assert (await maintain(database_connection, KEEP)).dropped == [f"inbox_{old:%Y%m%d}"]


async def test_one_look_that_fails_is_counted_and_the_next_one_comes(
    postgres_connection_pool: PostgresConnectionPool, database_connection: asyncpg.Connection
) -> None:
    registry = MetricsRegistry()
    options = RetentionOptions(interval=0.01, ahead_days=6)
    retention = _FailingTwice(postgres_connection_pool, group=GROUP, spec=spec(), options=options, registry=registry)
    task = asyncio.create_task(retention.maintain_forever())
    async with asyncio.timeout(10):
        while retention.looks < 4:
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    text = registry.exposition().decode()
    assert 'omnibase_inbox_maintenance_failures_total{worker="shop"} 2.0' in text
    assert 'omnibase_inbox_partitions{worker="shop"} 8.0' in text
    assert f"inbox_{today() + timedelta(days=6):%Y%m%d}" in await names(database_connection)


class _FailingTwice(InboxRetention):
    looks = 0

    async def look(self) -> RetentionReport:
        self.looks += 1
        if self.looks == 1:
            raise DependencyUnavailableError("down", dependency="postgres")
        if self.looks == 2:
            raise RuntimeError("what is this")
        return await super().look()


async def test_a_user_who_does_not_own_the_tables_is_told_who_has_to_do_it(
    postgres_test_db: PostgresDatabase, database_connection: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    role = f"worker_{postgres_test_db.name}"
    await database_connection.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA omnibase TO {role}; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA omnibase TO {role}"
    )
    try:
        dsn = postgres_test_db.dsn.split("//")[0] + f"//{role}:p@" + postgres_test_db.dsn.split("@", 1)[1]
        registry = MetricsRegistry()
        async with PostgresConnectionPool(dsn, PoolOptions()) as pool:
            options = RetentionOptions(ahead_days=6)
            retention = InboxRetention(pool, group=GROUP, spec=spec(), options=options, registry=registry)
            task = asyncio.create_task(retention.maintain_forever())
            async with asyncio.timeout(10):
                while 'maintenance_failures_total{worker="shop"} 1.0' not in registry.exposition().decode():
                    await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task])
        assert "let the owner of the tables run `omninode migrate`" in capsys.readouterr().out
    finally:
        await database_connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_group_is_written_down_once(
    postgres_connection_pool: PostgresConnectionPool, database_connection: asyncpg.Connection
) -> None:
    retention = InboxRetention(postgres_connection_pool, group=GROUP, spec=spec())
    await retention.look()
    before: Any = await database_connection.fetchrow("SELECT id, keep_days, xmin FROM omnibase.consumer_group")
    await retention.look()
    assert await database_connection.fetchrow("SELECT id, keep_days, xmin FROM omnibase.consumer_group") == before
    assert before["id"] == await find_or_add_group(database_connection, GROUP)
    assert before["keep_days"] == DEFAULT_KEEP_DAYS
