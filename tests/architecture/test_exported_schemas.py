"""The schemas in `topics/schemas` are those of the nodes and of the infrastructure models."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from omnibase_infra.shared.cli.main import app

ROOT = Path(__file__).resolve().parents[2]


def test_exported_schemas_say_what_the_nodes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNIBASE_WORKERS_PATH", raising=False)
    result = CliRunner().invoke(app, ["schemas", "export", "--check", "--output", str(ROOT / "topics/schemas")])
    assert result.exit_code == 0, result.stdout
