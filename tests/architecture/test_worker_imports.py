"""A worker process loads what its contract needs, and nothing else: its start, its memory and what can break grow by each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import Fleet, eventually
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer
from omnibase_infra.shared.testing.otlp_receiver import otlp_receiver
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry

GOLDEN = Path(__file__).resolve().parents[1] / "generator" / "golden"
SHARED = "omnibase_infra.shared."
PROBE = "omnibase_infra.shared.testing.import_probe"
EVERY_WORKER = {
    "backoff", "confluent-kafka", "msgspec", "orjson", "prometheus-client", "pybreaker", "pydantic-settings",
    "structlog", "svcs", "typer", "uvloop",
    # what those bring
    "annotated-doc", "annotated-types", "attrs", "pydantic", "pydantic-core", "python-dotenv", "shellingham",
    "typing-extensions", "typing-inspection",
}  # fmt: skip
POSTGRES = {"asyncpg"}
TRACES = {"googleapis-common-protos", "grpcio", "protobuf", "psutil"}
# Of a virtual environment, and of this test.
NOT_OURS = {"omnibase-infra-fleet", "setuptools"}
OUR_OWN = {"cli", "core", "kafka", "models", "observability", "registry", "resilience", "runtime", "secrets", "testing"}


def _quiet(level: int, event: str, /, **fields: object) -> None:
    """Drop the client's own lines."""


async def loaded_by(fleet: Fleet, folder: Path, **environment: str) -> set[str]:
    """Return the modules that a worker process has loaded when it stops."""
    file = folder / "loaded"
    worker = fleet.start(module=(PROBE,), OMNIBASE_LOADED_MODULES=str(file), **environment)
    await eventually(worker.is_ready, "the worker is ready", 30)
    if fleet.spec.node == "postgres_adapter":
        command = fleet.command("health_check", {})
        await fleet.send([command], next(o.topic for o in fleet.spec.operations if o.name == "health_check"))
        await fleet.answered([command.id])
    assert await asyncio.to_thread(worker.terminate) == 0
    return set(file.read_text(encoding="utf-8").split("\n"))


def distributions(modules: set[str]) -> set[str]:
    """Return the names of the installed packages that modules belong to, those of OpenTelemetry as one."""
    owners = packages_distributions()
    top = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    found = {owner for name in top - {"opentelemetry"} for owner in owners.get(name, ())[:1]}
    return {name.lower().replace("_", "-") for name in found} - NOT_OURS | top & {"opentelemetry"}


def ours(modules: set[str]) -> set[str]:
    """Return our own modules beyond those that every worker may load."""
    names = (name.removeprefix(SHARED) for name in modules if name.startswith(SHARED))
    return {name for name in names if name.partition(".")[0] not in OUR_OWN}


@pytest.fixture
async def fleet_of(
    kafka_container: KafkaServer, postgres_migration_applied: PostgresDatabase, realm: Realm, tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Fleet]]]:
    """Make a fleet of a node, on real servers."""
    settings = kafka_container.settings(realm, postgres_dsn=postgres_migration_applied.dsn)
    fleets: list[Fleet] = []

    async def make(node: str, *others: str) -> Fleet:
        specs = [load_spec(name) for name in (node, *others)]
        catalogue = TopicRegistry.from_specs(specs, realm).catalogue
        await asyncio.to_thread(provision, KafkaTopicAdmin(settings, log=_quiet), catalogue, realm)
        fleets.append(Fleet(specs[0], settings, tmp_path))
        fleets[0].producer.start()
        return fleets[0]

    yield make
    for fleet in fleets:
        await fleet.close()


@pytest.mark.slow
async def test_a_worker_without_dependencies_loads_no_driver(
    fleet_of: Callable[..., Awaitable[Fleet]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(GOLDEN))
    fleet = await fleet_of("price_desk", "stock_ledger")
    modules = await loaded_by(fleet, tmp_path, OMNIBASE_WORKERS_PATH=str(GOLDEN))
    assert distributions(modules) - EVERY_WORKER == set()
    assert ours(modules) == set()


@pytest.mark.slow
async def test_a_worker_with_a_database_loads_its_driver_besides(
    fleet_of: Callable[..., Awaitable[Fleet]], tmp_path: Path
) -> None:
    modules = await loaded_by(await fleet_of("postgres_adapter"), tmp_path)
    assert distributions(modules) - EVERY_WORKER == POSTGRES
    assert {name.partition(".")[0] for name in ours(modules)} == {"postgres"}


@pytest.mark.slow
async def test_the_library_of_traces_is_loaded_where_a_collector_is_set(
    fleet_of: Callable[..., Awaitable[Fleet]], tmp_path: Path
) -> None:
    with otlp_receiver("grpc") as collector:
        modules = await loaded_by(
            await fleet_of("postgres_adapter"),
            tmp_path,
            OMNIBASE_OTLP_ENDPOINT=collector.endpoint,
            OMNIBASE_TRACE_SAMPLE_RATIO="1",
        )
        assert collector.spans
    more = distributions(modules) - EVERY_WORKER - POSTGRES
    assert {"opentelemetry", "grpcio"} <= more <= TRACES | {"opentelemetry"}, (
        "and not the exporter of the other protocol"
    )
