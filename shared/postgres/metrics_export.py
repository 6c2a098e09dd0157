"""Show what the pool and the statements do on `/metrics`, and log statements that are slow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import Counter

from omnibase_infra.shared.models.infrastructure.model_health_check import HealthState
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.batch_histogram import HistogramChild
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import PoolMetrics
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.errors import DEPENDENCY
from omnibase_infra.shared.postgres.fingerprints import QueryPattern, pattern_of
from omnibase_infra.shared.postgres.health_monitor import PostgresHealth
from omnibase_infra.shared.postgres.pool_options import Retirement
from omnibase_infra.shared.postgres.statements import Statement

_HEALTH_VALUES: Final[Mapping[HealthState, int]] = {"healthy": 0, "degraded": 1, "unhealthy": 2}


class _Children(NamedTuple):
    seconds: HistogramChild
    failures: Counter
    outages: Counter
    slow: Counter


class MetricsQuerySink:
    """Puts each observed statement into a registry; implements `query_metrics.QuerySink`."""

    def __init__(self, registry: MetricsRegistry, worker: str) -> None:
        """Args:
        registry: of the process.
        worker: value of the label of that name.
        """
        self._registry = registry
        self._worker = worker
        self._children: dict[str, _Children] = {}

    def observe_query(
        self,
        statement: str,
        seconds: float,
        *,
        failed: bool,
        outage: bool,
        slow: bool,
        pattern: QueryPattern | None,
    ) -> None:
        """Count one round trip; log it when it was slow: its name and pattern, no parameter and no literal."""
        children = self._children.get(statement)
        if children is None:
            children = self._children[statement] = self._new_children(statement)
        children.seconds.observe(seconds)
        if failed:
            children.failures.inc()
        if outage:
            children.outages.inc()
        if slow:
            children.slow.inc()
            get_logger().warning(
                LogEvent.SLOW_QUERY,
                statement=statement,
                seconds=round(seconds, 3),
                **({"fingerprint": pattern.fingerprint, "pattern": pattern.text} if pattern is not None else {}),
            )

    def show_patterns(self, statements: Iterable[Statement]) -> None:
        """Say which fingerprints the statements of a contract have; not for SQL of other people, which has no end."""
        for statement in statements:
            for sql in filter(None, (statement.sql, statement.batch_sql)):
                fingerprint = pattern_of(sql).fingerprint
                labels = {"worker": self._worker, "statement": statement.name, "fingerprint": fingerprint}
                self._registry.gauge(metric.QUERY_PATTERN, **labels).set(1)

    def _new_children(self, statement: str) -> _Children:
        labels = {"worker": self._worker, "statement": statement}
        return _Children(
            self._registry.histogram(metric.QUERY_SECONDS, **labels),
            self._registry.counter(metric.QUERY_FAILURES, **labels),
            self._registry.counter(metric.QUERY_OUTAGES, **labels),
            self._registry.counter(metric.SLOW_QUERIES, **labels),
        )


class MetricsPoolSink:
    """Counts what happens in a pool; implements `pool_options.PoolSink`."""

    def __init__(self, registry: MetricsRegistry, worker: str, dependency: str = DEPENDENCY) -> None:
        """Args:
        registry: of the process.
        worker / dependency: values of the labels of these names.
        """
        self._registry = registry
        self._labels = {"worker": worker, "dependency": dependency}
        self._wait = registry.histogram(metric.POOL_WAIT_SECONDS, **self._labels)
        self._connects = registry.counter(metric.POOL_CONNECTS, **self._labels)
        self._exhausted = registry.counter(metric.POOL_EXHAUSTED, **self._labels)
        self._overdue = registry.counter(metric.POOL_OVERDUE, **self._labels)

    def lent(self, waited_seconds: float) -> None:
        """Count a wait that ended with a connection."""
        self._wait.observe(waited_seconds)

    def exhausted(self) -> None:
        """Count a caller that got none."""
        self._exhausted.inc()

    def connected(self) -> None:
        """Count a new connection."""
        self._connects.inc()

    def connect_failed(self, code: str) -> None:
        """Count a connection that could not be made, by the code of the error."""
        self._registry.counter(metric.POOL_CONNECT_FAILURES, **self._labels, code=code).inc()

    def retired(self, reason: Retirement) -> None:
        """Count a connection that was closed to be replaced."""
        self._registry.counter(metric.POOL_RETIRED, **self._labels, reason=reason).inc()

    def overdue(self) -> None:
        """Count a connection that is held for too long."""
        self._overdue.inc()


def show_pool(pool: PostgresConnectionPool, gauges: PoolMetrics) -> None:
    """Let the gauges read the pool at each scrape."""
    gauges.connections.set_function(lambda: pool.state().size)
    gauges.in_use.set_function(lambda: pool.state().in_use)
    gauges.idle.set_function(lambda: pool.state().idle)
    gauges.waiting.set_function(lambda: pool.state().waiting)


class MetricsHealthSink:
    """Shows each health check; give its `checked` to a monitor."""

    def __init__(self, registry: MetricsRegistry, worker: str, dependency: str = DEPENDENCY) -> None:
        """Args:
        registry: of the process.
        worker / dependency: values of the labels of these names.
        """
        labels = {"worker": worker, "dependency": dependency}
        self._state = registry.gauge(metric.DEPENDENCY_HEALTH, **labels)
        self._round_trip = registry.histogram(metric.DEPENDENCY_ROUND_TRIP_SECONDS, **labels)

    def checked(self, health: PostgresHealth) -> None:
        """Show a result."""
        self._state.set(_HEALTH_VALUES[health.status])
        if health.latency_ms is not None:
            self._round_trip.observe(health.latency_ms / 1000)
