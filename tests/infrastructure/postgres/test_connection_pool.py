from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError, TransientError
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

PASSWORD = "a-secret-nobody-may-see"


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def pool_of(database: PostgresDatabase, **options: object) -> AsyncIterator[PostgresConnectionPool]:
    async with PostgresConnectionPool(database.dsn, PoolOptions(**options)) as pool:  # type: ignore[arg-type]
        yield pool


@pytest.fixture
async def observer(postgres_test_db: PostgresDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the server that is not the pool's and not to the test's database."""
    connection = await asyncpg.connect(postgres_test_db.server.dsn)
    yield connection
    await connection.close()


async def sessions(observer: asyncpg.Connection, database: PostgresDatabase, state: str = "%") -> int:
    return int(
        await observer.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state LIKE $2", database.name, state
        )
    )


async def test_limits_reach_the_server_with_each_session(postgres_test_db: PostgresDatabase) -> None:
    options = {
        "statement_timeout": 1.5,
        "lock_timeout": 0.25,
        "idle_in_transaction_timeout": 7,
        "application_name": "worker",
    }
    async with pool_of(postgres_test_db, **options) as pool, pool.acquire() as connection:
        shown = [
            await connection.fetchval(f"SHOW {name}")
            for name in (
                "statement_timeout",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "application_name",
            )
        ]
    assert shown == ["1500ms", "250ms", "7s", "worker"]


async def test_json_columns_are_plain_values_both_ways(postgres_connection_pool: PostgresConnectionPool) -> None:
    value = {"list": [1, 2.5, None, "ü"], "deep": {"x": True}}
    async with postgres_connection_pool.acquire() as connection:
        assert await connection.fetchval("SELECT $1::jsonb", value) == value
        assert await connection.fetchval("SELECT $1::json", [1, [2]]) == [1, [2]]
        assert await connection.fetchval("SELECT 'null'::jsonb") is None


def test_settings_decide_size_and_time_outs(tmp_path: Path) -> None:
    settings = load_settings(
        tmp_path / "no-file",
        env="test",
        postgres_dsn="postgresql://u:p@db.example:5432/x",
        postgres_pool_min=8,
        postgres_pool_max=4,
        postgres_acquire_timeout_seconds=2,
        postgres_statement_timeout_seconds=3,
        postgres_lock_timeout_seconds=1,
    )
    options = PostgresConnectionPool.from_settings(settings).options
    assert (options.minimum, options.maximum) == (4, 4)
    assert (options.acquire_timeout, options.statement_timeout, options.lock_timeout) == (2, 3, 1)


@pytest.mark.parametrize(
    "dsn",
    [
        f"mysql://u:{PASSWORD}@h/db",
        f"u:{PASSWORD}@h/db",
        f"postgresql://u:{PASSWORD}/x@h:5432/db",
        f"postgresql://u:{PASSWORD}@h:port/db",
        f"postgresql://u:{PASSWORD}@[::1/db",
    ],
)
def test_a_malformed_address_is_refused_without_showing_it(dsn: str) -> None:
    with pytest.raises(SettingsError) as caught:
        PostgresConnectionPool(dsn)
    assert PASSWORD not in str(caught.value)
    assert "OMNIBASE_POSTGRES_DSN" in str(caught.value)


async def test_what_only_the_driver_finds_malformed_does_not_show_the_address() -> None:
    async with PostgresConnectionPool(f"postgresql://u:{PASSWORD}@h/db?sslmode=maybe", PoolOptions(minimum=0)) as pool:
        with pytest.raises(SettingsError) as caught:
            async with pool.acquire():
                pass
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(pool)


async def test_opening_needs_no_server(unused_tcp_port: int) -> None:
    async with PostgresConnectionPool(
        f"postgresql://u:p@127.0.0.1:{unused_tcp_port}/db", PoolOptions(minimum=0)
    ) as pool:
        with pytest.raises(DependencyUnavailableError, match="refused"):
            async with pool.acquire():
                pass
        assert pool.state().waiting == 0


async def test_a_wrong_password_is_an_outage_with_a_hint(postgres_test_db: PostgresDatabase) -> None:
    dsn = postgres_test_db.dsn.replace("omnibase:", "omnibase:wrong")
    async with PostgresConnectionPool(dsn) as pool:
        with pytest.raises(DependencyUnavailableError, match="OMNIBASE_POSTGRES_DSN"):
            async with pool.acquire():
                pass


async def test_tls_that_the_server_lacks_is_an_outage(postgres_test_db: PostgresDatabase) -> None:
    async with PostgresConnectionPool(f"{postgres_test_db.dsn}?sslmode=require") as pool:
        with pytest.raises(DependencyUnavailableError):
            async with pool.acquire():
                pass


async def test_a_server_that_accepts_and_stays_silent_is_an_outage_within_the_acquire_time_out() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with PostgresConnectionPool(
        f"postgresql://u:p@127.0.0.1:{port}/db?sslmode=disable", PoolOptions(minimum=0, acquire_timeout=0.2)
    ) as pool:
        with pytest.raises(DependencyUnavailableError, match=r"0\.2 s"):
            async with pool.acquire():
                pass
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_a_pool_with_all_connections_in_use_is_transient_and_says_so(postgres_test_db: PostgresDatabase) -> None:
    async with pool_of(postgres_test_db, maximum=1, acquire_timeout=0.1) as pool, pool.acquire():
        with pytest.raises(TransientError, match="all 1 PostgreSQL connections stayed in use"):
            async with pool.acquire():
                pass


async def test_the_state_counts_connections_and_waiting_callers(postgres_test_db: PostgresDatabase) -> None:
    async with pool_of(postgres_test_db, minimum=0, maximum=2, acquire_timeout=5) as pool:
        assert (pool.state().size, pool.state().max) == (0, 2)
        async with pool.acquire(), pool.acquire():

            async def wait() -> None:
                async with pool.acquire():
                    pass

            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0)
            state = pool.state()
            assert (state.size, state.in_use, state.idle, state.waiting) == (2, 2, 0, 1)
        await waiter
        state = pool.state()
        assert (state.size, state.in_use, state.idle, state.waiting) == (2, 0, 2, 0)
    assert pool.state().size == 0


async def test_the_minimum_is_kept_open(postgres_test_db: PostgresDatabase) -> None:
    async with pool_of(postgres_test_db, minimum=3, maximum=5, idle_lifetime=0.3) as pool:

        async def three_are_open() -> bool:
            return pool.state().size == 3

        await eventually(three_are_open)
        async with pool.acquire(), pool.acquire(), pool.acquire(), pool.acquire(), pool.acquire():
            assert pool.state().size == 5
        # Those above the minimum go after their idle time, the others stay well beyond it.
        await eventually(three_are_open)
        await asyncio.sleep(0.6)
        assert pool.state().size == 3


async def test_a_broken_connection_is_replaced(
    postgres_test_db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    async with pool_of(postgres_test_db, maximum=1, minimum=0) as pool:
        async with pool.acquire() as connection:
            first = connection.get_server_pid()
        await observer.execute("SELECT pg_terminate_backend($1)", first)
        await eventually(lambda: _gone(observer, first))
        await eventually(lambda: _has_noticed(pool))
        async with pool.acquire() as connection:
            assert connection.get_server_pid() != first
            assert await connection.fetchval("SELECT 1") == 1
        assert pool.state().in_use == 0


async def _has_noticed(pool: PostgresConnectionPool) -> bool:
    return pool.state().idle == 0


async def _gone(observer: asyncpg.Connection, pid: int) -> bool:
    return not await observer.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid)


async def test_giving_back_takes_no_round_trip_and_leaves_no_transaction(postgres_test_db: PostgresDatabase) -> None:
    async with pool_of(postgres_test_db, maximum=1, minimum=0) as pool:
        queries: list[str] = []
        async with pool.acquire() as connection:
            connection.add_query_logger(lambda record: queries.append(record.query))
            await connection.execute("SELECT 1")
        async with pool.acquire() as connection:
            await connection.execute("SELECT 2")
            assert not connection.is_in_transaction()
        assert queries == ["SELECT 1", "SELECT 2"]


async def test_a_full_reset_clears_what_a_session_keeps(postgres_test_db: PostgresDatabase) -> None:
    async with pool_of(postgres_test_db, maximum=1, minimum=0, statement_timeout=12) as pool:
        async with pool.acquire(full_reset=True) as connection:
            await connection.execute("SET work_mem = '1MB'; SET statement_timeout = 0; SELECT pg_advisory_lock(4)")
            await connection.execute("SET ROLE pg_read_all_data; SET timezone = 'Europe/Berlin'")
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW work_mem") != "1MB"
            assert await connection.fetchval("SHOW timezone") != "Europe/Berlin"
            assert await connection.fetchval("SHOW statement_timeout") == "12s"
            assert await connection.fetchval("SELECT current_user = session_user")
            assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_failed_transaction_does_not_pass_for_a_committed_one(
    postgres_connection_pool: PostgresConnectionPool,
) -> None:
    async def swallow() -> None:
        async with postgres_connection_pool.acquire() as connection, connection.transaction():
            with contextlib.suppress(asyncpg.DivisionByZeroError):
                await connection.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await swallow()


async def test_closing_waits_for_connections_in_use_and_then_cuts_them(postgres_test_db: PostgresDatabase) -> None:
    pool = PostgresConnectionPool(postgres_test_db.dsn, PoolOptions(minimum=0))
    await pool.open()
    release = asyncio.Event()

    async def hold() -> None:
        async with pool.acquire():
            await release.wait()

    holder = asyncio.create_task(hold())

    async def is_held() -> bool:
        return pool.state().in_use == 1

    await eventually(is_held)
    await pool.close(timeout=0.1)
    release.set()
    await holder
    with pytest.raises(DependencyUnavailableError, match="not open"):
        async with pool.acquire():
            pass
    await pool.close()


async def test_opening_and_closing_may_be_repeated(postgres_test_db: PostgresDatabase) -> None:
    pool = PostgresConnectionPool(postgres_test_db.dsn)
    for _ in range(2):
        await pool.open()
        await pool.open()
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        await pool.close()
        await pool.close()


async def test_a_connection_is_replaced_when_it_was_lent_often_enough(postgres_test_db: PostgresDatabase) -> None:
    pids = []
    async with pool_of(postgres_test_db, minimum=0, maximum=1, maximum_uses=3) as pool:
        for _ in range(7):
            async with pool.acquire() as connection:
                pids.append(connection.get_server_pid())
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


async def test_a_connection_is_replaced_when_it_is_old_enough(
    postgres_test_db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    async with pool_of(postgres_test_db, minimum=0, maximum=1, maximum_age=0.3) as pool:
        async with pool.acquire() as connection:
            first = connection.get_server_pid()
            # Not while it is lent, however old it gets.
            await asyncio.sleep(0.35)
            assert await connection.fetchval("SELECT 1") == 1
        await eventually(lambda: _gone(observer, first))
        async with pool.acquire() as connection:
            second = connection.get_server_pid()
        await asyncio.sleep(0.35)
        async with pool.acquire() as connection:
            assert connection.get_server_pid() not in {first, second}


async def test_connections_opened_together_do_not_all_get_old_together(postgres_test_db: PostgresDatabase) -> None:
    async with pool_of(postgres_test_db, minimum=0, maximum=4, maximum_age=100) as pool:
        async with pool.acquire() as a, pool.acquire() as b, pool.acquire() as c, pool.acquire() as d:
            ages = {getattr(connection, "history").too_old_at for connection in (a, b, c, d)}  # noqa: B009 - of the pool's own class
        now = asyncio.get_running_loop().time()
    assert len(ages) == 4
    assert all(85 < age - now <= 100 for age in ages)


async def test_a_connection_held_for_too_long_is_named_with_the_place_that_acquired_it(
    postgres_test_db: PostgresDatabase,
) -> None:
    with capture_logs() as logs:
        async with pool_of(postgres_test_db, minimum=0, maximum=2, leak_seconds=0.1) as pool:

            async def forget() -> None:
                async with pool.acquire():
                    await asyncio.sleep(0.4)

            holder = asyncio.create_task(forget(), name="the-forgetful")

            async def is_reported() -> bool:
                return pool.state().overdue == 1

            await eventually(is_reported)
            async with pool.acquire():
                pass
            (lease,) = pool.overdue()
            assert lease.task == "the-forgetful"
            assert lease.held_seconds >= 0.1
            await holder
            assert (pool.state().overdue, pool.overdue()) == (0, [])
    reports = [line for line in logs if line["event"] == "pool_connection_overdue"]
    assert len(reports) == 1
    place = r"infrastructure/postgres/test_connection_pool\.py:\d+ in .*forget"
    assert re.fullmatch(place, reports[0]["acquired_at"])
    assert re.fullmatch(place, lease.acquired_at)


async def test_a_session_of_the_effect_store_is_named_by_who_opened_it(postgres_test_db: PostgresDatabase) -> None:
    async with (
        pool_of(postgres_test_db, minimum=0, maximum=1, leak_seconds=0.05) as pool,
        PostgresEffectStore(pool, "test.omnibase-infra.a.consume.v1").session(),
    ):
        await asyncio.sleep(0.1)
        assert "test_connection_pool.py" in pool.overdue()[0].acquired_at


async def test_without_a_bound_nobody_looks_for_leaks(postgres_test_db: PostgresDatabase) -> None:
    async with pool_of(postgres_test_db, minimum=0, maximum=1, leak_seconds=0) as pool, pool.acquire():
        assert pool._leases is None
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "postgres-pool-leases"]
        assert pool.overdue() == []


async def test_a_minimum_as_large_as_the_maximum_holds_up_nobody(postgres_test_db: PostgresDatabase) -> None:
    async with pool_of(postgres_test_db, minimum=10, maximum=4, acquire_timeout=2, idle_lifetime=0.15) as pool:

        async def work() -> None:
            for _ in range(50):
                async with pool.acquire() as connection:
                    await connection.execute("SELECT pg_sleep(0.005)")

        await asyncio.gather(*(work() for _ in range(8)))
        assert pool.state().size == 4


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_twenty_thousand_cycles_cancelled_anywhere_leak_nothing(
    postgres_test_db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    """Cancelled while waiting, connecting, querying, rolling back, giving back or being replaced: the pool stays whole."""
    chance = random.Random(20)
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
    ended = {"done": 0, "cancelled": 0}
    options = {"minimum": 0, "maximum": 8, "acquire_timeout": 10, "idle_lifetime": 0.5, "maximum_uses": 40}
    async with pool_of(postgres_test_db, **options) as pool:

        async def use() -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.fetch("SELECT generate_series(1, 20)")

        async def one() -> None:
            task = asyncio.create_task(use())
            if chance.random() < 0.6:
                # Turns of the loop, not seconds: every point where a cycle waits is met, on a machine of any speed.
                for _ in range(int(chance.random() * 30)):
                    await asyncio.sleep(0)
                await asyncio.sleep(chance.choice((0, 0, 0, 0.001, 0.003)))
                task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None, task.exception()
            ended["cancelled" if task.cancelled() else "done"] += 1

        async def many() -> None:
            for _ in range(20_000 // 16):
                await one()

        await asyncio.gather(*(many() for _ in range(16)))
        assert sum(ended.values()) == 20_000
        assert min(ended.values()) > 2_000
        assert (pool.state().in_use, pool.state().waiting, pool.overdue()) == (0, 0, [])
        # The server's own count: none but the pool's, none in a transaction.
        await eventually(lambda: _is_sessions(observer, postgres_test_db, pool.state().size))
        assert pool.state().size <= 8
        assert await sessions(observer, postgres_test_db, "idle in transaction%") == 0
        # All can be had at once, so none is stuck.
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(pool.acquire())
            assert pool.state().in_use == 8
    await eventually(lambda: _is_sessions(observer, postgres_test_db, 0))
    gc.collect()
    # The driver leaves a future behind when a connection is dropped while it is being made; it is closed all the same.
    assert [text for text in complaints if "unexpected connection_lost() call" not in text] == []


async def _is_sessions(observer: asyncpg.Connection, database: PostgresDatabase, count: int) -> bool:
    return await sessions(observer, database) == count
