"""`omninode topics` and `omninode offsets` as people and scripts use them, on a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from omnibase_infra.shared.cli.main import app
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, KafkaServer, RecordedLog

REQUESTS = "onex.cmd.postgres-adapter.requests.v1"
CONTRACT = """\
name: NodeAuditEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Keeps a trace.
event_bus:
  subscribe: [onex.cmd.audit.requests.v1]
  publish:
    - {topic: onex.evt.audit.results.v1, retention: 1m}
  partitions: 300
capabilities:
  - {name: audit, description: Keep a trace}
dependencies:
  - {name: protocol_event_bus, type: protocol, class_name: ProtocolEventBus}
io_operations:
  - {name: find_trace, kit: custom, request: ModelNote, response: ModelNote}
definitions:
  ModelNote: {type: object, properties: {text: {type: string}}}
delivery: {guarantee: at_least_once}
idempotency: A trace is a set.
"""


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start from an environment without settings, and without those of a local server."""
    import os

    for name in [name for name in os.environ if name.startswith("OMNIBASE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path))


@pytest.fixture
def on_kafka(monkeypatch: pytest.MonkeyPatch, kafka_container: KafkaServer, realm: Realm) -> KafkaTopicAdmin:
    """Point the command line at the test's realm on the broker."""
    monkeypatch.setenv("OMNIBASE_ENV", realm.environment)
    monkeypatch.setenv("OMNIBASE_TENANT", realm.tenant)
    monkeypatch.setenv("OMNIBASE_KAFKA_BOOTSTRAP_SERVERS", kafka_container.bootstrap_servers)
    return KafkaTopicAdmin(kafka_container.settings(realm), log=RecordedLog())


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def write(settings: Settings, topic: str, partition: int, count: int) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers or "", "acks": "all"})
    for _ in range(count):
        producer.produce(topic, b"{}", partition=partition)
    assert producer.flush(30) == 0


def test_lint_needs_neither_cluster_nor_settings() -> None:
    result = run("topics", "lint")

    assert (result.exit_code, result.stderr) == (0, "")
    assert "checked, 0 problems" in result.stdout


def test_lint_names_every_topic_beyond_the_policy_by_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "audit" / "v1_0_0" / "contract.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(CONTRACT, encoding="utf-8")
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(tmp_path / "nodes"))

    result = run("topics", "lint")

    assert result.exit_code == 1
    lines = [line.rpartition("/")[2] for line in result.stdout.splitlines()]
    assert lines == [
        "contract.yaml:8:53: onex.evt.audit.results.v1 keeps records for 1m, between 1h and 400d are allowed [TP002]",
        "contract.yaml:9:15: onex.cmd.audit.requests.v1 has 300 partitions, at most 200 are allowed [TP001]",
        "contract.yaml:9:15: onex.evt.audit.results.v1 has 300 partitions, at most 200 are allowed [TP001]",
    ]
    assert len(json.loads(run("topics", "lint", "--json").stdout)["problems"]) == 3
    assert run("topics", "lint", "--node", "postgres_adapter").exit_code == 0
    assert run("topics", "lint", "--node", "audit").exit_code == 1


