"""How PostgreSQL is, seen from this process: reachable, fast, writable, and with connections to spare."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import msgspec

from omnibase_infra.shared.core.clock import Clock, SystemClock, rfc3339
from omnibase_infra.shared.core.errors import DependencyUnavailableError, TransientError
from omnibase_infra.shared.models.infrastructure.model_health_check import HealthState, ModelHealthCheck
from omnibase_infra.shared.postgres.connection_pool import PoolState, PostgresConnectionPool, is_lost
from omnibase_infra.shared.postgres.errors import DEPENDENCY, raise_classified

_REMEMBERED_CHECKS: Final = 20


class PostgresHealth(msgspec.Struct, frozen=True):
    """The result of one check.

    Attributes:
        status: `degraded` works, but slowly, read-only, or with every connection in use; `unhealthy` does not work.
        latency_ms: of one round trip on an open connection; None when there was none.
        server_version: for example `18.4`; empty when not reached.
        pool: connections of this process.
        message: why it is not healthy; empty otherwise.
        recent_failures: unhealthy results among the last 20 checks, this one included.
    """

    status: HealthState
    latency_ms: float | None
    server_version: str
    pool: PoolState
    message: str
    recent_failures: int


class PostgresHealthMonitor:
    """Checks one pool's database. Used from the event loop."""

    def __init__(self, pool: PostgresConnectionPool, *, slow_seconds: float = 0.25, clock: Clock | None = None) -> None:
        """Args:
        pool: whose connections are used.
        slow_seconds: a longer round trip counts as degraded.
        clock: for the time of a check.
        """
        self._pool = pool
        self._slow_seconds = slow_seconds
        self._clock = clock or SystemClock()
        self._unhealthy: deque[bool] = deque(maxlen=_REMEMBERED_CHECKS)

    async def check(self) -> PostgresHealth:
        """Do one round trip. A server that is down is a result, no error; waits no longer than the acquire time-out
        for a connection and as long again for the answer.
        """
        try:
            status, latency_ms, version, message = await self._look()
        except DependencyUnavailableError as error:
            status, latency_ms, version, message = "unhealthy", None, "", str(error)
        except TransientError as error:
            status, latency_ms, version, message = "degraded", None, "", str(error)
        self._unhealthy.append(status == "unhealthy")
        return PostgresHealth(status, latency_ms, version, self._pool.state(), message, sum(self._unhealthy))

    async def health_check(self) -> ModelHealthCheck:
        """Do one check and return it in the form all dependencies share."""
        health = await self.check()
        pool = msgspec.to_builtins(health.pool)
        details = {f"pool_{name}": str(value) for name, value in pool.items()}
        return ModelHealthCheck(
            dependency=DEPENDENCY,
            status=health.status,
            checked_at=rfc3339(self._clock.time()),
            latency_ms=health.latency_ms,
            message=health.message,
            details=details | {"server_version": health.server_version},
        )

    async def _look(self) -> tuple[HealthState, float, str, str]:
        pool = self._pool
        async with pool.acquire() as connection:
            started = time.perf_counter()
            try:
                with pool.query_metrics.measure("health_check"):
                    read_only = await connection.fetchval(
                        "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean",
                        timeout=pool.options.acquire_timeout,
                    )
            except Exception as error:  # noqa: BLE001 - raised again, classified
                raise_classified(error, connection_lost=is_lost(connection))
            seconds = time.perf_counter() - started
            version = connection.get_server_version()  # asyncpg keeps the 4 of 18.4 as the micro version
        messages = []
        if read_only:
            messages.append("the server is read-only")
        if seconds > self._slow_seconds:
            messages.append(f"a round trip took {seconds * 1000:.0f} ms")
        status: HealthState = "degraded" if messages else "healthy"
        return status, round(seconds * 1000, 3), f"{version.major}.{version.micro}", "; ".join(messages)
