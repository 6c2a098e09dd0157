"""Writing a node: all of it or nothing, people's files untouched, orphans removed, quick when nothing changed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from omnibase_infra.shared.core.errors import ContractError
from omnibase_infra.shared.generator.import_check import ImportCheckError
from omnibase_infra.shared.generator.workflow import render_node
from omnibase_infra.shared.generator.writer import PeoplesFileError, write_node
from omnibase_infra.shared.testing.generated_node import GeneratedNode

# Generates the node in argv[1] and kills itself with SIGKILL when the n-th file is moved into place.
KILLED = """
import os, signal, sys
from pathlib import Path
from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.testing.generated_node import GeneratedNode

replace, moves, limit = Path.replace, 0, int(sys.argv[2])

def deadly(self, target):
    global moves
    if "new" in self.parts and not self.name.endswith(".part"):
        moves += 1
        if moves > limit:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = deadly
GeneratedNode(Path(sys.argv[1]), installed_kits()).generate()
"""


def change(node: GeneratedNode) -> None:
    """Change the contract so that nearly every file changes."""
    node.edit("contract.yaml", "Stores orders and answers", "Keeps orders and answers")


def test_generating_twice_changes_nothing_and_takes_no_time(order_store: GeneratedNode) -> None:
    order_store.generate()
    before = {name: order_store.path(f"../{name}").stat().st_mtime_ns for name in order_store.files()}
    started = time.process_time()
    result = order_store.generate()
    assert time.process_time() - started < 1
    assert result.written == result.deleted == ()
    assert before == {name: order_store.path(f"../{name}").stat().st_mtime_ns for name in order_store.files()}


def test_the_date_of_generation_changes_only_with_the_content(order_store: GeneratedNode) -> None:
    path = order_store.path("generation.json")
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"generated_at": "2001-01-01T00:00:00Z"}, indent=2) + "\n")
    order_store.generate()
    assert json.loads(path.read_text())["generated_at"] == "2001-01-01T00:00:00Z"
    change(order_store)
    order_store.generate()
    assert json.loads(path.read_text())["generated_at"] > "2026"


def test_what_people_wrote_survives_every_generation(order_store: GeneratedNode) -> None:
    order_store.edit("processors/price_order.py", "has not been written yet", "costs 3 euros")
    change(order_store)
    order_store.generate()
    assert "costs 3 euros" in order_store.path("processors/price_order.py").read_text()


def test_a_file_in_the_way_that_is_not_the_generator_s_is_refused_by_name(order_store: GeneratedNode) -> None:
    change(order_store)
    order_store.edit("contract.yaml", "name: remove_order", "name: delete_order")
    order_store.path("handlers/delete_order.py").write_text("mine = True\n")
    before = order_store.files()
    with pytest.raises(PeoplesFileError, match=r"handlers/delete_order\.py"):
        order_store.generate()
    assert order_store.files() == before


def test_a_custom_operation_that_becomes_a_kit_s_does_not_overwrite_its_processor(order_store: GeneratedNode) -> None:
    text = order_store.contract.read_text()
    kit = "    kit: postgres.statement\n    statement: statements/remove_order.sql\n"
    order_store.contract.write_text(text[: text.index("    kit: custom")] + kit + text[text.index("delivery:") :])
    with pytest.raises(PeoplesFileError, match=r"processors/price_order\.py"):
        order_store.generate()


def test_a_contract_with_problems_changes_nothing(order_store: GeneratedNode) -> None:
    order_store.edit("contract.yaml", "node_type: effect", "node_type: affect")
    before = order_store.files()
    with pytest.raises(ContractError):
        order_store.generate()
    assert order_store.files() == before


def test_code_that_does_not_import_is_never_written(order_store: GeneratedNode) -> None:
    change(order_store)
    before = order_store.files()
    node = render_node(order_store.contract, order_store.target, order_store.kits, order_store.servers)
    broken = [
        msgspec.structs.replace(file, content="import no_such_module\n") if file.path == "port.py" else file
        for file in node.files
    ]
    with pytest.raises(ImportCheckError, match="no_such_module"):
        write_node(order_store.target, broken, node.manifest, node.previous)
    assert order_store.files() == before


def test_a_people_s_file_that_does_not_import_is_a_warning(order_store: GeneratedNode) -> None:
    order_store.edit("processors/price_order.py", "from __future__ import annotations", "import no_such_module")
    change(order_store)
    assert "no_such_module" in order_store.generate().warning
    assert order_store.check() == []


def test_an_error_in_the_middle_puts_everything_back(
    order_store: GeneratedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(order_store)
    before = order_store.files()
    moves: list[str] = []
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if "new" in self.parts and not self.name.endswith(".part"):
            moves.append(self.name)
            if len(moves) == 20:
                raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="No space left"):
        order_store.generate()
    assert len(moves) == 20
    assert order_store.files() == before


@pytest.mark.parametrize("moves", [0, 1, 25])
def test_a_killed_generation_is_finished_by_the_next(order_store: GeneratedNode, moves: int) -> None:
    change(order_store)
    command = [sys.executable, "-c", KILLED, str(order_store.folder), str(moves)]
    killed = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert any(finding.kind == "interrupted" for finding in order_store.check())
    order_store.generate()
    assert order_store.check() == []
    assert "Keeps orders" in order_store.path("node.py").read_text()


def test_a_first_generation_needs_only_the_contract_and_its_sql(order_store: GeneratedNode) -> None:
    before = order_store.files()
    for name in before:
        path = order_store.path(f"../{name}")
        if not name.endswith((".sql", "contract.yaml", "statements.lock.json")):
            path.unlink()
    order_store.generate()
    date = b'"generated_at"'
    after = order_store.files()
    assert sorted(after) == sorted(before)
    assert {name for name in before if before[name] != after[name] and date not in after[name]} == set()
