"""pytest fixtures of the dependency-injection container: with mocks, and with real services.

`omnibase_infra.shared.testing.plugin` names this module; its real services come from the Kafka and PostgreSQL fixtures.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.registry.container import ONEXContainer
from omnibase_infra.shared.registry.service_registry import ServiceDefinition
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer, RecordedLog
from omnibase_infra.shared.testing.manual_clock import ManualClock
from omnibase_infra.shared.testing.memory_store import MemoryEffectStore
from omnibase_infra.shared.testing.mock_factories import (
    MockCircuitBreaker,
    MockKafkaProducer,
    MockPostgresPool,
    MockTracer,
    create_mock_circuit_breaker,
    create_mock_kafka_producer,
    create_mock_postgres_pool,
    create_mock_tracer,
)
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

GROUP = "test.fixtures.v1"


@dataclass
class ProtocolMocks:
    """Stand-ins for what nodes use, one of each.

    Attributes:
        event_bus: `RecordProducer`, which contracts call ProtocolEventBus; `sent` holds what was produced.
        effect_store: `EffectStore`, ProtocolEffectStore: inbox and transactions in memory.
        postgres_pool / breaker / tracer: see `mock_factories`.
        clock: that of the test.
    """

    event_bus: MockKafkaProducer = field(default_factory=create_mock_kafka_producer)
    effect_store: MemoryEffectStore = field(default_factory=MemoryEffectStore)
    postgres_pool: MockPostgresPool = field(default_factory=create_mock_postgres_pool)
    breaker: MockCircuitBreaker = field(default_factory=create_mock_circuit_breaker)
    tracer: MockTracer = field(default_factory=create_mock_tracer)
    clock: ManualClock = field(default_factory=ManualClock)


@pytest.fixture
def protocol_mocks() -> ProtocolMocks:
    """Mocked implementations of the protocols that nodes use."""
    return ProtocolMocks()


@pytest.fixture
async def test_container(protocol_mocks: ProtocolMocks, realm: Realm) -> AsyncIterator[ONEXContainer]:
    """A container whose services are `protocol_mocks`, under the types and protocols that nodes ask for."""
    async with ONEXContainer() as container:
        container.register_value(Settings, load_settings(env=realm.environment, tenant=realm.tenant))
        # What the types promise the mocks keep as far as handlers go; a node asks by the type.
        container.register_value(PostgresConnectionPool, protocol_mocks.postgres_pool)
        container.register_value(ProducerPool, protocol_mocks.event_bus)
        container.register_value(PostgresEffectStore, protocol_mocks.effect_store)
        container.register_value(MetricsRegistry, MetricsRegistry(process_metrics=False))
        container.bind_protocol("ProtocolEventBus", ProducerPool)
        container.bind_protocol("ProtocolEffectStore", PostgresEffectStore)
        yield container


@pytest.fixture
async def infrastructure_services(
    kafka_container: KafkaServer, realm: Realm, postgres_migration_applied: PostgresDatabase, kafka_log: RecordedLog
) -> AsyncIterator[ONEXContainer]:
    """A container with real services, started: settings, metrics, connection pool, effect store and producer pool.

    The pool is on a database with the tables of all nodes; the producer is of the test's realm.
    """
    settings = kafka_container.settings(realm, postgres_dsn=postgres_migration_applied.dsn)

    async def start_producer(pool: ProducerPool) -> None:
        pool.start()

    async with ONEXContainer() as container:
        container.register_value(Settings, settings)
        container.register_value(MetricsRegistry, MetricsRegistry(process_metrics=False))
        container.register_service(
            ServiceDefinition(
                PostgresConnectionPool,
                lambda _: PostgresConnectionPool.from_settings(settings, application_name="test-services"),
                start=PostgresConnectionPool.open,
                stop=PostgresConnectionPool.close,
            )
        )
        container.register_service(
            ServiceDefinition(
                PostgresEffectStore,
                lambda services: PostgresEffectStore(services.get(PostgresConnectionPool), GROUP),
                depends_on=(PostgresConnectionPool,),
            )
        )
        container.register_service(
            ServiceDefinition(
                ProducerPool,
                lambda _: ProducerPool(settings, client_id="test-services", log=kafka_log),
                start=start_producer,
                stop=ProducerPool.close,
                stop_seconds=20.0,
            )
        )
        container.bind_protocol("ProtocolEventBus", ProducerPool)
        container.bind_protocol("ProtocolEffectStore", PostgresEffectStore)
        await container.start()
        yield container
