"""A fleet of real worker processes per test, and servers of a test's own where it stops them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.secured_fleet import SecuredFleet, running_secured_fleet
from tests.integration.tally import generate_tally

from omnibase_infra import workers
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.local_services import KafkaService, PostgresService
from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate, read_migrations
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import Fleet, running_fleet
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase
from omnibase_infra.shared.testing.secured_kafka import SecuredKafka


@pytest.fixture
async def fleet(
    kafka_container: KafkaServer, postgres_migration_applied: PostgresDatabase, realm: Realm, tmp_path: Path
) -> AsyncIterator[Fleet]:
    """A fleet of postgres_adapter: topics and tables are there, no worker runs yet."""
    settings = kafka_container.settings(realm, postgres_dsn=postgres_migration_applied.dsn)
    async with running_fleet(load_spec("postgres_adapter"), settings, tmp_path) as running:
        yield running


@pytest.fixture
async def own_servers(realm: Realm, tmp_path: Path) -> AsyncIterator[tuple[KafkaService, PostgresService, Settings]]:
    """A broker and a database server of this test alone, to be stopped; the adapter's tables are there."""
    kafka, postgres = KafkaService(tmp_path / "kafka", brokers=1), PostgresService(tmp_path / "postgres")

    def start() -> Settings:
        for service in (kafka, postgres):
            # A run that was killed may have left data under the same path.
            service.delete_data()
            service.prepare()
            service.start()
        address = kafka.variables()["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"]
        dsn = postgres.variables()["OMNIBASE_POSTGRES_DSN"]
        return KafkaServer(address, tmp_path / "env").settings(realm, postgres_dsn=dsn)

    def stop() -> None:
        for service in (kafka, postgres):
            service.kill()
            service.delete_data()

    try:
        settings = await asyncio.to_thread(start)
        folder = Path(str(workers.__file__)).parent / "postgres_adapter" / "v1_0_0" / "migrations"
        await migrate(
            require_postgres(settings), [infrastructure_migrations(), read_migrations("postgres_adapter", folder)]
        )
        yield kafka, postgres, settings
    finally:
        await asyncio.to_thread(stop)


@pytest.fixture(scope="session")
def tally_nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generated node `tally`."""
    folder = tmp_path_factory.mktemp("nodes")
    generate_tally(folder)
    return folder


@pytest.fixture
def secured_fleet(
    secured_kafka: SecuredKafka,
    realm: Realm,
    tmp_path: Path,
    tally_nodes: Path,
    postgres_migration_applied: PostgresDatabase,
    monkeypatch: pytest.MonkeyPatch,
    no_environment: None,
) -> Iterator[SecuredFleet]:
    """Two workers, each with a user of its own, on a broker that knows them; no topics are there yet."""
    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(tally_nodes))
    with running_secured_fleet(secured_kafka, realm, tmp_path, tally_nodes, postgres_migration_applied.dsn) as running:
        yield running
