"""`omninode doctor`: what it finds, and what it says is to be done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.cli.doctor import app
from omnibase_infra.shared.cli.doctor_installation import package_problem
from omnibase_infra.shared.cli.doctor_report import CheckResult, ok, run_check
from omnibase_infra.shared.cli.doctor_servers import statements_of
from omnibase_infra.shared.client import node_interface
from omnibase_infra.shared.core.errors import ConfigurationError, GenerationDriftError
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.generator import workflow
from omnibase_infra.shared.generator.check import Finding
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.registry.nodes import find_node, load_spec, node_names
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry

SetVariables = Callable[[dict[str, str]], None]


@pytest.fixture
def kafka_variables(kafka_settings: Settings) -> dict[str, str]:
    """Variables that reach the test's realm."""
    return {
        "OMNIBASE_ENV": kafka_settings.env,
        "OMNIBASE_TENANT": kafka_settings.tenant,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": kafka_settings.kafka_bootstrap_servers or "",
    }


@pytest.fixture
def applied(kafka_settings: Settings) -> None:
    """The topics and first offsets of the fleet, in the test's realm."""
    admin = KafkaTopicAdmin(kafka_settings, log=RecordedLog())
    specs = [load_spec(name) for name in node_names()]
    report = provision(admin, TopicRegistry.from_specs(specs, kafka_settings.realm).catalogue, kafka_settings.realm)
    assert report.is_complete


