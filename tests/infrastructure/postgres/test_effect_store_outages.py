"""What happens to a message when PostgreSQL stops, freezes, crashes or goes silent at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError, TransientError
from omnibase_infra.shared.core.ports import AlreadyProcessed, Fresh, InboxMessage, StoredOutput
from omnibase_infra.shared.local_services import PostgresService
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.postgres.health_monitor import PostgresHealthMonitor
from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate

MessageFactory = Callable[..., InboxMessage]

pytestmark = pytest.mark.demanding

GROUP = "test.omnibase-infra.postgres-adapter.consume.v1"
ANSWER = StoredOutput("onex.evt.postgres-adapter.results.v1", b"k", b"the answer")
# A trigger that runs inside COMMIT and waits there for a lock that the test holds.
EFFECT_TABLE = """
CREATE TABLE public.effect (message_id text NOT NULL);
CREATE FUNCTION public.wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait_in_commit AFTER INSERT ON public.effect DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION public.wait_in_commit();
"""


@pytest.fixture
async def dsn(own_dsn: str) -> str:
    await migrate(own_dsn, [infrastructure_migrations()])
    connection = await asyncpg.connect(own_dsn)
    await connection.execute(EFFECT_TABLE)
    await connection.close()
    return own_dsn


@asynccontextmanager
async def opened(dsn: str, **options: object) -> AsyncIterator[tuple[PostgresConnectionPool, PostgresEffectStore]]:
    values: dict[str, object] = {"acquire_timeout": 2, "minimum": 0}
    async with PostgresConnectionPool(dsn, PoolOptions(**(values | options))) as pool:  # type: ignore[arg-type]
        yield pool, PostgresEffectStore(pool, GROUP)


async def process(store: PostgresEffectStore, message: InboxMessage) -> object:
    async with store.session() as session:
        (claim,) = await session.claim([message])
        if isinstance(claim, Fresh):
            await session.connection.execute("INSERT INTO public.effect VALUES ($1)", message.message_id)
            await session.store([(message, [ANSWER])])
        return claim


async def effects(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM public.effect"))
    finally:
        await connection.close()


async def test_a_server_that_stops_and_starts_again_is_met_by_the_same_pool(
    dsn: str, own_server: PostgresService, new_message: MessageFactory
) -> None:
    async with opened(dsn) as (pool, store):
        monitor = PostgresHealthMonitor(pool)
        before, during, after = new_message(), new_message(), new_message()
        assert await process(store, before) == Fresh()
        assert (await monitor.check()).status == "healthy"

        async def work_while_it_stops() -> None:
            async with store.session() as session:
                await session.claim([during])
                await asyncio.to_thread(own_server.stop)
                await session.store([(during, [ANSWER])])

        with pytest.raises(DependencyUnavailableError):
            await work_while_it_stops()
        for _ in range(3):
            with pytest.raises(DependencyUnavailableError, match="refused"):
                await process(store, after)
        with pytest.raises(DependencyUnavailableError):
            await store.ping()
        health = await monitor.check()
        assert (health.status, health.latency_ms, health.recent_failures) == ("unhealthy", None, 1)
        assert "refused" in health.message
        assert pool.state().in_use == 0

        await asyncio.to_thread(own_server.start)
        await store.ping()
        assert isinstance(await process(store, before), AlreadyProcessed)
        assert await process(store, during) == Fresh()
        assert await process(store, after) == Fresh()
        assert (await monitor.check()).status == "healthy"
    assert await effects(dsn) == 3


async def test_a_pool_opened_before_its_server_works_once_the_server_is_there(
    dsn: str, own_server: PostgresService, new_message: MessageFactory
) -> None:
    await asyncio.to_thread(own_server.stop)
    async with opened(dsn, minimum=2) as (_, store):
        with pytest.raises(DependencyUnavailableError):
            await process(store, new_message())
        await asyncio.to_thread(own_server.start)
        assert await process(store, new_message()) == Fresh()


async def test_a_backend_killed_inside_commit_leaves_nothing_and_the_redelivery_does_it(
    dsn: str, new_message: MessageFactory
) -> None:
    message = new_message()
    async with opened(dsn) as (pool, store):
        with stalled_commits(dsn) as stall:
            await stall.begin()
            task = asyncio.create_task(process(store, message))
            backend = await stall.backend_in_commit()
            os.kill(backend, signal.SIGKILL)  # the server restarts all its sessions
            with pytest.raises(DependencyUnavailableError):
                await task
        assert await redeliver(store, message) == Fresh()
        assert isinstance(await process(store, message), AlreadyProcessed)
        assert pool.state().in_use == 0
    assert await effects(dsn) == 1


async def test_a_commit_whose_confirmation_is_lost_is_found_by_the_redelivery(
    dsn: str, new_message: MessageFactory
) -> None:
    message = new_message()
    async with commit_swallowing_proxy(dsn) as proxied, opened(proxied) as (pool, store):
        with pytest.raises(DependencyUnavailableError):
            await process(store, message)
        assert pool.state().in_use == 0
    assert await effects(dsn) == 1
    async with opened(dsn) as (_, store):
        assert await redeliver(store, message) == AlreadyProcessed((ANSWER,))
    assert await effects(dsn) == 1


async def test_a_frozen_server_is_an_outage_within_the_time_outs_and_work_goes_on_after(
    dsn: str, new_message: MessageFactory
) -> None:
    message = new_message()
    options = {"acquire_timeout": 0.5, "statement_timeout": 0.5, "response_margin": 0.3}
    async with opened(dsn, **options) as (pool, store):
        await store.ping()
        async with frozen(dsn):
            started = time.monotonic()
            with pytest.raises(DependencyUnavailableError):
                await process(store, message)
            with pytest.raises(DependencyUnavailableError):
                await store.ping()
            assert (await PostgresHealthMonitor(pool).check()).status == "unhealthy"
            assert time.monotonic() - started < 8
        assert await redeliver(store, message) == Fresh()
    assert await effects(dsn) == 1


async def redeliver(store: PostgresEffectStore, message: InboxMessage) -> object:
    """Try again as the runtime does, until the server has recovered."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await process(store, message)
            except (DependencyUnavailableError, TransientError):
                await asyncio.sleep(0.05)


