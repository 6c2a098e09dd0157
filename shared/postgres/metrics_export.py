"""Show what the pool and the statements do on `/metrics`, and log statements that are slow."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import Counter

from omnibase_infra.shared.observability.batch_histogram import HistogramChild
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.metric_definitions import QUERY_FAILURES, QUERY_SECONDS, SLOW_QUERIES
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import PoolMetrics
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool


class _Children(NamedTuple):
    seconds: HistogramChild
    failures: Counter
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

    def observe_query(self, statement: str, seconds: float, *, failed: bool, slow: bool) -> None:
        """Count one round trip; log it when it was slow."""
        children = self._children.get(statement)
        if children is None:
            children = self._children[statement] = self._new_children(statement)
        children.seconds.observe(seconds)
        if failed:
            children.failures.inc()
        if slow:
            children.slow.inc()
            get_logger().warning(LogEvent.SLOW_QUERY, statement=statement, seconds=round(seconds, 3))

    def _new_children(self, statement: str) -> _Children:
        labels = {"worker": self._worker, "statement": statement}
        return _Children(
            self._registry.histogram(QUERY_SECONDS, **labels),
            self._registry.counter(QUERY_FAILURES, **labels),
            self._registry.counter(SLOW_QUERIES, **labels),
        )


def show_pool(pool: PostgresConnectionPool, gauges: PoolMetrics) -> None:
    """Let the gauges read the pool at each scrape."""
    gauges.connections.set_function(lambda: pool.state().size)
    gauges.in_use.set_function(lambda: pool.state().in_use)
    gauges.idle.set_function(lambda: pool.state().idle)
    gauges.waiting.set_function(lambda: pool.state().waiting)
