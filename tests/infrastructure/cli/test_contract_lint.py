"""`omninode contract lint`: every problem of every contract, for people and for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omnibase_infra.shared.cli.contract import app
from omnibase_infra.shared.testing.contract_folder import ContractFolder

TYPES = "effect, compute, reducer, orchestrator"
CONTRACT = """\
name: NodePingEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Answers.
event_bus: {subscribe: [onex.cmd.ping.requests.v1], publish: [onex.evt.ping.results.v1]}
io_operations: [{name: ping_back, kit: custom, request: ModelPing, read_only: true}]
definitions: {ModelPing: {type: object}}
delivery: {guarantee: at_least_once}
"""


@pytest.fixture
def ping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContractFolder:
    """A node of a person's own, in a folder named by OMNIBASE_WORKERS_PATH."""
    folder = ContractFolder(tmp_path / "nodes", "ping")
    folder.write("contract.yaml", CONTRACT)
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(folder.root))
    monkeypatch.chdir(tmp_path)
    return folder


def test_without_a_name_all_nodes_are_checked(ping: ContractFolder) -> None:
    result = CliRunner().invoke(app, ["lint", "--json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["problems"] == []
    assert "nodes/ping/v1_0_0/contract.yaml" in report["contracts"]
    assert any(path.endswith("workers/postgres_adapter/v1_0_0/contract.yaml") for path in report["contracts"])


@pytest.mark.parametrize("target", ["ping", "ping/v1_0_0", "nodes", "nodes/ping", "nodes/ping/v1_0_0/contract.yaml"])
def test_problems_have_places_relative_to_where_people_are(ping: ContractFolder, target: str) -> None:
    ping.replace(("node_type: effect", "node_type: efect"), ("publish:", "publsh:"))
    result = CliRunner().invoke(app, ["lint", target])
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"nodes/ping/v1_0_0/contract.yaml:3:12: the text 'efect' is not one of {TYPES}; did you mean 'effect'? [CT104]",
        "nodes/ping/v1_0_0/contract.yaml:5:53: unknown key 'publsh'; did you mean 'publish'? [CT101]",
    ]
    assert "1 contract checked, 2 problems in 1 file" in result.stderr


def test_scripts_get_problems_as_json(ping: ContractFolder) -> None:
    ping.replace(("node_type: effect", "node_type: efect"))
    result = CliRunner().invoke(app, ["lint", "ping", "--json"])
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["line"], problem["column"], problem["rule"]) == (3, 12, "CT104")
    assert problem["file"] == "nodes/ping/v1_0_0/contract.yaml"


def test_a_named_node_is_checked_against_the_whole_fleet(ping: ContractFolder) -> None:
    edit = ("subscribe: [", "subscribe: [{topic: onex.evt.postgres-adapter.results.v1, external: true}, ")
    operation = "{name: note_it, kit: custom, request: ModelPing, read_only: true, on: onex.evt.postgres-adapter.x.v1}"
    ping.replace(edit, ("read_only: true}]", f"read_only: true}}, {operation}]"))
    result = CliRunner().invoke(app, ["lint", "ping"])
    assert result.exit_code == 1
    assert "is not external: postgres_adapter publishes it [CT503]" in result.stdout


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("pong", "there is no node 'pong'; did you mean 'ping'?"),
        ("ping/v9_0_0", "ping has no version 'v9_0_0'; there are: v1_0_0"),
        ("no/such/file.yaml", "there is no node 'no/such/file.yaml'"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(ping: ContractFolder, target: str, says: str) -> None:
    result = CliRunner().invoke(app, ["lint", target])
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_workers_path_that_is_no_folder_is_named(ping: ContractFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(ping.root / "nowhere"))
    result = CliRunner().invoke(app, ["lint"])
    assert result.exit_code == 2
    assert "OMNIBASE_WORKERS_PATH" in result.stderr
