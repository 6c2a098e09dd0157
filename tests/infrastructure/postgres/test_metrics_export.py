from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from omnibase_infra.shared.observability.metric_definitions import (
    POOL_CONNECTIONS,
    POOL_IDLE,
    POOL_IN_USE,
    POOL_WAITING,
)
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import PoolMetrics
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.metrics_export import MetricsQuerySink, show_pool
from omnibase_infra.shared.postgres.query_metrics import QueryMetrics
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase


def lines(registry: MetricsRegistry) -> set[str]:
    return set(registry.exposition().decode().splitlines())


def test_statements_are_counted_under_their_names() -> None:
    registry = MetricsRegistry(process_metrics=False)
    metrics = QueryMetrics(slow_seconds=0.5, sink=MetricsQuerySink(registry, "order-store"))
    with capture_logs() as logs:
        metrics.observe("insert_order", 0.25, failed=False)
        metrics.observe("insert_order", 2.0, failed=True)
    labels = 'statement="insert_order",worker="order-store"'
    shown = {line.replace('worker="order-store",statement="insert_order"', labels) for line in lines(registry)}
    assert f"omnibase_query_seconds_count{{{labels}}} 2.0" in shown
    assert f"omnibase_query_failures_total{{{labels}}} 1.0" in shown
    assert f"omnibase_slow_queries_total{{{labels}}} 1.0" in shown
    assert [(line["event"], line["statement"]) for line in logs] == [("slow_query", "insert_order")]
    structlog.reset_defaults()


async def test_gauges_follow_the_pool(postgres_test_db: PostgresDatabase) -> None:
    registry = MetricsRegistry(process_metrics=False)
    labels = {"worker": "order-store", "dependency": "postgres"}
    async with PostgresConnectionPool(postgres_test_db.dsn, PoolOptions(minimum=0)) as pool:
        show_pool(pool, PoolMetrics(registry, labels))

        def shown() -> list[float]:
            gauges = (POOL_CONNECTIONS, POOL_IN_USE, POOL_IDLE, POOL_WAITING)
            return [next(iter(registry.gauge(gauge, **labels).collect())).samples[0].value for gauge in gauges]

        assert shown() == [0, 0, 0, 0]
        async with pool.acquire():
            assert shown() == [1, 1, 0, 0]
        assert shown() == [1, 0, 1, 0]
