from __future__ import annotations

import asyncio
import re

import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.local_services import PostgresService
from omnibase_infra.shared.models.infrastructure.model_health_check import ModelHealthCheck
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.health_monitor import HealthThresholds, PostgresHealth, PostgresHealthMonitor
from omnibase_infra.shared.testing.manual_clock import ManualClock
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

RELAXED = HealthThresholds(slow_seconds=10, unhealthy_seconds=20)


async def test_a_server_that_answers_is_healthy(postgres_connection_pool: PostgresConnectionPool) -> None:
    health = await PostgresHealthMonitor(postgres_connection_pool, RELAXED).check()
    assert (health.status, health.message, health.recent_failures) == ("healthy", "", 0)
    assert health.latency_ms is not None
    assert health.latency_ms > 0
    assert re.fullmatch(r"\d+\.\d+", health.server_version)
    assert health.pool.max == 10


async def test_a_slow_round_trip_is_degraded(postgres_connection_pool: PostgresConnectionPool) -> None:
    health = await PostgresHealthMonitor(postgres_connection_pool, HealthThresholds(slow_seconds=0)).check()
    assert health.status == "degraded"
    assert "round trip took" in health.message


async def test_a_very_slow_round_trip_is_unhealthy(postgres_connection_pool: PostgresConnectionPool) -> None:
    thresholds = HealthThresholds(slow_seconds=0, unhealthy_seconds=0)
    assert (await PostgresHealthMonitor(postgres_connection_pool, thresholds).check()).status == "unhealthy"


async def test_percentiles_are_those_of_all_checks_of_the_pool(
    postgres_connection_pool: PostgresConnectionPool,
) -> None:
    postgres_connection_pool.round_trips.extend([0.001] * 90 + [0.3] * 9)
    health = await PostgresHealthMonitor(postgres_connection_pool).check()
    assert (health.latency_p50_ms, health.latency_p95_ms) == (1.0, 300.0)
    assert health.latency_p99_ms is not None
    assert health.status == "degraded"
    assert "one in twenty round trips takes more than 300 ms" in health.message


@pytest.mark.parametrize(("outages", "status"), [(0, "healthy"), (3, "degraded"), (15, "unhealthy")])
async def test_statements_that_the_server_failed_make_it_degraded_or_unhealthy(
    postgres_connection_pool: PostgresConnectionPool, outages: int, status: str
) -> None:
    monitor = PostgresHealthMonitor(postgres_connection_pool, RELAXED)
    for number in range(29):
        # Refusals of what was asked are nobody's outage.
        postgres_connection_pool.query_metrics.observe("a", 0.001, failed=True, outage=number < outages)
    health = await monitor.check()
    assert (health.status, health.error_rate) == (status, round(outages / 30, 4))


async def test_the_error_rate_forgets(postgres_connection_pool: PostgresConnectionPool) -> None:
    clock = ManualClock()
    monitor = PostgresHealthMonitor(postgres_connection_pool, RELAXED, clock=clock)
    for _ in range(40):
        postgres_connection_pool.query_metrics.observe("a", 0.001, failed=True, outage=True)
    assert (await monitor.check()).status == "unhealthy"
    clock.advance(30)
    assert (await monitor.check()).status == "unhealthy"
    clock.advance(61)
    assert (await monitor.check()).status == "healthy"


async def test_what_can_only_read_is_no_place_to_work_at(postgres_test_db: PostgresDatabase) -> None:
    connection = await postgres_test_db.connect()
    await connection.execute(f"ALTER DATABASE {postgres_test_db.name} SET default_transaction_read_only = on")
    await connection.close()
    async with PostgresConnectionPool(postgres_test_db.dsn, PoolOptions(minimum=0)) as pool:
        monitor = PostgresHealthMonitor(pool, RELAXED)
        with pytest.raises(DependencyUnavailableError, match="PostgreSQL is read-only"):
            await monitor.ping()
        assert monitor.last is not None
        assert (monitor.last.role, monitor.last.status) == ("primary", "degraded")


async def test_a_ping_that_is_given_up_is_remembered_as_no_answer(postgres_test_db: PostgresDatabase) -> None:
    async with PostgresConnectionPool(postgres_test_db.dsn, PoolOptions(minimum=0, maximum=1)) as pool:
        monitor = PostgresHealthMonitor(pool, RELAXED)
        await monitor.ping()
        async with pool.acquire():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(monitor.ping(), 0.05)
        assert monitor.last is not None
        assert (monitor.last.status, monitor.last.message) == ("unhealthy", "PostgreSQL did not answer in time")


