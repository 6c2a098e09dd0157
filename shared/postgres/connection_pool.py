"""The pool of PostgreSQL connections of a process. Opens without a server; a worker then starts unready.

    acquire ─▶ wait for a free one, or make one ─▶ lent ─▶ given back ─▶ free ─▶ … ─▶ retired: too old, used too often,
                     (connector)                  (lease watch)                     of credentials or a server that changed

No statements and no transactions here: those are `effect_store` and `statements`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import asyncpg
import msgspec

from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    DependencyBusyError,
    DependencyUnavailableError,
    OmnibaseError,
    SettingsError,
    TransientError,
)
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.postgres.connector import Connector
from omnibase_infra.shared.postgres.credentials import CredentialsSource, FixedCredentials
from omnibase_infra.shared.postgres.errors import DEPENDENCY, DSN_FORM, classify_connect
from omnibase_infra.shared.postgres.lease_watch import Lease, LeaseWatch, OverdueLease
from omnibase_infra.shared.postgres.pool_options import SEARCH_PATH, PoolOptions, PoolSink, PoolState, Retirement
from omnibase_infra.shared.postgres.pooled_connection import (
    Connection,
    ConnectionHistory,
    JsonValue,
    MeteredConnection,
    is_lost,
    set_json_codecs,
)
from omnibase_infra.shared.postgres.query_metrics import QueryMetrics
from omnibase_infra.shared.resilience.retry_policy import RetryPolicy

__all__ = [
    "SEARCH_PATH",
    "Connection",
    "JsonValue",
    "MeteredConnection",
    "PoolOptions",
    "PoolState",
    "PostgresConnectionPool",
    "is_lost",
    "set_json_codecs",
]

_FULL_RESET: Final = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *;"
)
# How long after failing so often; it never ends. Spread, so that a fleet does not come back in step.
_FLOOR_RETRIES: Final = RetryPolicy(attempts=1, base=1.0, cap=30.0, jitter="equal")
_RETIRE_SECONDS: Final = 2.0
_REMEMBERED_ROUND_TRIPS: Final = 200


class PostgresConnectionPool:
    """Connections to one database, handed out one task at a time. Use as `async with`, or `open` and `close`.

    A connection that broke is dropped and replaced at the next `acquire`. Cancelling a caller, at any point, neither
    leaks a connection nor hands out one that is in the middle of something.

    Attributes:
        options: limits and time-outs.
        query_metrics: where kit code counts its statements.
        round_trips: seconds of the last health checks, by whomever.
    """

    def __init__(
        self,
        dsn: str,
        options: PoolOptions | None = None,
        *,
        query_metrics: QueryMetrics | None = None,
        credentials: CredentialsSource | None = None,
        sink: PoolSink | None = None,
    ) -> None:
        """Args:
            dsn: address with credentials; TLS by its `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
            options: limits and time-outs.
            query_metrics: where kit code counts its statements; default: metrics of this pool's own.
            credentials: with what each new connection logs in, in place of what the address says. When they change,
                connections made with the old ones are replaced as soon as nobody uses them.
            sink: told of waits, connects and retirements.

        Raises:
            SettingsError: the address is malformed.
        """
        _check_dsn(dsn)
        self.options = options or PoolOptions()
        self.query_metrics = query_metrics or QueryMetrics()
        self.round_trips: deque[float] = deque(maxlen=_REMEMBERED_ROUND_TRIPS)
        self._sink = sink
        self._credentials = credentials or FixedCredentials(dsn)
        self._connector = Connector(dsn, self.options, self._credentials, self.query_metrics, sink)
        self._leases = (
            LeaseWatch(self.options.leak_seconds, self._report_overdue) if self.options.leak_seconds else None
        )
        self._pool: asyncpg.Pool | None = None
        self._upkeep: list[asyncio.Task[None]] = []
        self._in_use = 0
        self._waiting = 0

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        application_name: str = "omnibase",
        minimum: int | None = None,
        query_metrics: QueryMetrics | None = None,
        credentials: CredentialsSource | None = None,
        sink: PoolSink | None = None,
    ) -> PostgresConnectionPool:
        """Return a pool as the process settings say.

        Args:
            settings: of the process.
            application_name: how the sessions are named in `pg_stat_activity`.
            minimum: connections kept open, in place of the setting: 0 for who asks once and ends.
            query_metrics / credentials / sink: as for the pool itself.

        Raises:
            SettingsError: no address is set, or it is malformed.
        """
        options = PoolOptions.from_settings(settings, application_name=application_name)
        if minimum is not None:
            options = msgspec.structs.replace(options, minimum=minimum)
        return cls(require_postgres(settings), options, query_metrics=query_metrics, credentials=credentials, sink=sink)

    def __repr__(self) -> str:
        return f"<PostgresConnectionPool {self.options.application_name} {self.state()}>"

    async def open(self) -> None:
        """Get ready to hand out connections. Waits for no server: a missing one shows at `acquire`. Repeatable."""
        if self._pool is not None:
            return
        options = self.options
        pool = asyncpg.create_pool(
            min_size=0,
            max_size=options.maximum,
            max_queries=2**62,
            max_inactive_connection_lifetime=options.idle_lifetime,
            connect=self._connector.connect,
            connection_class=MeteredConnection,
        )
        await pool
        self._pool = pool
        if options.minimum:
            self._start("floor", self._keep_floor())
        if not self._credentials.fixed:
            self._start("credentials", self._follow_credentials())
        if self._leases is not None:
            self._start("leases", self._look_for_leaks(self._leases))

    async def close(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - bounds the whole, then ends it by force
        """Wait for connections in use, close all; after `timeout` seconds cut those that are left. Repeatable."""
        pool, self._pool = self._pool, None
        upkeep, self._upkeep = self._upkeep, []
        for task in upkeep:
            task.cancel()
        if upkeep:
            await asyncio.wait(upkeep)
        if pool is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await pool.close()
        except TimeoutError:
            get_logger().warning(LogEvent.POOL_CLOSED_BY_FORCE, dependency=DEPENDENCY, seconds=timeout)
        finally:
            # Does nothing after a clean close; cuts what a time-out or a cancellation left.
            pool.terminate()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def acquire(self, *, full_reset: bool = False) -> AsyncIterator[Connection[asyncpg.Record]]:
        """Lend a connection for the length of the block. Hold it per batch, not per message.

        Args:
            full_reset: clear the session afterwards (settings, advisory locks, cursors): for SQL of other people.

        Raises:
            DependencyBusyError: all connections stayed in use for the acquire time-out, or the login was refused though
                one worked a moment ago.
            DependencyUnavailableError: no connection could be made within it, or the pool is closed.
            SettingsError: the address cannot be used.
        """
        pool = self._pool
        if pool is None:
            raise DependencyUnavailableError("the PostgreSQL pool is not open", dependency=DEPENDENCY)
        connection = await self._take(pool)
        lease = self._leases.begin() if self._leases is not None else None
        try:
            yield connection
        finally:
            await self._give_back(pool, connection, full_reset, lease)

    def state(self) -> PoolState:
        """Return the pool's state now; no round trip. Callable from any thread."""
        pool = self._pool
        size = pool.get_size() if pool is not None else 0
        idle = pool.get_idle_size() if pool is not None else 0
        overdue = self._leases.overdue_count() if self._leases is not None else 0
        return PoolState(size, self._in_use, idle, self._waiting, self.options.maximum, overdue)

    def overdue(self) -> list[OverdueLease]:
        """Return the connections held beyond the leak bound and where they were acquired, the longest first."""
        return self._leases.overdue() if self._leases is not None else []

    def leave_server(self) -> None:
        """Replace every connection as soon as it is free: the server has become a replica, and the address another's."""
        self._connector.begin_generation("replica")

    async def _take(self, pool: asyncpg.Pool) -> Connection[asyncpg.Record]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._waiting += 1
        try:
            while True:
                connection = await pool.acquire(timeout=self.options.acquire_timeout)
                if (reason := self._worn(_history(connection))) is None:
                    break
                await self._retire(pool, connection, reason)
        except TimeoutError:
            raise self._timed_out() from None
        except Exception as error:
            classified = classify_connect(error)
            if classified is error:
                raise
            raise classified from error
        finally:
            self._waiting -= 1
        self._in_use += 1
        if self._sink is not None:
            self._sink.lent(loop.time() - started)
        return connection

    async def _give_back(
        self, pool: asyncpg.Pool, connection: Connection[asyncpg.Record], full_reset: bool, lease: Lease | None
    ) -> None:
        try:
            if full_reset and not is_lost(connection) and not connection.is_in_transaction():
                await connection.execute(_FULL_RESET)
        except BaseException:
            connection.terminate()
            raise
        finally:
            self._in_use -= 1
            if lease is not None and self._leases is not None:
                self._leases.end(lease)
            try:
                await self._release(pool, connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                # The block's outcome stands; the pool has dropped the connection.
                get_logger().warning(
                    LogEvent.POOL_CONNECTION_DROPPED, dependency=DEPENDENCY, reason=type(error).__name__
                )

    async def _release(self, pool: asyncpg.Pool, connection: Connection[asyncpg.Record]) -> None:
        if not is_lost(connection):
            history = _history(connection)
            history.uses += 1
            if (reason := self._worn(history)) is not None:
                await self._retire(pool, connection, reason)
                return
        await pool.release(connection)

    def _worn(self, history: ConnectionHistory) -> Retirement | None:
        if history.generation != self._connector.generation:
            return self._connector.generation_began_for
        if self.options.maximum_uses and history.uses >= self.options.maximum_uses:
            return "uses"
        return "age" if asyncio.get_running_loop().time() >= history.too_old_at else None

    async def _retire(self, pool: asyncpg.Pool, connection: Connection[asyncpg.Record], reason: Retirement) -> None:
        if self._sink is not None:
            self._sink.retired(reason)
        try:
            await connection.close(timeout=_RETIRE_SECONDS)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            connection.terminate()  # it is to go in any case
        finally:
            await pool.release(connection)

    def _timed_out(self) -> Exception:
        seconds = self.options.acquire_timeout
        if self._in_use >= self.options.maximum:
            get_logger().warning(LogEvent.POOL_EXHAUSTED, dependency=DEPENDENCY, max=self.options.maximum)
            if self._sink is not None:
                self._sink.exhausted()
            return DependencyBusyError(
                f"all {self.options.maximum} PostgreSQL connections stayed in use for {seconds:g} s",
                dependency=DEPENDENCY,
                hint="raise OMNIBASE_POSTGRES_POOL_MAX or lower the operation's concurrency",
            )
        return DependencyUnavailableError(
            f"PostgreSQL did not accept a connection within {seconds:g} s", dependency=DEPENDENCY
        )

    # -- upkeep, beside the work ---------------------------------------------------------------------------------------

    def _start(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        self._upkeep.append(asyncio.create_task(work, name=f"postgres-pool-{what}"))

    async def _keep_floor(self) -> None:
        """Hold the minimum open: touching a connection restarts its idle time, and replaces it when it broke."""
        failures = 0
        while True:
            try:
                await self._touch()
            except (DependencyUnavailableError, TransientError):
                failures += 1
                await asyncio.sleep(_FLOOR_RETRIES.delay(failures))
            except ConfigurationError as error:
                get_logger().error(LogEvent.POOL_MISCONFIGURED, dependency=DEPENDENCY, error=error)
                return
            else:
                failures = 0
                await asyncio.sleep(self.options.idle_lifetime / 3)

    async def _touch(self) -> None:
        """Take what is free up to the minimum, make what is missing, give all back; wait for nothing that is lent."""
        pool, maximum = self._pool, self.options.maximum
        if pool is None:
            return
        async with AsyncExitStack() as held:
            while self._in_use < min(self.options.minimum, maximum) and self._in_use + self._waiting < maximum:
                connection = await self._take(pool)
                held.push_async_callback(self._give_back, pool, connection, full_reset=False, lease=None)

    async def take_new_credentials(self) -> None:
        """Look for new credentials now: the old ones may end soon, so no connection is to be lent that was made with them."""
        try:
            await self._connector.look_for_new_credentials()
            await self._drain()
        except (OmnibaseError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            # Tried again at the next look; callers find out for themselves.
            get_logger().warning(LogEvent.DEPENDENCY_UNAVAILABLE, dependency=DEPENDENCY, error=error)

    async def _follow_credentials(self) -> None:
        """Replace what was made with old credentials, also connections that nobody asks for."""
        while True:
            await asyncio.sleep(self.options.credentials_interval)
            await self.take_new_credentials()

    async def _drain(self) -> None:
        """Close the free connections that are worn; the others are seen to when they are given back."""
        pool = self._pool
        if pool is None:
            return
        # Each is given back whatever becomes of the others.
        async with AsyncExitStack() as held:
            for _ in range(pool.get_idle_size()):
                if not pool.get_idle_size():
                    break  # taken by callers meanwhile, who do the same
                connection = await pool.acquire(timeout=self.options.acquire_timeout)
                held.push_async_callback(self._release, pool, connection)

    async def _look_for_leaks(self, leases: LeaseWatch) -> None:
        while True:
            await asyncio.sleep(leases.bound_seconds / 4)
            leases.look()

    def _report_overdue(self, lease: OverdueLease) -> None:
        if self._sink is not None:
            self._sink.overdue()
        get_logger().warning(
            LogEvent.POOL_CONNECTION_OVERDUE,
            dependency=DEPENDENCY,
            acquired_at=lease.acquired_at,
            task=lease.task,
            seconds=lease.held_seconds,
        )


def _history(connection: Any) -> ConnectionHistory:
    history: ConnectionHistory = connection.history  # which the pool's proxy passes on
    return history


def _check_dsn(dsn: str) -> None:
    try:
        parts = urlsplit(dsn)
        well_formed = parts.scheme in ("postgresql", "postgres") and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed:
        raise SettingsError("OMNIBASE_POSTGRES_DSN is malformed", hint=f"expected {DSN_FORM}")
