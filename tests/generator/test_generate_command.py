"""`omninode generate` and `omninode-generate`: what they print, what they exit with, where files go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omnibase_infra.shared.testing.generated_node import GeneratedNode

GOLDEN = Path(__file__).parent / "golden"
OMNINODE = [sys.executable, "-m", "omnibase_infra.shared.cli.main"]
ONE_FILE = [sys.executable, "-c", "from omnibase_infra.shared.cli.generate import main; main()"]


@pytest.fixture
def fleet(order_store: GeneratedNode) -> Path:
    """A folder of nodes outside of the checkout."""
    return order_store.folder.parent.parent


def omninode(*arguments: str, nodes: Path) -> subprocess.CompletedProcess[str]:
    return call([*OMNINODE, "generate", *arguments], nodes, {"OMNIBASE_WORKERS_PATH": str(nodes)})


def call(command: list[str], folder: Path, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"} | (variables or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_node_of_another_folder_is_found_checked_and_repaired(fleet: Path, order_store: GeneratedNode) -> None:
    assert omninode("order-store", "--check", nodes=fleet).returncode == 0
    order_store.edit("port.py", "Reads one order", "Reads one")
    checked = omninode("order_store", "--check", nodes=fleet)
    assert checked.returncode == 1
    assert "order_store/v1_0_0/port.py: a generated file was edited by hand [edited]" in checked.stdout
    assert "run `omninode generate order_store/v1_0_0`" in checked.stdout
    generated = omninode("order_store/v1_0_0", nodes=fleet)
    assert generated.returncode == 0
    assert "1 files written" in generated.stdout
    assert "up to date" in omninode("order_store", nodes=fleet).stdout


def test_diff_prints_what_would_change_and_writes_nothing(fleet: Path, order_store: GeneratedNode) -> None:
    order_store.edit("port.py", "Reads one order", "Reads one")
    before = order_store.files()
    shown = omninode("order_store", "--diff", nodes=fleet)
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[:2] == ["--- order_store/v1_0_0/port.py", "+++ order_store/v1_0_0/port.py"]
    assert "-        " in shown.stdout
    assert order_store.files() == before


def test_a_wrong_contract_gives_every_problem_and_exit_code_2(fleet: Path, order_store: GeneratedNode) -> None:
    order_store.edit("contract.yaml", "ordering: key", "ordering: sometimes")
    order_store.edit("contract.yaml", "partitions: 6", "partitions: many")
    done = omninode("order_store", nodes=fleet)
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if "order_store/v1_0_0/contract.yaml:" in line]) >= 2


def test_an_unknown_node_is_answered_with_those_there_are(fleet: Path) -> None:
    done = omninode("order_stoer", nodes=fleet)
    assert done.returncode == 2
    assert "order_store" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_not_there_is_one_clear_line(fleet: Path, order_store: GeneratedNode) -> None:
    order_store.edit("statements/remove_order.sql", "order_id = $1", "order_id = $1 AND quantity > 0")
    done = omninode("order_store", "--database", "postgresql://someone:s3cret@127.0.0.1:1/nothing", nodes=fleet)
    assert done.returncode == 1
    assert "cannot connect to PostgreSQL to analyse statements" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_database_a_local_one_answers_and_is_gone_afterwards(fleet: Path, order_store: GeneratedNode) -> None:
    order_store.edit("statements/remove_order.sql", "order_id = $1", "order_id = $1 AND quantity > 0")
    done = omninode("order_store", nodes=fleet)
    assert done.returncode == 0, done.stderr
    assert "asking PostgreSQL" in done.stderr
    assert order_store.check() == []


def test_one_contract_file_is_generated_into_a_folder_of_its_own(tmp_path: Path) -> None:
    contracts = tmp_path / "contracts"
    shutil.copytree(GOLDEN / "order_store" / "v1_0_0", contracts, ignore=shutil.ignore_patterns("*.py", ".generation"))
    output = tmp_path / "nodes" / "order_store" / "v1_0_0"
    output.mkdir(parents=True)
    shutil.copy(contracts / "statements.lock.json", output)
    command = [*ONE_FILE, "--type", "effect", "--contract", "contracts/contract.yaml", "--output", str(output)]
    first = call(command, tmp_path)
    assert first.returncode == 0, first.stderr
    assert (output / "registry" / "build.py").exists()
    assert (output / "tests" / "test_node.py").exists()
    assert call([*command, "--check"], tmp_path).returncode == 0

    text = (contracts / "contract.yaml").read_text()
    (contracts / "contract.yaml").write_text(text.replace("Stores orders", "Keeps orders"))
    assert call([*command, "--check"], tmp_path).returncode == 2
    assert call(command, tmp_path).returncode == 0
    assert "Keeps orders" in (output / "node.py").read_text()

    (output / "contract.yaml").write_text(text)
    edited = call(command, tmp_path)
    assert edited.returncode == 2
    assert "bring the two in line" in edited.stderr


def test_a_contract_of_another_type_than_stated_is_refused(tmp_path: Path) -> None:
    contract = GOLDEN / "order_store" / "v1_0_0" / "contract.yaml"
    command = [*ONE_FILE, "--type", "reducer", "--contract", str(contract), "--output", str(tmp_path / "a" / "v1_0_0")]
    done = call(command, tmp_path)
    assert done.returncode == 2
    assert "node_type 'effect', --type says 'reducer'" in done.stderr
    assert list(tmp_path.iterdir()) == []
