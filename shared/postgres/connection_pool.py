"""The pool of PostgreSQL connections of a process. Opens without a server; a worker then starts unready.

No statements and no transactions here: those are `effect_store` and `statements`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import asyncpg
import msgspec

from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    DependencyBusyError,
    DependencyUnavailableError,
    SettingsError,
    TransientError,
)
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.postgres.errors import DEPENDENCY, classify_connect
from omnibase_infra.shared.postgres.query_metrics import QueryMetrics

Connection = asyncpg.pool.PoolConnectionProxy

SEARCH_PATH: Final = "public"

_DSN_FORM: Final = "postgresql://user:password@host:port/database?sslmode=…; percent-encode special characters"
_FULL_RESET: Final = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *;"
)
_FLOOR_RETRY_SECONDS: Final = (1.0, 30.0)


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool behaves. Times in seconds.

    Attributes:
        minimum: connections kept open once the server has been reached.
        maximum: connections at most; further callers wait.
        acquire_timeout: how long a caller waits for a connection, and one attempt to connect takes, at most.
        statement_timeout: PostgreSQL cancels a longer statement.
        response_margin: how long after that we call a server that has said nothing unavailable.
        lock_timeout: PostgreSQL gives up waiting for a lock.
        idle_in_transaction_timeout: PostgreSQL ends the session of a worker that froze inside a transaction, so
            that it does not hold inbox rows for ever.
        idle_lifetime: a connection above the minimum is closed after so long without use.
        search_path: where unqualified names are looked up. Not the server's default: that begins with the schema
            named like the user, so that for a user `omnibase` tables of nodes would land among our own.
        application_name: how the sessions are named in `pg_stat_activity`.
    """

    minimum: int = 1
    maximum: int = 10
    acquire_timeout: float = 5.0
    statement_timeout: float = 30.0
    response_margin: float = 5.0
    lock_timeout: float = 5.0
    idle_in_transaction_timeout: float = 60.0
    idle_lifetime: float = 300.0
    search_path: str = SEARCH_PATH
    application_name: str = "omnibase"

    @classmethod
    def from_settings(cls, settings: Settings, *, application_name: str = "omnibase") -> PoolOptions:
        """Return the options that the process settings ask for."""
        return cls(
            minimum=min(settings.postgres_pool_min, settings.postgres_pool_max),
            maximum=settings.postgres_pool_max,
            acquire_timeout=settings.postgres_acquire_timeout_seconds,
            statement_timeout=settings.postgres_statement_timeout_seconds,
            lock_timeout=settings.postgres_lock_timeout_seconds,
            application_name=application_name,
        )

    def server_settings(self) -> dict[str, str]:
        """Return what each session is started with; it survives a reset of the session."""
        return {
            "application_name": self.application_name[:63],
            "search_path": self.search_path,
            "statement_timeout": _milliseconds(self.statement_timeout),
            "lock_timeout": _milliseconds(self.lock_timeout),
            "idle_in_transaction_session_timeout": _milliseconds(self.idle_in_transaction_timeout),
            # Plans of our short statements never pay for compiling them.
            "jit": "off",
        }


class PoolState(msgspec.Struct, frozen=True):
    """A pool at one moment: open connections, those in use and idle, callers that wait, and the most there may be."""

    size: int
    in_use: int
    idle: int
    waiting: int
    max: int