@pytest.fixture
def no_servers(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that name none, so that nobody is waited for."""
    monkeypatch.delenv("OMNIBASE_KAFKA_BOOTSTRAP_SERVERS")


def report_of(run: Any, *arguments: str) -> dict[str, list[dict[str, str]]]:
    """Run it and return the results by check."""
    result = run(app, *arguments, "--json")
    content = json.loads(result.stdout)
    wrong = any(item["state"] == "wrong" for item in content["checks"])
    assert content["healthy"] is not wrong
    assert result.exit_code == (3 if wrong else 0)
    found: dict[str, list[dict[str, str]]] = {}
    for item in content["checks"]:
        found.setdefault(item["check"], []).append(item)
        assert item["state"] != "wrong" or item["action"], f"{item} does not say what to do"
    return found


def wrong_in(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """Return message and action of what is wrong, by check."""
    return {
        check: "; ".join(f"{one['message']} → {one['action']}" for one in items if one["state"] == "wrong")
        for check, items in found.items()
        if any(one["state"] == "wrong" for one in items)
    }


def test_all_is_well_with_topics_offsets_migrations_and_statements(
    run: Any,
    surroundings: SetVariables,
    kafka_variables: dict[str, str],
    applied: None,
    postgres_migration_applied: Any,
) -> None:
    surroundings(kafka_variables | {"OMNIBASE_POSTGRES_DSN": postgres_migration_applied.dsn})
    found = report_of(run, "postgres-adapter")
    assert wrong_in(found) == {}
    assert found["topics"][0]["message"] == "8 are as the contracts say"
    assert "none running (`omninode run postgres_adapter` starts one)" in found["workers"][0]["message"]
    assert found["statements"][0]["message"] == "postgres_adapter: 9 fit the database"
    text = run(app, "postgres-adapter")
    assert text.exit_code == 0
    assert "WRONG" not in text.stdout
    assert text.stderr == "all is well\n"


def test_missing_topics_and_offsets_and_migrations_are_found(
    run: Any, surroundings: SetVariables, kafka_variables: dict[str, str], postgres_test_db: Any
) -> None:
    surroundings(kafka_variables | {"OMNIBASE_POSTGRES_DSN": postgres_test_db.dsn})
    found = report_of(run)
    wrong = wrong_in(found)
    assert "does not exist" in wrong["topics"]
    assert "omninode topics apply" in wrong["topics"]
    assert "postgres_adapter/0001_orders.sql → run `omninode migrate`" in wrong["migrations"]
    assert found["statements"][0]["state"] == "skipped"
    text = run(app)
    assert text.exit_code == 3
    assert "→ run `omninode migrate`" in text.stdout
    assert "checks found something wrong" in text.stderr


def test_servers_that_are_down_are_found(run: Any, surroundings: SetVariables) -> None:
    surroundings(
        {
            "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "OMNIBASE_POSTGRES_DSN": "postgresql://somebody:s3cret@127.0.0.1:1/orders",
        }
    )
    found = report_of(run)
    wrong = wrong_in(found)
    assert "127.0.0.1:1" in wrong["kafka"]
    assert "connection refused" in wrong["postgres"]
    assert {found[check][0]["state"] for check in ("topics", "migrations")} == {"skipped"}
    assert "s3cret" not in json.dumps(found)


def test_missing_settings_are_found(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNIBASE_ENV")
    found = report_of(run)
    assert "OMNIBASE_ENV" in wrong_in(found)["settings"]
    assert found["servers"][0]["state"] == "skipped"


def test_settings_without_servers_are_found(run: Any, no_servers: None) -> None:
    wrong = wrong_in(report_of(run))["settings"]
    assert "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS is not set" in wrong
    assert "OMNIBASE_POSTGRES_DSN is not set" in wrong


def test_a_local_server_that_died_is_found(
    run: Any, no_servers: None, tmp_path: Path, surroundings: SetVariables
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "env").write_text("OMNIBASE_ENV=dev\nOMNIBASE_POSTGRES_DSN=postgresql://a:b@127.0.0.1:1/c\n")
    surroundings({"OMNIBASE_STATE_DIR": str(state)})
    wrong = wrong_in(report_of(run))["local services"]
    assert "postgres was started here and does not run any more → run `omninode infra up`" in wrong


def test_generated_files_that_differ_are_found(run: Any, no_servers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_contract: Path, target: Any, _kits: Any, _servers: Any, repair: str) -> list[Finding]:
        assert target.node.name == "v1_0_0"
        return [Finding(f"{name}.py", "edited", "was edited by hand", f"run `{repair}`") for name in "abcde"]

    monkeypatch.setattr(workflow, "check", check)
    wrong = wrong_in(report_of(run, "postgres-adapter"))["generated files"]
    assert wrong == (
        "a.py: was edited by hand; b.py: was edited by hand; c.py: was edited by hand; and 2 more "
        "→ run `omninode generate postgres_adapter/v1_0_0`"
    )


def test_changed_sql_needs_no_server_to_be_found(run: Any, no_servers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_contract: Path, _target: Any, _kits: Any, servers: Any, _repair: str) -> list[Finding]:
        servers.postgres_dsn()
        return []

    monkeypatch.setattr(workflow, "check", check)
    wrong = wrong_in(report_of(run, "postgres-adapter"))["generated files"]
    assert "SQL files have changed since they were analysed → run `omninode generate postgres_adapter" in wrong


def test_a_node_that_does_not_load_is_found_and_the_rest_is_looked_at(
    run: Any, no_servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_interface(node: str) -> None:
        raise GenerationDriftError(f"{node}: generated for another runtime", hint="run `omninode generate`")

    monkeypatch.setattr(node_interface, "load_interface", load_interface)
    found = report_of(run)
    assert "postgres_adapter: generated for another runtime" in wrong_in(found)["nodes"]
    assert found["postgres"][0]["message"] == "no node needs it"


def test_an_unknown_node_is_a_wrong_call(run: Any) -> None:
    result = run(app, "postgres-adaptor")
    assert result.exit_code == 2
    assert "did you mean" in result.stderr


def test_errors_of_a_check_are_findings_beside_what_it_had_found() -> None:
    def look() -> Iterator[CheckResult]:
        yield ok("topics", "one is there")
        raise ConfigurationError("two is not", hint="make it")

    assert [(one.state, one.message, one.action) for one in run_check("topics", look)] == [
        ("ok", "one is there", ""),
        ("wrong", "two is not", "make it"),
    ]


def test_unforeseen_errors_are_findings_without_a_traceback() -> None:
    def look() -> Iterator[CheckResult]:
        raise RuntimeError("boom")

    (found,) = run_check("topics", look)
    assert (found.state, found.message) == ("wrong", "could not be looked at: RuntimeError: boom")


def test_an_error_without_advice_gets_that_of_the_check() -> None:
    def look() -> Iterator[CheckResult]:
        raise ConfigurationError("no")

    assert run_check("postgres", look, "start it")[0].action == "start it"


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("msgspec>=0.1", ""),
        ("msgspec", ""),
        ("msgspec>=999.1", "needed is 999.1 or newer"),
        ("no-such-distribution>=1", "no-such-distribution is missing"),
    ],
)
def test_packages_are_there_and_new_enough(requirement: str, problem: str) -> None:
    found = package_problem(requirement)
    assert problem in found
    assert bool(problem) is bool(found)


def test_the_statements_of_a_node_are_found_in_its_processors() -> None:
    names = [statement.name for statement in statements_of(find_node("postgres_adapter"))]
    assert names == sorted(set(names))
    assert "insert_order" in names
