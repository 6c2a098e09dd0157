"""`omninode contract diff` names what breaks by its path, and says so by its exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omnibase_infra.shared.cli.generate_models import models_folder
from omnibase_infra.shared.cli.main import app
from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.generator.servers import servers
from omnibase_infra.shared.generator.targets import target_of
from omnibase_infra.shared.generator.workflow import generate_node

RUN = CliRunner()

CONTRACT = """\
name: NodeDeskDiffEffect
version: {{major: 1, minor: {minor}, patch: 0}}
node_type: effect
description: Says prices.
dependencies: []
event_bus:
  subscribe: [onex.cmd.desk-diff.requests.v1]
  publish: [onex.evt.desk-diff.results.v1]
io_operations:
{operations}
definitions:
  ModelAsk: {{type: object, required: [sku], properties: {{sku: {{type: string}}{more}}}}}
  ModelPrice: {{type: object, required: [cents], properties: {{cents: {{type: integer, minimum: {least}}}}}}}
delivery:
  guarantee: at_least_once
idempotency: It only says prices.
"""
PRICE = "  - {name: price, description: Says a price., kit: custom, request: ModelAsk, response: ModelPrice}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate two versions of a node; the newer one asks for more and answers with less certainty."""
    root = tmp_path_factory.mktemp("desks")
    for minor, least, more in ((0, 0, ""), (1, -5, ", shop: {type: string}")):
        folder = root / f"desk_diff/v1_{minor}_0"
        folder.mkdir(parents=True)
        text = CONTRACT.format(minor=minor, least=least, more=more, operations=PRICE)
        (folder / "contract.yaml").write_text(
            text if not minor else text.replace("required: [sku]", "required: [sku, shop]")
        )
        with servers(None, print) as available:
            generate_node(folder / "contract.yaml", target_of(folder), installed_kits(), available)
    return root


def test_what_breaks_callers_of_the_older_version_is_named(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(nodes))
    result = RUN.invoke(app, ["contract", "diff", "desk_diff/v1_0_0", "desk_diff/v1_1_0"])
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        (
            "price request $.shop: the reader requires it, and the writer does not know it "
            "[property-required, breaks BACKWARD]"
        ),
        "price response $.cents: the reader asks for at least 0, written is at least -5 [range-narrowed, breaks FORWARD]",
    ]
    assert "desk_diff 1.0.0 → desk_diff 1.1.0: 2 breaking changes; raise the major version" in result.stderr


def test_topics_lint_refuses_the_newer_version(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(nodes))
    monkeypatch.chdir(nodes)
    result = RUN.invoke(app, ["topics", "lint"])
    assert result.exit_code == 1
    found = [line for line in result.stdout.splitlines() if "TP005" in line]
    assert len(found) == 2
    assert all(line.startswith("desk_diff/v1_1_0/contract.yaml:10:12: price re") for line in found)


def test_a_mode_and_json_are_as_asked_for(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(nodes))
    words = ["contract", "diff", "desk_diff/v1_1_0", "desk_diff/v1_0_0", "--mode", "backward", "--json"]
    result = RUN.invoke(app, words)
    assert result.exit_code == 1
    (broken,) = json.loads(result.stdout)["breaking"]
    assert (broken["schema"], broken["path"], broken["direction"]) == ("price response", "$.cents", "BACKWARD")
    assert RUN.invoke(app, [*words[:4], "--mode", "none"]).exit_code == 0


def test_model_contracts_and_exported_schemas_are_compared_in_both_directions(tmp_path: Path) -> None:
    old = models_folder() / "vault/models.yaml"
    new = tmp_path / "vault/models.yaml"
    new.parent.mkdir()
    new.write_text(old.read_text().replace("maximum: 3600", "maximum: 7200"))
    result = RUN.invoke(app, ["contract", "diff", str(old), str(new)])
    assert result.exit_code == 1
    assert result.stdout == (
        "ModelVaultSecretRequest $.wrap_ttl_seconds: the reader asks for at most 3600, written is at most 7200 "
        "[range-narrowed, breaks FORWARD]\n"
    )
    assert RUN.invoke(app, ["contract", "diff", str(old), str(new), "--mode", "BACKWARD"]).exit_code == 0
    exported = tmp_path / "exported"
    shutil.copytree(old.parent / "schemas", exported)
    assert RUN.invoke(app, ["contract", "diff", str(old.parent / "schemas"), str(exported)]).exit_code == 0
    (exported / "model_vault_secret_request.schema.json").unlink()
    result = RUN.invoke(app, ["contract", "diff", str(old.parent / "schemas"), str(exported)])
    assert (result.exit_code, result.stdout) == (
        1,
        "model_vault_secret_request $: it is gone [schema-removed, breaks BACKWARD]\n",
    )


def test_exported_payloads_are_compared_as_their_callers_need(tmp_path: Path) -> None:
    for name, least in (("old", 1), ("new", 0)):
        for role in ("request", "response"):
            path = tmp_path / name / f"price.{role}.schema.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"type": "integer", "minimum": least}))
    result = RUN.invoke(app, ["contract", "diff", str(tmp_path / "old"), str(tmp_path / "new")])
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["price.response $"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["postgres_adapter", "nothing_here"], "there is no node 'nothing_here'"),
        (["postgres_adapter", "postgres_adapter", "--mode", "sideways"], "--mode: 'sideways' is not one of NONE, BACK"),
        (["postgres_adapter", str(models_folder() / "vault/models.yaml")], "are not of one kind"),
    ],
)
def test_wrong_usage_is_said_and_ends_with_two(words: list[str], says: str) -> None:
    result = RUN.invoke(app, ["contract", "diff", *words])
    assert result.exit_code == 2
    assert says in result.stderr