class MeteredConnection(asyncpg.Connection):
    """A connection that carries its pool's metrics, so that kit code finds them, and costs nothing to give back.

    asyncpg resets the session with a round trip at each release, which took 40 % of a short statement's time. Our
    sessions leave nothing behind: settings, locks and cursors are those of a transaction. Who runs other people's
    SQL asks the pool for the full reset.
    """

    __slots__ = ("query_metrics",)

    query_metrics: QueryMetrics

    def get_reset_query(self) -> str:
        """Return no statement; a transaction that is still open is rolled back all the same."""
        return ""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Run a command as asyncpg does, and let no failed transaction pass for a committed one.

        Raises:
            InFailedSQLTransactionError: PostgreSQL answered COMMIT with a rollback, since an error inside the
                transaction was caught and ignored.
        """
        status = await super().execute(query, *args, timeout=timeout)
        if query == "COMMIT;" and status != "COMMIT":
            raise asyncpg.InFailedSQLTransactionError("an error inside the transaction was ignored: it was rolled back")
        return status


class PostgresConnectionPool:
    """Connections to one database, handed out one task at a time. Use as `async with`, or `open` and `close`.

    A connection that broke is dropped and replaced at the next `acquire`. Cancelling a caller, at any point, neither
    leaks a connection nor hands out one that is in the middle of something.
    """

    def __init__(
        self, dsn: str, options: PoolOptions | None = None, *, query_metrics: QueryMetrics | None = None
    ) -> None:
        """Args:
            dsn: address with credentials; TLS by its `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
            options: limits and time-outs.
            query_metrics: where kit code counts its statements; default: metrics of this pool's own.

        Raises:
            SettingsError: the address is malformed.
        """
        _check_dsn(dsn)
        self._dsn = dsn
        self.options = options or PoolOptions()
        self.query_metrics = query_metrics or QueryMetrics()
        self._pool: asyncpg.Pool | None = None
        self._floor: asyncio.Task[None] | None = None
        self._in_use = 0
        self._waiting = 0

    @classmethod
    def from_settings(
        cls, settings: Settings, *, application_name: str = "omnibase", query_metrics: QueryMetrics | None = None
    ) -> PostgresConnectionPool:
        """Return a pool as the process settings say.

        Raises:
            SettingsError: no address is set, or it is malformed.
        """
        options = PoolOptions.from_settings(settings, application_name=application_name)
        return cls(require_postgres(settings), options, query_metrics=query_metrics)

    def __repr__(self) -> str:
        return f"<PostgresConnectionPool {self.options.application_name} {self.state()}>"

    async def open(self) -> None:
        """Get ready to hand out connections. Waits for no server: a missing one shows at `acquire`. Repeatable."""
        if self._pool is not None:
            return
        options = self.options
        pool = asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=options.maximum,
            max_queries=2**62,
            max_inactive_connection_lifetime=options.idle_lifetime,
            init=self._prepare_connection,
            connection_class=MeteredConnection,
            timeout=options.acquire_timeout,
            command_timeout=options.statement_timeout + options.response_margin,
            server_settings=options.server_settings(),
        )
        await pool
        self._pool = pool
        if options.minimum:
            self._floor = asyncio.create_task(self._keep_floor(), name="postgres-pool-floor")

    async def close(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - bounds the whole, then ends it by force
        """Wait for connections in use, close all; after `timeout` seconds cut those that are left. Repeatable."""
        pool, self._pool = self._pool, None
        floor, self._floor = self._floor, None
        if floor is not None:
            floor.cancel()
            await asyncio.wait([floor])
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
            DependencyBusyError: all connections stayed in use for the acquire time-out.
            DependencyUnavailableError: no connection could be made within it, or the pool is closed.
            SettingsError: the driver does not understand the address.
        """
        pool = self._pool
        if pool is None:
            raise DependencyUnavailableError("the PostgreSQL pool is not open", dependency=DEPENDENCY)
        connection = await self._take(pool)
        try:
            yield connection
        finally:
            await self._give_back(pool, connection, full_reset)

    def state(self) -> PoolState:
        """Return the pool's state now; no round trip."""
        pool = self._pool
        size = pool.get_size() if pool is not None else 0
        idle = pool.get_idle_size() if pool is not None else 0
        return PoolState(size=size, in_use=self._in_use, idle=idle, waiting=self._waiting, max=self.options.maximum)

    async def _take(self, pool: asyncpg.Pool) -> Connection[asyncpg.Record]:
        self._waiting += 1
        try:
            connection = await pool.acquire(timeout=self.options.acquire_timeout)
        except TimeoutError:
            raise self._timed_out() from None
        except (asyncpg.ClientConfigurationError, ValueError):
            # The driver's text may quote parts of the address.
            raise SettingsError("OMNIBASE_POSTGRES_DSN is malformed", hint=f"expected {_DSN_FORM}") from None
        except Exception as error:
            classified = classify_connect(error)
            if classified is error:
                raise
            raise classified from error
        finally:
            self._waiting -= 1
        self._in_use += 1
        return connection

    async def _give_back(self, pool: asyncpg.Pool, connection: Connection[asyncpg.Record], full_reset: bool) -> None:
        try:
            if full_reset and not is_lost(connection) and not connection.is_in_transaction():
                await connection.execute(_FULL_RESET)
        except BaseException:
            connection.terminate()
            raise
        finally:
            self._in_use -= 1
            try:
                await pool.release(connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                # The block's outcome stands; the pool has dropped the connection.
                get_logger().warning(
                    LogEvent.POOL_CONNECTION_DROPPED, dependency=DEPENDENCY, reason=type(error).__name__
                )

    def _timed_out(self) -> Exception:
        seconds = self.options.acquire_timeout
        if self._in_use >= self.options.maximum:
            get_logger().warning(LogEvent.POOL_EXHAUSTED, dependency=DEPENDENCY, max=self.options.maximum)
            return DependencyBusyError(
                f"all {self.options.maximum} PostgreSQL connections stayed in use for {seconds:g} s",
                dependency=DEPENDENCY,
                hint="raise OMNIBASE_POSTGRES_POOL_MAX or lower the operation's concurrency",
            )
        return DependencyUnavailableError(
            f"PostgreSQL did not accept a connection within {seconds:g} s", dependency=DEPENDENCY
        )

    async def _prepare_connection(self, connection: asyncpg.Connection) -> None:
        assert isinstance(connection, MeteredConnection)
        connection.query_metrics = self.query_metrics
        await set_json_codecs(connection)

    async def _keep_floor(self) -> None:
        """Hold the minimum open: touching a connection restarts its idle time, and replaces it when it broke."""
        delay, longest = _FLOOR_RETRY_SECONDS
        while True:
            try:
                await self._touch(self.options.minimum - self._in_use)
            except (DependencyUnavailableError, TransientError):
                await asyncio.sleep(delay)
                delay = min(delay * 2, longest)
            except ConfigurationError as error:
                get_logger().error(LogEvent.POOL_MISCONFIGURED, dependency=DEPENDENCY, error=error)
                return
            else:
                delay = _FLOOR_RETRY_SECONDS[0]
                await asyncio.sleep(self.options.idle_lifetime / 3)

    async def _touch(self, count: int) -> None:
        if count <= 0:
            return
        async with self.acquire():
            await self._touch(count - 1)


def is_lost(connection: asyncpg.Connection | Connection[asyncpg.Record]) -> bool:
    """Return whether a connection taken from a pool has been closed, by whichever side."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool has taken a broken one back already


async def set_json_codecs(connection: asyncpg.Connection) -> None:
    """Make `json` and `jsonb` columns plain Python values, by msgspec. Also for connections outside a pool."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )
    await connection.set_type_codec(
        "json", schema="pg_catalog", format="binary", encoder=_encode_json, decoder=_json_decoder.decode
    )


class JsonValue:
    """A list inside an array of JSON values; the driver would take a bare list for another array dimension."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


_json_encoder = msgspec.json.Encoder()
_json_decoder = msgspec.json.Decoder()


def _encode_json(value: Any) -> bytes:
    return _json_encoder.encode(value.value if type(value) is JsonValue else value)


def _encode_jsonb(value: Any) -> bytes:
    # jsonb's binary form is a version byte and the text.
    return b"\x01" + _encode_json(value)


def _decode_jsonb(data: bytes) -> Any:
    return _json_decoder.decode(memoryview(data)[1:])


def _milliseconds(seconds: float) -> str:
    # 0 would switch the time-out off.
    return str(max(1, round(seconds * 1000)))


def _check_dsn(dsn: str) -> None:
    try:
        parts = urlsplit(dsn)
        well_formed = parts.scheme in ("postgresql", "postgres") and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed:
        raise SettingsError("OMNIBASE_POSTGRES_DSN is malformed", hint=f"expected {_DSN_FORM}")
