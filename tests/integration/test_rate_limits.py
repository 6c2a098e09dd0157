"""A worker process keeps its contract's rate limits: nothing is lost, other clients flow, order stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from omnibase_infra.shared.core.clock import parse_rfc3339
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import Fleet, running_fleet
from omnibase_infra.shared.testing.generated_node import GeneratedNode
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

CONTRACT = """\
name: NodeEchoDeskEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Repeats what it is told.
event_bus:
  subscribe: [onex.cmd.echo-desk.requests.v1]
  publish: [onex.evt.echo-desk.results.v1]
  partitions: 2
io_operations:
  - {name: repeat_text, description: Repeats a text, kit: custom, request: ModelText, response: ModelText}
  - {name: shout_text, description: Repeats it loudly, kit: custom, request: ModelText, response: ModelText}
definitions:
  ModelText: {type: object, required: [text], properties: {text: {type: string}}}
delivery: {guarantee: at_least_once}
idempotency: Saying a thing twice harms nobody.
rate_limits:
  - {per: client, operation: repeat_text, limit: 10/second, burst: 10}
  - {per: client, operation: shout_text, limit: 1/hour, burst: 2, on_limit: refuse}
"""


@pytest.fixture
async def fleet(
    kafka_container: KafkaServer,
    postgres_test_db: PostgresDatabase,
    realm: Realm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Fleet]:
    """A fleet of a node that is generated for this test, with one worker running."""
    folder = tmp_path / "nodes" / "echo_desk" / "v1_0_0"
    folder.mkdir(parents=True)
    (folder / "contract.yaml").write_text(CONTRACT, encoding="utf-8")
    node = GeneratedNode(folder, installed_kits())
    node.generate()
    for name in ("repeat_text", "shout_text"):
        unwritten = f'OperationFailed(code="not-implemented", message="{name} has not been written yet")'
        node.edit(f"processors/{name}.py", unwritten, "request")
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(tmp_path / "nodes"))
    settings = kafka_container.settings(realm, postgres_dsn=postgres_test_db.dsn)
    async with running_fleet(load_spec("echo_desk"), settings, tmp_path) as running:
        await running.start_ready(OMNIBASE_WORKERS_PATH=str(tmp_path / "nodes"))
        yield running


def _commands(fleet: Fleet, operation: str, client: str, count: int, keys: int) -> list[Envelope]:
    return [
        msgspec.structs.replace(
            fleet.command(operation, {"text": str(number)}, subject=f"{client}-{number % keys}"), source=f"/{client}"
        )
        for number in range(count)
    ]


def _answered_at(fleet: Fleet, commands: list[Envelope]) -> list[float]:
    times = [parse_rfc3339(fleet.answers[one.id][0].time or "").timestamp() for one in commands]
    assert all(one.type.endswith("-completed.v1") for command in commands for one in fleet.answers[command.id])
    return times


@pytest.mark.slow
async def test_a_client_beyond_its_limit_is_slowed_down_to_it_in_order_and_others_are_not(fleet: Fleet) -> None:
    busy = _commands(fleet, "repeat_text", "busy", count=90, keys=9)
    quiet = _commands(fleet, "repeat_text", "quiet", count=10, keys=3)
    await fleet.send([*busy, *quiet])
    await fleet.answered([one.id for one in (*busy, *quiet)])

    times = _answered_at(fleet, busy)
    assert max(_answered_at(fleet, quiet)) < max(times) - 3
    assert max(times) - min(times) >= 7.5, "ten at once, the other eighty at ten a second"
    for key in range(9):
        of_key = times[key::9]
        assert of_key == sorted(of_key)
    assert await asyncio.to_thread(fleet.count_dead_letters) == 0


async def test_what_a_contract_refuses_is_answered_at_once(fleet: Fleet) -> None:
    commands = _commands(fleet, "shout_text", "busy", count=5, keys=1)
    await fleet.send(commands)
    await fleet.answered([one.id for one in commands])

    answers = [fleet.answers[one.id][0] for one in commands]
    assert [one.type.rpartition("-")[2] for one in answers] == ["completed.v1"] * 2 + ["failed.v1"] * 3
    refusal = msgspec.json.decode(answers[-1].data, type=ModelErrorResponse)
    assert (refusal.code, refusal.retryable) == ("rate-limited", True)
    assert await asyncio.to_thread(fleet.count_dead_letters) == 0
