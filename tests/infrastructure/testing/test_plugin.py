"""The plugin as somebody uses it who writes a node in another repository; and the fixtures of the container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.registry.container import ONEXContainer
from omnibase_infra.shared.testing.container_fixtures import ProtocolMocks
from omnibase_infra.shared.testing.generated_node import GeneratedNode
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, KafkaServer, TopicCreator
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer

PLAN = {
    "fixtures/postgres_fixtures.py": [
        "postgres_container",
        "postgres_connection_pool",
        "postgres_test_db",
        "postgres_migration_applied",
    ],
    "fixtures/kafka_fixtures.py": [
        "kafka_container",
        "kafka_producer_pool",
        "kafka_consumer_factory",
        "kafka_topics_created",
    ],
    "fixtures/container_fixtures.py": ["test_container", "infrastructure_services", "protocol_mocks"],
    "utils/test_helpers.py": [
        "assert_health_check_valid",
        "assert_metrics_collected",
        "assert_event_published",
        "wait_for_condition",
        "mock_external_service",
    ],
    "utils/mock_factories.py": [
        "create_mock_postgres_pool",
        "create_mock_kafka_producer",
        "create_mock_circuit_breaker",
        "create_mock_tracer",
    ],
}

CONTRACT = """
name: NodeParcelDeskEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Quotes parcels.
event_bus:
  subscribe: [onex.cmd.parcel-desk.requests.v1]
  publish: [onex.evt.parcel-desk.results.v1]
io_operations:
  - name: quote_parcel
    description: Quotes a parcel.
    kit: custom
    request: ModelQuoteRequest
    response: ModelQuoteResponse
delivery: {guarantee: at_least_once}
idempotency: A quote changes nothing.
definitions:
  ModelQuoteRequest:
    type: object
    required: [grams]
    properties:
      grams: {type: integer}
  ModelQuoteResponse:
    type: object
    required: [price]
    properties:
      price: {type: string}
"""

CONFTEST = """
pytest_plugins = ["omnibase_infra.shared.testing.plugin"]
"""

TESTS = """
from collections.abc import Sequence

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.ports import BatchContext, OutboundRecord
from omnibase_infra.shared.registry.nodes import load_node
from omnibase_infra.shared.testing.assertions import assert_event_published
from omnibase_infra.shared.testing.external_service import mock_external_service
from omnibase_infra.shared.testing.waiting import wait_for_condition

QUOTED = "onex.evt.parcel-desk.quote-parcel-completed.v1"


async def test_the_node_is_built_and_decodes(test_container):
    node = load_node("parcel_desk", test_container)
    request = node.handlers["quote_parcel"].decode(envelopes.encode_data({"grams": 500}))
    assert request.grams == 500


async def test_its_answer_goes_out(protocol_mocks):
    data = envelopes.encode_data({"price": "4.90"})
    value = envelopes.encode(envelopes.original(source="parcel-desk", event_type=QUOTED, data=data))
    await protocol_mocks.event_bus.send([OutboundRecord("onex.evt.parcel-desk.results.v1", value)])
    assert_event_published(protocol_mocks.event_bus.sent, QUOTED, data={"price": "4.90"})


async def test_a_database_of_its_own(postgres_connection_pool):
    async with postgres_connection_pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM omnibase.inbox") == 0


async def test_a_broker(kafka_topics_created, kafka_producer_pool, kafka_consumer_factory):
    (topic,) = kafka_topics_created("onex.evt.parcel-desk.results.v1")
    await kafka_producer_pool.send([OutboundRecord("onex.evt.parcel-desk.results.v1", b"{}")])
    assert [message.value() for message in kafka_consumer_factory.read(topic)] == [b"{}"]


async def test_a_server_of_somebody_else():
    async with mock_external_service() as service:
        assert service.url.startswith("http://127.0.0.1:")
        await wait_for_condition(lambda: True, "nothing")
"""


def _run(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMNIBASE_", "PYTEST_", "COV_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments]
    return subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of somebody else: a generated node, a `conftest.py` of one line, and tests."""
    folder = tmp_path / "nodes" / "parcel_desk" / "v1_0_0"
    folder.mkdir(parents=True)
    (folder / "contract.yaml").write_text(CONTRACT)
    GeneratedNode(folder, installed_kits()).generate()
    tests = tmp_path / "checks"
    tests.mkdir()
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    (tmp_path / "conftest.py").write_text(dedent(CONFTEST))
    (tests / "test_parcel_desk.py").write_text(TESTS)
    return tmp_path


def test_a_node_of_another_repository_is_tested_with_one_line_in_its_conftest(
    repository: Path, postgres_container: PostgresServer, kafka_container: KafkaServer
) -> None:
    environment = {
        "OMNIBASE_WORKERS_PATH": str(repository / "nodes"),
        "OMNIBASE_STATE_DIR": str(repository / ".omnibase"),
        "OMNIBASE_POSTGRES_DSN": postgres_container.dsn,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": kafka_container.bootstrap_servers,
    }
    done = _run(repository, environment, "checks")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_servers_in_containers_without_a_docker_engine_are_one_clear_error(repository: Path) -> None:
    environment = {"DOCKER_HOST": f"unix://{repository}/no-docker.sock", "TESTCONTAINERS_RYUK_DISABLED": "true"}
    done = _run(repository, environment, "checks", "--services=docker", "-k", "database")
    assert done.returncode == 1
    assert "LocalServiceError: no Docker engine answers at unix://" in done.stdout, done.stdout + done.stderr
    assert "leave --services=docker out" in done.stdout


def test_another_place_for_servers_is_a_usage_error_that_lists_the_two(repository: Path) -> None:
    done = _run(repository, {}, "checks", "--services=podman")
    assert done.returncode == 4
    assert "local" in done.stderr
    assert "docker" in done.stderr


@pytest.mark.parametrize("place", PLAN)
def test_the_plans_names_are_at_the_plans_places(place: str) -> None:
    text = (Path(__file__).parents[1] / place).read_text(encoding="utf-8")
    assert all(f'"{name}"' in text for name in PLAN[place])


# -- the container -------------------------------------------------------------------------------------------------------


async def test_the_test_container_holds_the_mocks_under_the_types_that_nodes_ask_for(
    test_container: ONEXContainer, protocol_mocks: ProtocolMocks
) -> None:
    mocks = protocol_mocks
    expected = [
        (ProducerPool, mocks.event_bus),
        (PostgresConnectionPool, mocks.postgres_pool),
        (PostgresEffectStore, mocks.effect_store),
    ]
    assert all(test_container.get(service) is mock for service, mock in expected)
    assert test_container.get(Settings).env == "test"


async def test_infrastructure_services_are_real_and_started(
    infrastructure_services: ONEXContainer,
    kafka_topics_created: TopicCreator,
    kafka_consumer_factory: ConsumerFactory,
) -> None:
    async with infrastructure_services.get(PostgresConnectionPool).acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM orders.orders") == 0
    await infrastructure_services.get(PostgresEffectStore).ping()
    (topic,) = kafka_topics_created("onex.evt.shop.results.v1")
    await infrastructure_services.get(ProducerPool).send([OutboundRecord("onex.evt.shop.results.v1", b"{}")])
    assert len(kafka_consumer_factory.read(topic)) == 1
