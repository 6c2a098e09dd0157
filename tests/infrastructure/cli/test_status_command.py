"""`omninode status` as people and scripts use it, on a real broker."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from omnibase_infra.shared.cli.main import app
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.models.infrastructure.model_service_status import ModelServiceStatus
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, KafkaServer

REQUESTS = "onex.cmd.postgres-adapter.requests.v1"
DEAD_LETTERS = "onex.dlq.postgres-adapter.dead-letters.v1"
NODE = "postgres_adapter"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start from an environment without settings, and without those of a local server."""
    for name in [name for name in os.environ if name.startswith("OMNIBASE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path))


@pytest.fixture
def on_kafka(monkeypatch: pytest.MonkeyPatch, kafka_container: KafkaServer, realm: Realm) -> KafkaServer:
    """Point the command line at the test's realm on the broker."""
    monkeypatch.setenv("OMNIBASE_ENV", realm.environment)
    monkeypatch.setenv("OMNIBASE_TENANT", realm.tenant)
    monkeypatch.setenv("OMNIBASE_KAFKA_BOOTSTRAP_SERVERS", kafka_container.bootstrap_servers)
    return kafka_container


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def write(server: KafkaServer, realm: Realm, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, "acks": "all"})
    for _ in range(count):
        producer.produce(f"{realm}.{topic}", b"{}", partition=0)
    assert producer.flush(30) == 0


def rows(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


def test_topics_that_were_never_made_are_named_with_the_command_that_makes_them(on_kafka: KafkaServer) -> None:
    result = run("status", NODE)

    assert result.exit_code == 3
    assert f"postgres-adapter v1: the topic {REQUESTS} does not exist; run `omninode topics apply`" in result.stderr
    assert rows(result)[1] == ["postgres-adapter", "v1", "absent", "0", "0", "0", "0"]


def test_a_fleet_with_nothing_to_do_is_well_though_nothing_runs(on_kafka: KafkaServer) -> None:
    assert run("topics", "apply").exit_code == 0

    result = run("status")

    assert (result.exit_code, result.stderr) == (0, "")
    assert ["postgres-adapter", REQUESTS, "6", "0"] in rows(result)
    assert ["postgres-adapter", "onex.retry.postgres-adapter.requests.v1", "6", "0"] in rows(result)


def test_waiting_records_processes_and_open_dead_letters_are_shown(
    on_kafka: KafkaServer, realm: Realm, kafka_consumer_factory: ConsumerFactory
) -> None:
    assert run("topics", "apply").exit_code == 0
    write(on_kafka, realm, REQUESTS, 4)
    write(on_kafka, realm, DEAD_LETTERS, 2)

    (idle,) = json.loads(run("status", NODE, "--json").stdout)
    assert (idle["status"]["status"], idle["status"]["not_usable"]) == ("unhealthy", ["group"])
    stopped = run("status", "postgres-adapter")
    assert stopped.exit_code == 3
    assert "4 records wait and no process runs" in stopped.stderr
    assert "2 open dead letters; see `omninode dlq group`" in stopped.stderr

    member = kafka_consumer_factory(group=realm.group("postgres-adapter", 1))
    member.subscribe([f"{realm}.{REQUESTS}"])
    deadline = time.monotonic() + 30
    while not member.assignment():
        assert time.monotonic() < deadline
        member.poll(0.1)
    result = run("status", NODE, "--json")
    assert result.exit_code == 3
    (worker,) = json.loads(result.stdout)
    assert (worker["state"], worker["members"], worker["lag"]) == ("stable", 1, 4)
    assert (worker["dead_letters"], worker["open_dead_letters"]) == (2, 2)
    assert worker["problems"] == ["2 open dead letters; see `omninode dlq group`"]
    status = msgspec.convert(worker["status"], ModelServiceStatus)
    assert (status.service, status.version, status.status, status.ready) == ("postgres-adapter", "v1", "degraded", True)
    assert (status.checks["group"], status.problems) == ("ok", tuple(worker["problems"]))
    (requests,) = [topic for topic in worker["topics"] if topic["topic"] == REQUESTS]
    assert requests == {"topic": REQUESTS, "kind": "source", "partitions": 6, "lag": 4, "standings": {}}


def test_a_broker_that_does_not_answer_is_one_clear_line_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_ENV", "test")
    monkeypatch.setenv("OMNIBASE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    began = time.monotonic()

    result = run("status", "--timeout", "500ms")

    assert result.exit_code == 1
    assert "no Kafka broker at 127.0.0.1:1 answered" in result.stderr
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "postgres_adaptor"), "there is no node 'postgres_adaptor'; there are: "),
        (("status", "--timeout", "soon"), "--timeout: 'soon' is not a duration"),
    ],
)
def test_a_wrong_call_is_one_clear_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIBASE_ENV", "test")
    monkeypatch.setenv("OMNIBASE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")

    result = run(*arguments)

    assert result.exit_code == 2
    assert message in result.stderr
