from __future__ import annotations

import pytest
import structlog
from structlog.testing import capture_logs

from omnibase_infra.shared.core.errors import DependencyBusyError, DependencyUnavailableError
from omnibase_infra.shared.observability.metric_definitions import (
    POOL_CONNECTIONS,
    POOL_IDLE,
    POOL_IN_USE,
    POOL_WAITING,
)
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import PoolMetrics
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.metrics_export import MetricsPoolSink, MetricsQuerySink, show_pool
from omnibase_infra.shared.postgres.query_metrics import QueryMetrics
from omnibase_infra.shared.postgres.statements import Statement
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase


def lines(registry: MetricsRegistry) -> set[str]:
    return set(registry.exposition().decode().splitlines())


def test_statements_are_counted_under_their_names() -> None:
    registry = MetricsRegistry(process_metrics=False)
    sink = MetricsQuerySink(registry, "order-store")
    metrics = QueryMetrics(slow_seconds=0.5, sink=sink)
    with capture_logs() as logs:
        metrics.observe("insert_order", 0.25, failed=False)
        metrics.observe("insert_order", 2.0, failed=True, outage=True, sql="SELECT pg_sleep(2), 'secret'")
        metrics.observe("insert_order", 2.0, failed=False)
    labels = 'statement="insert_order",worker="order-store"'
    shown = {line.replace('worker="order-store",statement="insert_order"', labels) for line in lines(registry)}
    assert f"omnibase_query_seconds_count{{{labels}}} 3.0" in shown
    assert f"omnibase_query_failures_total{{{labels}}} 1.0" in shown
    assert f"omnibase_query_outages_total{{{labels}}} 1.0" in shown
    assert f"omnibase_slow_queries_total{{{labels}}} 2.0" in shown
    assert [(line["event"], line["statement"], line.get("pattern")) for line in logs] == [
        ("slow_query", "insert_order", "select pg_sleep (?), ?"),
        ("slow_query", "insert_order", None),
    ]
    assert len(logs[0]["fingerprint"]) == 16
    structlog.reset_defaults()


def test_statements_of_the_contract_show_their_fingerprints() -> None:
    registry = MetricsRegistry(process_metrics=False)
    statement = Statement(
        name="get_order",
        sql="SELECT * FROM orders WHERE id = $1 AND note IN ($2)",
        cardinality="one",
        parameters=("id", "note"),
        row=None,
        batch_sql="SELECT * FROM orders WHERE id = ANY($1)",
    )
    MetricsQuerySink(registry, "order-store").show_patterns([statement])
    shown = [line for line in lines(registry) if line.startswith("omnibase_query_pattern{")]
    assert len(shown) == 2
    assert all('statement="get_order"' in line for line in shown)
    assert any('fingerprint="21473078e2678aa9"' in line for line in shown)


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


async def test_waits_connects_and_retirements_are_counted(postgres_test_db: PostgresDatabase) -> None:
    registry = MetricsRegistry(process_metrics=False)
    options = PoolOptions(minimum=0, maximum=1, maximum_uses=2, acquire_timeout=0.2)
    sink = MetricsPoolSink(registry, "order-store")
    async with PostgresConnectionPool(postgres_test_db.dsn, options, sink=sink) as pool:
        for _ in range(3):
            async with pool.acquire():
                pass
        async with pool.acquire():
            with pytest.raises(DependencyBusyError):
                async with pool.acquire():
                    pass
    shown = {line.partition("{")[0] + line.rpartition("}")[2] for line in lines(registry)}
    assert "omnibase_pool_wait_seconds_count 4.0" in shown
    assert "omnibase_pool_connects_total 2.0" in shown
    assert "omnibase_pool_retired_total 2.0" in shown
    assert "omnibase_pool_exhausted_total 1.0" in shown
    assert any('reason="uses"' in line for line in lines(registry))


async def test_failed_connects_are_counted_by_code(unused_tcp_port: int) -> None:
    registry = MetricsRegistry(process_metrics=False)
    dsn = f"postgresql://u:p@127.0.0.1:{unused_tcp_port}/db"
    async with PostgresConnectionPool(dsn, PoolOptions(minimum=0), sink=MetricsPoolSink(registry, "a")) as pool:
        with pytest.raises(DependencyUnavailableError):
            async with pool.acquire():
                pass
    (line,) = [line for line in lines(registry) if line.startswith("omnibase_pool_connect_failures_total{")]
    assert 'code="dependency-unavailable"' in line
    assert line.endswith(" 1.0")