def test_topics_are_listed_without_a_cluster() -> None:
    result = run("topics", "list", "--node", "postgres-adapter", "--kind", "cmd")

    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["topic", "owner", "partitions", "kept", "readers"],
        ["onex.cmd.postgres-adapter.control.v1", "postgres-adapter", "1", "7d", "postgres-adapter", "v1"],
        [REQUESTS, "postgres-adapter", "6", "7d", "postgres-adapter", "v1"],
    ]
    dead_letters, resolutions = json.loads(run("topics", "list", "--kind", "dlq", "--json").stdout)
    assert dead_letters["topic"] == "onex.dlq.postgres-adapter.dead-letters.v1"
    assert dead_letters["config"]["retention.ms"] == "1209600000"
    assert resolutions["topic"] == "onex.dlq.postgres-adapter.resolutions.v1"
    assert resolutions["config"]["cleanup.policy"] == "compact"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("topics", "list", "--kind", "command"), "--kind: 'command' is not one of cmd, evt"),
        (("topics", "list", "--node", "postgres_adaptor"), "there is no node 'postgres_adaptor'"),
        (("topics", "plan"), "OMNIBASE_ENV: Field required"),
        (("offsets", "show", "nope"), "there is no node 'nope'"),
        (("offsets", "reset", "postgres_adapter", "--topic", REQUESTS, "--to", "soon"), "--to: 'soon' is not earliest"),
    ],
)
def test_a_wrong_call_is_one_clear_line(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unreachable_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_ENV", "test")
    monkeypatch.setenv("OMNIBASE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")

    result = run("topics", "check")

    assert result.exit_code == 1
    assert "no Kafka broker at 127.0.0.1:1 answered" in result.stderr
    assert "Connection refused" in result.stderr


def test_plan_apply_and_check_follow_one_another(on_kafka: KafkaTopicAdmin, realm: Realm) -> None:
    first = run("topics", "plan")
    assert first.exit_code == 2
    assert f"+ create {realm}.{REQUESTS}: 6 partitions, 1 copy" in first.stdout
    assert f"@ commit first offsets of {realm}.omnibase-infra.postgres-adapter.consume.v1" in first.stdout
    assert on_kafka.topics(f"{realm}.") == {}

    applied = run("topics", "apply")
    assert (applied.exit_code, applied.stderr) == (0, "")
    assert applied.stdout.splitlines()[-1].endswith("changes made, the cluster is as the contracts say")

    again = run("topics", "plan")
    assert (again.exit_code, again.stdout) == (0, "nothing to do, 8 topics as the contracts say\n")
    checked = run("topics", "check")
    assert (checked.exit_code, checked.stdout) == (0, "no drift, 8 topics as the contracts say\n")


def test_check_reports_drift_and_stray_topics(on_kafka: KafkaTopicAdmin, realm: Realm) -> None:
    run("topics", "apply")
    on_kafka.alter(f"{realm}.{REQUESTS}", {"retention.ms": "1000"})
    on_kafka.create(f"{realm}.onex.evt.gone.results.v1", 1, 1, {})

    result = run("topics", "check")

    assert result.exit_code == 2
    assert result.stdout.splitlines() == [
        f"~ alter {realm}.{REQUESTS}: retention.ms 1000 → 604800000",
        f"? {realm}.onex.evt.gone.results.v1: no contract lists it",
        "1 difference, 1 stray topic",
    ]
    report = json.loads(run("topics", "check", "--json").stdout)
    assert report["stray"] == [f"{realm}.onex.evt.gone.results.v1"]
    assert run("topics", "apply", "--node", "postgres_adapter").exit_code == 0
    assert json.loads(run("topics", "plan", "--json").stdout)["actions"] == []


def test_what_an_apply_leaves_is_said_and_is_a_failure(on_kafka: KafkaTopicAdmin, realm: Realm) -> None:
    on_kafka.create(f"{realm}.{REQUESTS}", 2, 1, {})

    result = run("topics", "apply")

    assert result.exit_code == 1
    assert f"left: {realm}.{REQUESTS}: has 2 partitions, 6 are wanted, and keys would move" in result.stderr
    assert "--allow-repartition" in result.stderr
    assert result.stdout.splitlines()[-1].endswith("changes made, 1 left")


def test_moving_keys_needs_a_yes(on_kafka: KafkaTopicAdmin, realm: Realm) -> None:
    on_kafka.create(f"{realm}.{REQUESTS}", 2, 1, {})

    asked = run("topics", "apply", "--allow-repartition")
    assert asked.exit_code == 2
    assert f"+ add partitions to {realm}.{REQUESTS}: 2 → 6" in asked.stderr
    assert "add --yes" in asked.stderr

    assert run("topics", "apply", "--allow-repartition", "--yes").exit_code == 0
    assert on_kafka.topics(f"{realm}.")[f"{realm}.{REQUESTS}"] == 6


def test_offsets_are_shown_with_their_logs(on_kafka: KafkaTopicAdmin, kafka_settings: Settings, realm: Realm) -> None:
    before = run("offsets", "show", "postgres_adapter")
    assert before.exit_code == 3
    assert f"{realm}.{REQUESTS} does not exist" in before.stderr

    run("topics", "apply")
    write(kafka_settings, f"{realm}.{REQUESTS}", 3, 7)
    result = run("offsets", "show", "postgres-adapter")

    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["topic", "partition", "committed", "low", "high", "lag", "standing"]
    assert [f"{realm}.{REQUESTS}", "3", "0", "0", "7", "7", "ok"] in rows
    assert result.stdout.splitlines()[-1].endswith("consume.v1: 0 live members, 7 records to read")
    shown = json.loads(run("offsets", "show", "postgres_adapter", "--json").stdout)
    assert (shown["consistent"], shown["members"], sum(item["lag"] for item in shown["partitions"])) == (True, 0, 7)


def test_offsets_are_moved_only_after_a_yes(on_kafka: KafkaTopicAdmin, kafka_settings: Settings, realm: Realm) -> None:
    run("topics", "apply")
    write(kafka_settings, f"{realm}.{REQUESTS}", 3, 7)
    command = ("offsets", "reset", "postgres_adapter", "--topic", REQUESTS, "--to", "5", "--partition", "3")

    asked = run(*command)
    assert asked.exit_code == 2
    assert "skips 5" in asked.stdout
    assert "nothing was moved" in asked.stderr
    assert json.loads(run("offsets", "show", "postgres_adapter", "--json").stdout)["partitions"][9]["committed"] == 0

    moved = run(*command, "--yes", "--json")
    assert json.loads(moved.stdout) == [{"topic": f"{realm}.{REQUESTS}", "partition": 3, "before": 0, "after": 5}]
    (found,) = [
        item
        for item in json.loads(run("offsets", "show", "postgres_adapter", "--json").stdout)["partitions"]
        if item["topic"] == f"{realm}.{REQUESTS}" and item["partition"] == 3
    ]
    assert (found["committed"], found["lag"]) == (5, 2)


def test_offsets_of_a_running_worker_are_not_moved(
    on_kafka: KafkaTopicAdmin, kafka_consumer_factory: ConsumerFactory, realm: Realm
) -> None:
    run("topics", "apply")
    member = kafka_consumer_factory(group=realm.group("postgres-adapter", 1))
    member.subscribe([f"{realm}.{REQUESTS}"])
    for _ in range(300):
        member.poll(0.1)
        if member.assignment():
            break

    result = run("offsets", "reset", "postgres_adapter", "--topic", REQUESTS, "--to", "latest", "--yes")

    assert result.exit_code == 1
    assert "has 1 live member; offsets move only while it has none" in result.stderr
    assert "stop its workers first" in result.stderr
