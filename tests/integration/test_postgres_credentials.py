"""A worker whose PostgreSQL asks for TLS and another password again and again: no request is lost, none done twice."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from omnibase_infra import workers
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate, read_migrations
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.certificates import TestAuthority
from omnibase_infra.shared.testing.fleet import Fleet, eventually, running_fleet
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer
from omnibase_infra.shared.testing.order_load import OrderLoad
from omnibase_infra.shared.testing.tls_postgres import TlsPostgres, tls_postgres

pytestmark = [pytest.mark.demanding, pytest.mark.timeout(240)]

CHANGES = 5


@pytest.fixture
async def tls_fleet(
    kafka_container: KafkaServer, realm: Realm, tmp_path: Path
) -> AsyncIterator[tuple[Fleet, TlsPostgres, TestAuthority]]:
    """A fleet on a PostgreSQL that lets in nobody without TLS; no worker runs yet."""
    authority = TestAuthority(tmp_path)
    with tls_postgres(tmp_path, authority.server()) as server:
        dsn = f"{server.dsn()}?sslmode=verify-full&sslrootcert={authority.certificate}"
        folder = Path(str(workers.__file__)).parent / "postgres_adapter" / "v1_0_0" / "migrations"
        await migrate(dsn, [infrastructure_migrations(), read_migrations("postgres_adapter", folder)])
        settings = kafka_container.settings(realm, postgres_dsn=dsn)
        async with running_fleet(load_spec("postgres_adapter"), settings, tmp_path) as fleet:
            yield fleet, server, authority


async def test_a_worker_follows_a_password_that_changes_under_load(
    tls_fleet: tuple[Fleet, TlsPostgres, TestAuthority], tmp_path: Path
) -> None:
    fleet, server, authority = tls_fleet
    admin = await asyncpg.connect(f"{server.dsn()}?sslmode=require", timeout=10)
    secret = tmp_path / "password"
    try:
        await admin.execute("CREATE ROLE worker LOGIN SUPERUSER PASSWORD 'secret-0'")
        secret.write_text("secret-0\n")
        worker = await fleet.start_ready(
            OMNIBASE_POSTGRES_DSN=re.sub(r"//.*@", "//worker@", server.dsn()),
            OMNIBASE_POSTGRES_PASSWORD=f"file://{secret}",
            OMNIBASE_POSTGRES_SSL_CA_LOCATION=str(authority.certificate),
            OMNIBASE_SECRETS_FILE_CHECK_SECONDS="0.2",
        )
        load = OrderLoad(fleet)
        publishing = asyncio.create_task(load.publish(3_000, per_second=200))
        await fleet.first_answers()
        for change in range(1, CHANGES + 1):
            # The server first and the file a moment later; sessions are ended, so that everybody has to log in anew.
            await admin.execute(f"ALTER ROLE worker PASSWORD 'secret-{change}'")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker'")
            await asyncio.sleep(0.3)
            secret.with_suffix(".new").write_text(f"secret-{change}\n")
            secret.with_suffix(".new").replace(secret)
            await asyncio.sleep(2)
        await publishing
        await load.assert_done_once_in_order(90)
        await eventually(worker.is_ready, "the worker is ready")
        assert await admin.fetchval(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'worker'"
        )
    finally:
        await admin.close(timeout=5)
    assert worker.terminate() == 0
    assert len(worker.logged("pool_credentials_changed")) == CHANGES
    assert worker.logged("pool_login_refused") == []
    assert "secret-" not in worker.log
    assert fleet.count_dead_letters() == 0


async def test_info_and_metrics_say_how_postgres_is(
    tls_fleet: tuple[Fleet, TlsPostgres, TestAuthority],
) -> None:
    fleet, _, _ = tls_fleet
    worker = await fleet.start_ready()
    load = OrderLoad(fleet)
    await load.publish(50, per_second=500)
    await load.assert_done_once_in_order(60)
    _, info = worker.get("/info")
    postgres = info["dependencies"]["postgres"]
    assert (postgres["breaker"], postgres["health"]["role"]) == ("closed", "primary")
    assert postgres["health"]["latency_p95_ms"] > 0
    assert postgres["pool"]["max"] == 50
    assert postgres["overdue"] == []
    assert any(one["statement"] == "claim_inbox" for one in postgres["top_patterns"])
    page = worker.metrics()
    for name in ("pool_wait_seconds_count", "pool_connects_total", "dependency_health", "query_pattern"):
        assert f"omnibase_{name}{{" in page