async def test_a_failed_ping_is_remembered(unused_tcp_port: int) -> None:
    seen: list[PostgresHealth] = []
    async with PostgresConnectionPool(
        f"postgresql://u:hidden@127.0.0.1:{unused_tcp_port}/db", PoolOptions(minimum=0)
    ) as pool:
        monitor = PostgresHealthMonitor(pool, on_check=seen.append)
        with pytest.raises(DependencyUnavailableError):
            await monitor.ping()
    assert seen == [monitor.last]
    assert monitor.describe()["health"]["status"] == "unhealthy"
    assert "hidden" not in str(monitor.describe())


async def test_a_read_only_server_is_degraded(postgres_test_db: PostgresDatabase) -> None:
    connection = await postgres_test_db.connect()
    await connection.execute(f"ALTER DATABASE {postgres_test_db.name} SET default_transaction_read_only = on")
    await connection.close()
    async with PostgresConnectionPool(postgres_test_db.dsn) as pool:
        health = await PostgresHealthMonitor(pool, RELAXED).check()
    assert (health.status, health.message) == ("degraded", "the server is read-only")


async def test_a_pool_without_a_free_connection_is_degraded(postgres_test_db: PostgresDatabase) -> None:
    options = PoolOptions(maximum=1, acquire_timeout=0.05)
    async with PostgresConnectionPool(postgres_test_db.dsn, options) as pool, pool.acquire():
        health = await PostgresHealthMonitor(pool).check()
    assert health.status == "degraded"
    assert "stayed in use" in health.message


async def test_a_server_that_is_down_is_a_result_and_failures_add_up(unused_tcp_port: int) -> None:
    async with PostgresConnectionPool(f"postgresql://u:hidden@127.0.0.1:{unused_tcp_port}/db") as pool:
        monitor = PostgresHealthMonitor(pool)
        for count in range(1, 23):
            health = await monitor.check()
            assert (health.status, health.latency_ms, health.server_version) == ("unhealthy", None, "")
            assert health.recent_failures == min(count, 20)
        assert "hidden" not in health.message


async def test_a_closed_pool_is_unhealthy(postgres_test_db: PostgresDatabase) -> None:
    pool = PostgresConnectionPool(postgres_test_db.dsn)
    assert (await PostgresHealthMonitor(pool).check()).status == "unhealthy"


async def test_the_shared_form_carries_the_same_facts(postgres_connection_pool: PostgresConnectionPool) -> None:
    check = await PostgresHealthMonitor(postgres_connection_pool, RELAXED).health_check()
    assert isinstance(check, ModelHealthCheck)
    assert (check.dependency, check.status, check.message) == ("postgres", "healthy", "")
    assert check.details["pool_max"] == "10"
    assert check.details["server_version"]
    assert check.checked_at.endswith("Z")


async def test_a_server_that_became_a_replica_is_left_and_one_that_is_promoted_is_taken_again(
    own_server: PostgresService, own_dsn: str
) -> None:
    """A real server in recovery: what a worker meets when the primary fails over to another one."""
    async with PostgresConnectionPool(own_dsn, PoolOptions(minimum=0, acquire_timeout=10)) as pool:
        monitor = PostgresHealthMonitor(pool, RELAXED)
        assert (await monitor.check()).role == "primary"
        await asyncio.to_thread(own_server.stop)
        (own_server._cluster.data / "standby.signal").touch()
        await asyncio.to_thread(own_server.start)
        async with pool.acquire() as connection:
            old = connection.get_server_pid()
        with pytest.raises(DependencyUnavailableError, match="PostgreSQL is read-only: it is a replica"):
            await monitor.ping()
        assert monitor.last is not None
        assert (monitor.last.role, monitor.last.status) == ("replica", "degraded")
        assert monitor.last.message == "the server is a replica"
        async with pool.acquire() as connection:
            # Those made before it was found out would stay with a server that is not the primary.
            assert connection.get_server_pid() != old
            await connection.fetchval("SELECT pg_promote()")
        await monitor.ping()
        assert (monitor.last.role, monitor.last.status) == ("primary", "healthy")
