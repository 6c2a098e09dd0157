"""`--check`: every way in which a node can differ from its contract is found, named, and comes with its repair."""

from __future__ import annotations

import json
import shutil

import pytest

from omnibase_infra.shared.core.errors import GenerationDriftError
from omnibase_infra.shared.testing.generated_node import REPAIR, GeneratedNode


def kinds(node: GeneratedNode) -> set[tuple[str, str]]:
    """(file name, kind) of every finding."""
    return {(finding.path.rpartition("/")[2], finding.kind) for finding in node.check()}


def test_a_node_that_was_just_generated_has_no_findings(order_store: GeneratedNode) -> None:
    assert order_store.check() == []


def test_checking_writes_nothing(order_store: GeneratedNode) -> None:
    order_store.edit("node.py", "Stores orders", "Stores order")
    before = order_store.files()
    assert order_store.check()
    assert order_store.files() == before


@pytest.mark.parametrize(
    "name", ["node.py", "README.md", "statements.lock.json", "tests/test_node.py", "models/__init__.py"]
)
def test_one_character_edited_by_hand_is_found_and_the_repair_named(order_store: GeneratedNode, name: str) -> None:
    path = order_store.path(name)
    path.write_text(path.read_text() + "\n")
    (finding,) = order_store.check()
    assert finding.path.endswith(name)
    assert finding.kind == "edited"
    assert REPAIR in finding.repair


def test_generating_repairs_an_edited_file(order_store: GeneratedNode) -> None:
    before = order_store.files()
    order_store.edit("node.py", "Stores orders", "Stores order")
    order_store.path("port.py").unlink()
    order_store.generate()
    assert order_store.files() == before


def test_a_contract_edit_makes_its_files_stale_and_names_the_hash(order_store: GeneratedNode) -> None:
    order_store.edit("contract.yaml", "Stores orders and answers", "Keeps orders and answers")
    found = kinds(order_store)
    assert ("generation.json", "contract") in found
    assert ("node.py", "stale") in found
    order_store.generate()
    assert order_store.check() == []


def test_an_edited_people_s_processor_is_nobody_s_business(order_store: GeneratedNode) -> None:
    order_store.edit("processors/price_order.py", "has not been written yet", "is on its way")
    assert order_store.check() == []


def test_a_changed_signature_of_a_people_s_processor_is_shown_with_the_expected_one(order_store: GeneratedNode) -> None:
    order_store.edit("processors/price_order.py", "async def run(", "def run(")
    (finding,) = order_store.check()
    assert finding.kind == "signature"
    assert "expected `async def run(self, requests: Sequence[ModelPriceRequest]" in finding.message


def test_an_operation_that_changes_its_model_needs_the_people_s_processor_to_follow(order_store: GeneratedNode) -> None:
    order_store.edit("contract.yaml", "ModelPriceRequest", "ModelPriceQuestion")
    result = order_store.generate()
    assert "price_order" in result.warning
    (finding,) = order_store.check()
    assert finding.kind == "signature"
    assert "Sequence[ModelPriceQuestion]" in finding.message


def test_missing_files_are_named(order_store: GeneratedNode) -> None:
    order_store.path("handlers/get_order.py").unlink()
    order_store.path("processors/price_order.py").unlink()
    order_store.path("../__init__.py").unlink()
    assert kinds(order_store) == {
        ("get_order.py", "missing"),
        ("price_order.py", "missing"),
        ("__init__.py", "missing"),
    }


def test_files_of_a_removed_operation_are_orphans(order_store: GeneratedNode) -> None:
    text = order_store.contract.read_text()
    start, end = text.index("  - name: remove_order"), text.index("  - name: price_order")
    order_store.contract.write_text(text[:start] + text[end:])
    order_store.path("statements/remove_order.sql").unlink()
    assert {name for name, kind in kinds(order_store) if kind == "orphan"} == {
        "remove_order.py",
        "model_remove_order_parameters.py",
        "model_remove_order_response.py",
    }
    order_store.generate()
    assert order_store.check() == []
    assert not order_store.path("handlers/remove_order.py").exists()


def test_a_file_nobody_generated_is_an_orphan(order_store: GeneratedNode) -> None:
    order_store.path("handlers/helpful.py").write_text("")
    assert kinds(order_store) == {("helpful.py", "orphan")}


def test_the_date_of_generation_is_ignored_and_all_else_in_the_manifest_is_not(order_store: GeneratedNode) -> None:
    path = order_store.path("generation.json")
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"generated_at": "2001-01-01T00:00:00Z"}))
    assert order_store.check() == []
    path.write_text(json.dumps(manifest | {"generator_version": "0"}))
    assert kinds(order_store) == {("generation.json", "manifest")}


def test_a_missing_manifest_is_found_and_a_damaged_one_is_an_error(order_store: GeneratedNode) -> None:
    order_store.path("generation.json").unlink()
    assert ("generation.json", "missing") in kinds(order_store)
    order_store.path("generation.json").write_text("{")
    with pytest.raises(GenerationDriftError, match="restore it from version control"):
        order_store.check()


def test_a_line_end_of_another_system_is_no_difference(order_store: GeneratedNode) -> None:
    for path in (order_store.path("node.py"), order_store.contract):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert order_store.check() == []


def test_a_lock_file_that_no_longer_holds_asks_postgresql(order_store: GeneratedNode) -> None:
    order_store.edit("statements/remove_order.sql", "order_id = $1", "order_id = $1 AND quantity > 0")
    with pytest.raises(AssertionError, match="a server was asked for"):
        order_store.check()


def test_the_folder_may_move(order_store: GeneratedNode) -> None:
    elsewhere = order_store.folder.parent.parent / "some where" / "order_store"
    shutil.copytree(order_store.folder.parent, elsewhere)
    assert GeneratedNode(elsewhere / "v1_0_0", order_store.kits).check() == []
