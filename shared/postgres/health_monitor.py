"""How PostgreSQL is, seen from this process: reachable, fast, writable, and with connections to spare.

    unhealthy   not reached, most statements fail for the server, or a round trip beyond the upper bound
    degraded    reached, but slow, read-only, some statements fail, or hardly a connection is free
    healthy     everything else

The runtime's own look each second is one of these checks, so that watching costs no further round trip.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from omnibase_infra.shared.core.clock import Clock, SystemClock, rfc3339
from omnibase_infra.shared.core.errors import DependencyError, DependencyUnavailableError
from omnibase_infra.shared.models.infrastructure.model_health_check import HealthState, ModelHealthCheck
from omnibase_infra.shared.postgres.connection_pool import PoolState, PostgresConnectionPool, is_lost
from omnibase_infra.shared.postgres.errors import DEPENDENCY, raise_classified

ReplicationRole = Literal["primary", "replica", ""]

_REMEMBERED_CHECKS: Final = 20
_LOOK: Final = "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean"


class HealthThresholds(msgspec.Struct, frozen=True, kw_only=True):
    """From where on PostgreSQL counts as degraded or unhealthy. Times in seconds.

    Attributes:
        slow_seconds: a round trip, or the 95th percentile of the last 200, beyond this is degraded.
        unhealthy_seconds: a round trip beyond this is unhealthy.
        degraded_error_rate / unhealthy_error_rate: share of statements that failed for the server or the connection.
        error_window: over how long that share is taken.
        least_calls: with fewer statements in the window the share says nothing.
        degraded_pool_use: share of the pool's connections in use.
    """

    slow_seconds: float = 0.25
    unhealthy_seconds: float = 2.0
    degraded_error_rate: float = 0.05
    unhealthy_error_rate: float = 0.5
    error_window: float = 60.0
    least_calls: int = 20
    degraded_pool_use: float = 0.9


class PostgresHealth(msgspec.Struct, frozen=True):
    """The result of one check.

    Attributes:
        status: `degraded` works, but not well; `unhealthy` does not work.
        latency_ms: of one round trip on an open connection; None when there was none.
        server_version: for example `18.4`; empty when not reached.
        pool: connections of this process.
        message: why it is not healthy; empty otherwise.
        recent_failures: checks without an answer among the last 20, this one included.
        role: of the server in replication; empty when not reached.
        latency_p50_ms / latency_p95_ms / latency_p99_ms: of the last 200 round trips; None before the first.
        error_rate: share of the last minute's statements that failed for the server or the connection.
    """

    status: HealthState
    latency_ms: float | None
    server_version: str
    pool: PoolState
    message: str
    recent_failures: int
    role: ReplicationRole = ""
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    error_rate: float = 0.0


class _Answer(msgspec.Struct, frozen=True):
    """What the server said, and how long that took."""

    role: ReplicationRole
    read_only: bool
    seconds: float
    version: str


class PostgresHealthMonitor:
    """Checks one pool's database. Used from the event loop.

    Attributes:
        last: result of the last check; None before the first.
    """

    def __init__(
        self,
        pool: PostgresConnectionPool,
        thresholds: HealthThresholds | None = None,
        *,
        clock: Clock | None = None,
        on_check: Callable[[PostgresHealth], None] | None = None,
    ) -> None:
        """Args:
        pool: whose connections are used.
        thresholds: from where on it is degraded or unhealthy.
        clock: for the time of a check and the window of the error rate.
        on_check: told of each result.
        """
        self._pool = pool
        self._thresholds = thresholds or HealthThresholds()
        self._clock = clock or SystemClock()
        self._on_check = on_check
        self._unanswered: deque[bool] = deque(maxlen=_REMEMBERED_CHECKS)
        self._seconds = pool.round_trips
        # (when, calls, outages) so far, the oldest first; the first one is as old as the window or just older.
        self._counts: deque[tuple[float, int, int]] = deque([(self._clock.monotonic(), 0, 0)])
        self.last: PostgresHealth | None = None

    async def check(self) -> PostgresHealth:
        """Do one round trip. A server that is down is a result, no error; waits no longer than the acquire time-out
        for a connection and as long again for the answer.
        """
        try:
            return self._judge(await self._look(), None)
        except DependencyError as error:
            return self._judge(None, error)

    async def ping(self) -> None:
        """Do one check, for who cannot go on without a server that can be written to.

        Raises:
            DependencyUnavailableError: it cannot be reached, does not answer in time, or is read-only.
            TransientError: all connections are in use.
        """
        try:
            answer = await self._look()
        except DependencyError as error:
            self._judge(None, error)
            raise
        except asyncio.CancelledError:
            # Who pings has a shorter patience than the pool; what is remembered must not stay healthy meanwhile.
            late = DependencyUnavailableError("PostgreSQL did not answer in time", dependency=DEPENDENCY)
            self._judge(None, late)
            raise
        self._judge(answer, None)
        if answer.role == "replica":
            # After a fail-over the address leads to another server; connections to the old one would stay with it.
            self._pool.leave_server()
        if answer.read_only:
            raise DependencyUnavailableError(
                "PostgreSQL is read-only" + (": it is a replica" if answer.role == "replica" else ""),
                dependency=DEPENDENCY,
                hint="let OMNIBASE_POSTGRES_DSN lead to the primary",
            )

    async def health_check(self) -> ModelHealthCheck:
        """Do one check and return it in the form all dependencies share."""
        health = await self.check()
        details = {f"pool_{name}": str(value) for name, value in msgspec.to_builtins(health.pool).items()}
        details |= {
            "server_version": health.server_version,
            "role": health.role,
            "error_rate": f"{health.error_rate:g}",
        }
        for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms"):
            if (value := getattr(health, name)) is not None:
                details[name] = f"{value:g}"
        return ModelHealthCheck(
            dependency=DEPENDENCY,
            status=health.status,
            checked_at=rfc3339(self._clock.time()),
            latency_ms=health.latency_ms,
            message=health.message,
            details=details,
        )

    def describe(self) -> dict[str, Any]:
        """Return the last result, the connections held too long and the patterns that took most time, for `/info`."""
        return {
            "health": msgspec.to_builtins(self.last) if self.last is not None else None,
            "pool": msgspec.to_builtins(self._pool.state()),
            "overdue": msgspec.to_builtins(self._pool.overdue()),
            "top_patterns": msgspec.to_builtins(self._pool.query_metrics.top_patterns()),
        }

    async def _look(self) -> _Answer:
        pool = self._pool
        async with pool.acquire() as connection:
            started = time.perf_counter()
            try:
                with pool.query_metrics.measure("health_check"):
                    row = await connection.fetchrow(_LOOK, timeout=pool.options.acquire_timeout)
            except Exception as error:  # noqa: BLE001 - raised again, classified
                raise_classified(error, connection_lost=is_lost(connection))
            seconds = time.perf_counter() - started
            version = connection.get_server_version()  # asyncpg keeps the 4 of 18.4 as the micro version
        assert row is not None
        role: ReplicationRole = "replica" if row[0] else "primary"
        return _Answer(role, row[0] or row[1], seconds, f"{version.major}.{version.micro}")

    def _judge(self, answer: _Answer | None, error: DependencyError | None) -> PostgresHealth:
        if answer is not None:
            self._seconds.append(answer.seconds)
        self._unanswered.append(isinstance(error, DependencyUnavailableError))
        rate, pool = self._error_rate(), self._pool.state()
        p50, p95, p99 = (self._percentile(share) for share in (0.5, 0.95, 0.99))
        findings = self._findings(answer, error, pool, rate, p95)
        states = [state for state, _ in findings]
        self.last = health = PostgresHealth(
            status="unhealthy" if "unhealthy" in states else "degraded" if states else "healthy",
            latency_ms=_milliseconds(answer.seconds) if answer is not None else None,
            server_version=answer.version if answer is not None else "",
            pool=pool,
            message="; ".join(text for _, text in findings),
            recent_failures=sum(self._unanswered),
            role=answer.role if answer is not None else "",
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
            error_rate=round(rate, 4),
        )
        if self._on_check is not None:
            self._on_check(health)
        return health

    def _findings(
        self, answer: _Answer | None, error: DependencyError | None, pool: PoolState, rate: float, p95: float | None
    ) -> list[tuple[HealthState, str]]:
        limits = self._thresholds
        found: list[tuple[HealthState, str]] = []
        if error is not None:
            found.append(("unhealthy" if isinstance(error, DependencyUnavailableError) else "degraded", str(error)))
        if answer is not None:
            if answer.read_only:
                found.append(("degraded", f"the server is {'a replica' if answer.role == 'replica' else 'read-only'}"))
            if answer.seconds > limits.slow_seconds:
                state: HealthState = "unhealthy" if answer.seconds > limits.unhealthy_seconds else "degraded"
                found.append((state, f"a round trip took {answer.seconds * 1000:.0f} ms"))
            elif p95 is not None and p95 > limits.slow_seconds * 1000:
                found.append(("degraded", f"one in twenty round trips takes more than {p95:.0f} ms"))
            if pool.in_use >= limits.degraded_pool_use * pool.max and pool.waiting:
                found.append(("degraded", f"{pool.in_use} of {pool.max} connections are in use, {pool.waiting} wait"))
        if rate >= limits.degraded_error_rate:
            state = "unhealthy" if rate >= limits.unhealthy_error_rate else "degraded"
            found.append((state, f"{rate:.0%} of the statements of the last {limits.error_window:g} s failed"))
        return found

    def _error_rate(self) -> float:
        metrics, now, counts = self._pool.query_metrics, self._clock.monotonic(), self._counts
        counts.append((now, metrics.calls, metrics.outages))
        while len(counts) > 2 and now - counts[1][0] >= self._thresholds.error_window:
            counts.popleft()
        _, calls, outages = counts[0]
        recent = metrics.calls - calls
        return (metrics.outages - outages) / recent if recent >= self._thresholds.least_calls else 0.0

    def _percentile(self, share: float) -> float | None:
        if not self._seconds:
            return None
        ordered = sorted(self._seconds)
        return _milliseconds(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
