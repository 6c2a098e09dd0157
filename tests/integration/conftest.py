"""A fleet of real worker processes per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import Fleet, running_fleet
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase


@pytest.fixture
async def fleet(
    kafka_container: KafkaServer, postgres_migration_applied: PostgresDatabase, realm: Realm, tmp_path: Path
) -> AsyncIterator[Fleet]:
    """A fleet of postgres_adapter: topics and tables are there, no worker runs yet."""
    settings = kafka_container.settings(realm, postgres_dsn=postgres_migration_applied.dsn)
    async with running_fleet(load_spec("postgres_adapter"), settings, tmp_path) as running:
        yield running
