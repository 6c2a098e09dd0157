"""The bench's own node is what its contract says, as every node of the fleet is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.faults.probe import MIGRATIONS, NODES

from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.generator.kits.interface import Servers
from omnibase_infra.shared.generator.targets import target_of
from omnibase_infra.shared.generator.workflow import check

FOLDER = MIGRATIONS.parent
REPOSITORY = Path(__file__).resolve().parents[2]


def no_server() -> str:
    raise AssertionError("no statement of this node is to be analysed")


def test_it_is_what_its_contract_says() -> None:
    repair = f"OMNIBASE_WORKERS_PATH={NODES} omninode generate fault_probe"
    assert check(FOLDER / "contract.yaml", target_of(FOLDER), installed_kits(), Servers(no_server), repair) == []


def test_its_generated_tests_pass(tmp_path: Path) -> None:
    shutil.copytree(NODES, tmp_path / "nodes", ignore=shutil.ignore_patterns(".generation", "__pycache__"))
    paths = [os.environ.get("PYTHONPATH", ""), str(tmp_path / "nodes")]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", str(REPOSITORY / "pyproject.toml"), "--rootdir=.", "."],
        cwd=tmp_path / "nodes",
        env=outer | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
