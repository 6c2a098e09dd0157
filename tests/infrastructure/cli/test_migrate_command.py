"""`omninode migrate` on a real PostgreSQL: nodes of this repository and of further folders."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer
from typer.testing import Result

from omnibase_infra.shared.cli.migrate import migrate
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase
from omnibase_infra.shared.testing.tcp_proxy import TcpProxy

RunCommand = Callable[..., Result]


@pytest.fixture
def app(
    surroundings: Callable[[dict[str, str]], None], postgres_test_db: PostgresDatabase, tmp_path: Path
) -> typer.Typer:
    """The command, with a node of somebody else's in a further folder."""
    folder = tmp_path / "elsewhere" / "tide_table" / "v1_0_0"
    (folder / "migrations").mkdir(parents=True)
    (folder / "contract.yaml").write_text("name: NodeTideTableEffect\n")
    (folder / "migrations" / "0001_tides.sql").write_text("CREATE TABLE tides (place text PRIMARY KEY);\n")
    surroundings({"OMNIBASE_POSTGRES_DSN": postgres_test_db.dsn, "OMNIBASE_WORKERS_PATH": str(tmp_path / "elsewhere")})
    app = typer.Typer()
    app.command()(migrate)
    return app


def test_nodes_of_further_folders_are_migrated_like_our_own(run: RunCommand, app: typer.Typer) -> None:
    result = run(app, "--json")
    assert result.exit_code == 0, result.output
    states = {f"{step['scope']}/{step['name']}": step["state"] for step in json.loads(result.stdout)}
    assert states["tide_table/0001_tides.sql"] == "applied"
    assert states["postgres_adapter/0001_orders.sql"] == "applied"


def test_a_node_of_a_further_folder_can_be_named_alone(run: RunCommand, app: typer.Typer) -> None:
    result = run(app, "tide-table", "--json")
    assert result.exit_code == 0, result.output
    scopes = {step["scope"] for step in json.loads(result.stdout)}
    assert "tide_table" in scopes
    assert "postgres_adapter" not in scopes


def test_a_server_that_is_not_up_yet_is_waited_for(
    run: RunCommand,
    app: typer.Typer,
    surroundings: Callable[[dict[str, str]], None],
    postgres_test_db: PostgresDatabase,
) -> None:
    address = urlsplit(postgres_test_db.dsn)
    assert address.port is not None
    with TcpProxy(address.port) as proxy:
        netloc = address.netloc.replace(f":{address.port}", f":{proxy.port}")
        surroundings({"OMNIBASE_POSTGRES_DSN": address._replace(netloc=netloc).geturl()})
        proxy.cut()
        assert run(app, "postgres_adapter").exit_code == 1
        result = run(app, "postgres_adapter", "--wait", "0.5")
        assert result.exit_code == 1
        assert "postgres could not be reached within 0.5 s" in result.output
        timer = threading.Timer(0.4, proxy.restore)
        timer.start()
        result = run(app, "postgres_adapter", "--wait", "20")
        timer.join()
    assert result.exit_code == 0, result.output
    assert "applied" in result.output


def test_a_node_that_is_not_there_is_named_with_what_there_is(run: RunCommand, app: typer.Typer) -> None:
    result = run(app, "postgres-adaptor")
    assert result.exit_code == 2
    assert "there is no node 'postgres_adaptor'" in result.output
    assert "did you mean 'postgres_adapter'?" in result.output
