from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from omnibase_infra.shared.cli.migrate import migrate
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase, PostgresServer, fresh_database

runner = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(migrate)
    return app


@pytest.fixture
def database(postgres_container: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresDatabase]:
    with fresh_database(postgres_container) as fresh:
        monkeypatch.setenv("OMNIBASE_ENV", "test")
        monkeypatch.setenv("OMNIBASE_POSTGRES_DSN", fresh.dsn)
        yield fresh


def test_it_migrates_the_infrastructure_and_all_nodes_and_shows_each_step(
    database: PostgresDatabase, app: typer.Typer
) -> None:
    result = runner.invoke(app, [])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("applied  omnibase/0001_inbox_outbox.sql  (")
    assert any(line.startswith("applied  postgres_adapter/0001_orders.sql") for line in lines)
    assert lines[-1].endswith("applied")
    again = runner.invoke(app, [])
    assert again.exit_code == 0
    assert again.output.splitlines()[-1].endswith("current")


def test_a_dry_run_changes_nothing(database: PostgresDatabase, app: typer.Typer) -> None:
    for _ in range(2):
        result = runner.invoke(app, ["--dry-run"])
        assert result.exit_code == 0
        assert "pending  omnibase/0001_inbox_outbox.sql" in result.output


def test_json_is_all_there_is_on_stdout(database: PostgresDatabase, app: typer.Typer) -> None:
    result = runner.invoke(app, ["postgres-adapter", "--json"])
    assert result.exit_code == 0
    steps = json.loads(result.stdout)
    assert list(dict.fromkeys(step["scope"] for step in steps)) == ["omnibase", "postgres_adapter"]
    assert {step["state"] for step in steps} == {"applied"}


def test_a_node_there_is_not_is_a_usage_error(database: PostgresDatabase, app: typer.Typer) -> None:
    result = runner.invoke(app, ["postgres_adaptor"])
    assert result.exit_code == 2
    assert "postgres_adaptor" in result.stderr


def test_a_server_that_is_down_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, app: typer.Typer, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("OMNIBASE_ENV", "test")
    monkeypatch.setenv("OMNIBASE_POSTGRES_DSN", f"postgresql://u:hidden@127.0.0.1:{unused_tcp_port}/db")
    result = runner.invoke(app, [])
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr
    assert "hidden" not in result.output


def test_a_missing_address_is_a_settings_error(
    monkeypatch: pytest.MonkeyPatch, app: typer.Typer, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMNIBASE_ENV", "test")
    monkeypatch.delenv("OMNIBASE_POSTGRES_DSN", raising=False)
    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path))
    result = runner.invoke(app, [])
    assert result.exit_code == 2
    assert "OMNIBASE_POSTGRES_DSN is not set" in result.stderr
