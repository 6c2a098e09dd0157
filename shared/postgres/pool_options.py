"""How a pool of PostgreSQL connections behaves, what it is like at one moment, and whom it tells what happens."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

from omnibase_infra.shared.core.settings import Settings

SEARCH_PATH: Final = "public"

Retirement = Literal["age", "uses", "credentials", "replica"]


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
        maximum_age: a connection is replaced when it is so old, less up to a tenth by chance, so that those opened
            together do not go together; 0: never.
        maximum_uses: a connection is replaced when it was lent so often; 0: never.
        leak_seconds: a connection held for longer is logged with the place that acquired it; 0: nobody looks.
        credentials_interval: how often credentials that may change are compared to those in use.
        search_path: where unqualified names are looked up. Not the server's default: that begins with the schema
            named like the user, so that for a user `omnibase` tables of nodes would land among our own.
        application_name: how the sessions are named in `pg_stat_activity`.
    """

    minimum: int = 10
    maximum: int = 50
    acquire_timeout: float = 5.0
    statement_timeout: float = 30.0
    response_margin: float = 5.0
    lock_timeout: float = 5.0
    idle_in_transaction_timeout: float = 60.0
    idle_lifetime: float = 300.0
    maximum_age: float = 3600.0
    maximum_uses: int = 100_000
    leak_seconds: float = 60.0
    credentials_interval: float = 5.0
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
            maximum_age=settings.postgres_connection_max_age_seconds,
            maximum_uses=settings.postgres_connection_max_uses,
            leak_seconds=settings.postgres_leak_seconds,
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
    """A pool at one moment.

    Attributes:
        size: open connections, of which `in_use` are lent and `idle` are free.
        waiting: callers that wait for a connection.
        max: the most there may be.
        overdue: lent for longer than the leak bound.
    """

    size: int
    in_use: int
    idle: int
    waiting: int
    max: int
    overdue: int = 0


class PoolSink(Protocol):
    """Where a pool's events go, for example Prometheus. Called on the event loop; must not block or raise."""

    def lent(self, waited_seconds: float) -> None:
        """A caller got a connection."""
        ...

    def exhausted(self) -> None:
        """A caller got none, since all stayed in use."""
        ...

    def connected(self) -> None:
        """A connection was made."""
        ...

    def connect_failed(self, code: str) -> None:
        """A connection could not be made; `code` is the error's."""
        ...

    def retired(self, reason: Retirement) -> None:
        """A connection was closed, to be replaced when one is needed."""
        ...

    def overdue(self) -> None:
        """A connection is held for longer than the leak bound."""
        ...


def _milliseconds(seconds: float) -> str:
    # 0 would switch the time-out off.
    return str(max(1, round(seconds * 1000)))