class _Stall:
    """Holds the lock that commits wait for."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None

    async def begin(self) -> None:
        self._connection = await asyncpg.connect(self._dsn)
        await self._connection.execute("SELECT pg_advisory_lock(42)")

    async def backend_in_commit(self) -> int:
        assert self._connection is not None
        async with asyncio.timeout(10):
            while True:
                pid = await self._connection.fetchval(
                    "SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT;' AND wait_event_type = 'Lock'"
                )
                if pid is not None:
                    return int(pid)
                await asyncio.sleep(0.01)

    def end(self) -> None:
        if self._connection is not None:
            self._connection.terminate()


@contextlib.contextmanager
def stalled_commits(dsn: str) -> Iterator[_Stall]:
    stall = _Stall(dsn)
    try:
        yield stall
    finally:
        stall.end()


@asynccontextmanager
async def frozen(dsn: str) -> AsyncIterator[None]:
    """Stop the server and all its sessions as a stuck machine would: connections stay, nothing answers."""
    connection = await asyncpg.connect(dsn)
    postmaster = await connection.fetchval(r"SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int")
    sessions = await connection.fetchval("SELECT array_agg(pid) FROM pg_stat_activity")
    family = [postmaster, *sessions]
    for member in family:
        os.kill(member, signal.SIGSTOP)
    try:
        yield
    finally:
        for member in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGCONT)
        await connection.close()


@asynccontextmanager
async def commit_swallowing_proxy(dsn: str) -> AsyncIterator[str]:
    """A way to the server that passes a COMMIT on, and breaks before the server's answer comes back."""
    address = urlsplit(dsn)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection(address.hostname, address.port)
        answers = asyncio.create_task(_pump(server_reader, writer))
        try:
            while data := await reader.read(65536):
                is_commit = b"COMMIT;\0" in data
                if is_commit:
                    answers.cancel()
                    await asyncio.wait([answers])
                server_writer.write(data)
                await server_writer.drain()
                if is_commit:
                    await server_reader.read(65536)  # the confirmation
                    break
        finally:
            answers.cancel()
            for each in (writer, server_writer):
                each.close()

    proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    yield dsn.replace(f":{address.port}/", f":{port}/")
    proxy.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
