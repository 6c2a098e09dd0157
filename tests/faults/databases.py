"""PostgreSQL killed, stopped, slow, silent, full or locked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import asyncpg
from tests.faults.arena import Arena
from tests.faults.scenario import Scenario

from omnibase_infra.shared.core.settings import require_postgres
from omnibase_infra.shared.testing.fleet import eventually

# What migrations/0001_effects.sql lets commits wait for.
COMMIT_LOCK: Final = 4711
RECORD_LOCK: Final = 4712
_COMMITTING: Final = """SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND query ~ '^COMMIT' AND datname = current_database()"""


async def killed_in_mid_commit(arena: Arena) -> None:
    """The server dies while workers wait for the answer to their COMMIT, and never hear whether it was done."""
    await arena.start_workers(2)
    await arena.load.publish(1_000, per_second=10_000)
    for _ in range(3):
        await arena.flowing(1)
        connection = await asyncpg.connect(require_postgres(arena.settings), timeout=10)
        await connection.execute("SELECT pg_advisory_lock($1)", COMMIT_LOCK)

        async def is_committing(session: Any = connection) -> bool:
            return bool(await session.fetchval(_COMMITTING))

        await arena.load.publish(200, per_second=10_000)
        await eventually(is_committing, "a commit is under way", 20)
        # Some of them get through, some do not: nobody knows which.
        await connection.execute("SELECT pg_advisory_unlock($1)", COMMIT_LOCK)
        await asyncio.to_thread(arena.servers.postgres.kill)
        connection.terminate()
        await asyncio.sleep(1)
        await asyncio.to_thread(arena.servers.postgres.start)
    arena.healed()


async def stopped_for_a_while(arena: Arena) -> None:
    """The server is away for ten seconds."""
    await arena.start_workers()
    publishing = asyncio.create_task(arena.load.publish(3_000, per_second=300))
    await arena.flowing()
    await asyncio.to_thread(arena.servers.postgres.stop)
    await eventually(lambda: arena.alarm_seen("not ready: postgres"), "readiness is false", 30)
    await asyncio.sleep(8)
    await asyncio.to_thread(arena.servers.postgres.start)
    arena.healed()
    await publishing


async def slow(arena: Arena) -> None:
    """Every round trip takes three tenths of a second more."""
    await arena.start_workers(proxied=True)
    arena.servers.postgres_proxy.delay(0.15)
    await arena.load.publish(600, per_second=100)
    arena.servers.postgres_proxy.restore()
    arena.healed()


async def silent(arena: Arena) -> None:
    """Connections stay open and nothing comes back."""
    await arena.start_workers(proxied=True)
    publishing = asyncio.create_task(arena.load.publish(3_000, per_second=200))
    await arena.flowing()
    arena.servers.postgres_proxy.blackhole()
    await eventually(lambda: arena.alarm_seen("not ready: postgres"), "readiness is false", 40)
    arena.servers.postgres_proxy.restore()
    arena.healed()
    await publishing


async def connections_cut(arena: Arena) -> None:
    """Every connection is reset again and again, in the middle of whatever it was at."""
    await arena.start_workers(2, proxied=True)
    publishing = asyncio.create_task(arena.load.publish(3_000, per_second=300))
    await arena.flowing()
    for _ in range(15):
        arena.servers.postgres_proxy.cut(refuse=False)
        await asyncio.sleep(arena.chance.uniform(0.1, 0.6))
    arena.healed()
    await publishing


async def out_of_connections(arena: Arena) -> None:
    """Others hold every connection that the server has, and the worker's own were taken from it."""
    await arena.start_workers()
    publishing = asyncio.create_task(arena.load.publish(3_000, per_second=250))
    await arena.flowing()
    async with AsyncExitStack() as stack:
        dsn = require_postgres(arena.settings)
        admin = await asyncpg.connect(dsn, timeout=10)
        stack.push_async_callback(admin.close, timeout=5)
        for _ in range(3):
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fault-probe'"
            )
            with suppress(asyncpg.TooManyConnectionsError, asyncpg.ConnectionDoesNotExistError):
                while True:
                    session = await asyncpg.connect(dsn, timeout=10)
                    stack.push_async_callback(session.close, timeout=5)
        await eventually(lambda: arena.alarm_seen("not ready: postgres"), "readiness is false", 40)
    arena.healed()
    await publishing


def locked(lock: int, seconds: float) -> Callable[[Arena], Awaitable[None]]:
    """Return a scenario in which somebody holds a lock for longer than a session waits for one."""

    async def run(arena: Arena) -> None:
        await arena.start_workers()
        wish = {"action": "lock", "lock": RECORD_LOCK} if lock == RECORD_LOCK else None
        async with arena.connection() as connection:
            await connection.execute("SELECT pg_advisory_lock($1)", lock)
            await arena.load.publish(300, 1_000, lambda number: wish if number == 100 else None)
            await asyncio.sleep(seconds)
        arena.healed()

    return run


SCENARIOS: Final = (
    Scenario(
        name="PostgreSQL killed in mid-commit, three times",
        run=killed_in_mid_commit,
        bound=40,
        alarm="log dependency_unavailable",
        short=True,
    ),
    Scenario(name="PostgreSQL stopped for 10 s", run=stopped_for_a_while, bound=30, alarm="not ready: postgres"),
    Scenario(name="PostgreSQL slow by 0.3 s a round trip", run=slow, bound=40),
    Scenario(name="PostgreSQL silent", run=silent, bound=60, alarm="not ready: postgres"),
    Scenario(
        name="connections to PostgreSQL cut again and again",
        run=connections_cut,
        bound=40,
        alarm="log dependency_unavailable",
    ),
    Scenario(name="PostgreSQL out of connections", run=out_of_connections, bound=40, alarm="not ready: postgres"),
    Scenario(name="a record waits for a lock", run=locked(RECORD_LOCK, 7), bound=30, alarm="log batch_failed"),
    Scenario(name="every commit waits for a lock", run=locked(COMMIT_LOCK, 7), bound=40, alarm="log batch_failed"),
)
