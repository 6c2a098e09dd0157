"""Golden nodes: contracts whose generated files are kept beside them, byte for byte.

A change of the generator shows as a diff in `golden/`. To refresh it on purpose, and read the diff:

    OMNIBASE_UPDATE_GOLDEN=1 pytest tests/generator/test_golden.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from omnibase_infra.shared.generator.kits.interface import Kit, Servers
from omnibase_infra.shared.generator.targets import target_of
from omnibase_infra.shared.generator.workflow import check, generate_node
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer

GOLDEN = Path(__file__).parent / "golden"
NODES = sorted(path.parent.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("*/v*/contract.yaml"))
INPUTS = ("contract.yaml", "statements", "migrations")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def refreshed(kits: Mapping[str, Kit], request: pytest.FixtureRequest) -> None:
    """Refresh the golden files first, when asked to."""
    if os.environ.get("OMNIBASE_UPDATE_GOLDEN") != "1":
        return
    server: PostgresServer = request.getfixturevalue("postgres_container")
    for name in NODES:
        folder = GOLDEN / name
        generate_node(folder / "contract.yaml", target_of(folder), kits, Servers(lambda: server.dsn))


def test_there_are_golden_nodes() -> None:
    assert len(NODES) >= 3


@pytest.mark.parametrize("name", NODES)
def test_a_golden_node_is_what_its_contract_says(name: str, kits: Mapping[str, Kit]) -> None:
    folder = GOLDEN / name

    def no_server() -> str:
        raise AssertionError("the lock file should have answered")

    assert (
        check(folder / "contract.yaml", target_of(folder), kits, Servers(no_server), "refresh the golden files") == []
    )


@pytest.mark.parametrize("name", NODES)
def test_from_nothing_but_the_contract_postgresql_gives_the_same_bytes(
    name: str, kits: Mapping[str, Kit], tmp_path: Path, postgres_container: PostgresServer
) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    for item in INPUTS:
        source = GOLDEN / name / item
        if source.is_dir():
            shutil.copytree(source, folder / item)
        elif source.exists():
            shutil.copy(source, folder / item)
    generate_node(folder / "contract.yaml", target_of(folder), kits, Servers(lambda: postgres_container.dsn))
    assert _files(folder) == _files(GOLDEN / name)


@pytest.mark.slow
def test_all_golden_nodes_pass_strict_type_checks() -> None:
    packages = [part for name in NODES for part in ("-p", name.split("/")[0])]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(REPOSITORY / "pyproject.toml"), *packages],
        cwd=GOLDEN,
        env=os.environ | {"MYPYPATH": f"{REPOSITORY / '.src'}:{GOLDEN}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_type_checks_fail_when_an_operation_is_missing_or_answers_in_another_model(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "order_store", tmp_path / "order_store")
    node = tmp_path / "order_store" / "v1_0_0" / "node.py"
    before, method, _ = node.read_text().partition("    async def price_order(")
    node.write_text(before)
    processor = tmp_path / "order_store" / "v1_0_0" / "processors" / "remove_order.py"
    processor.write_text(processor.read_text().replace("RemoveOrderOutcome", "GetOrderOutcome"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(REPOSITORY / "pyproject.toml"), "-p", "order_store"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": f"{REPOSITORY / '.src'}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert method
    assert 'abstract class "NodeOrderStoreEffect" with abstract attribute "price_order"' in done.stdout
    assert 'got "Sequence[ModelGetOrderResponse | OperationFailed]"' in done.stdout


@pytest.mark.slow
def test_the_generated_tests_of_all_golden_nodes_pass_untouched(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "golden", ignore=shutil.ignore_patterns(".generation", "__pycache__"))
    plugins = 'pytest_plugins = ["omnibase_infra.shared.testing.postgres_fixtures"]\n'
    (tmp_path / "golden" / "conftest.py").write_text(plugins)
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(REPOSITORY / "pyproject.toml"), "--rootdir=.", "."]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=tmp_path / "golden",
        env=outer | {"PYTHONPATH": str(tmp_path / "golden")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_golden_files_pass_the_repository_s_lint() -> None:
    for command in (["check", "--quiet"], ["format", "--check", "--quiet"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(GOLDEN), str(REPOSITORY / "workers")],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _files(folder: Path) -> dict[str, bytes]:
    """Every file of a node, the date of generation apart."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not {".generation", "__pycache__"} & set(path.parts):
            lines = path.read_bytes().splitlines()
            found[path.relative_to(folder).as_posix()] = b"\n".join(
                line for line in lines if b'"generated_at"' not in line
            )
    return found
