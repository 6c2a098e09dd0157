"""Nodes are found by their folders, and by the names people type."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnibase_infra.shared.contracts.discovery import discover_nodes, find_node, locate_contracts
from omnibase_infra.shared.core.errors import SettingsError, UnknownNodeError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("order_store/v1_0_0", "order_store/v1_10_0", "order_store/v1_9_0", "ping/v2_0_0"):
        path = tmp_path / folder / "contract.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("", encoding="utf-8")
    for folder in ("ping/v2", "ping/v02_0_0", "Not-a-node/v1_0_0", "empty/v1_0_0"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("ping/v2", "ping/v02_0_0", "Not-a-node/v1_0_0"):
        (tmp_path / folder / "contract.yaml").write_text("", encoding="utf-8")
    return tmp_path


def test_nodes_are_found_with_versions_in_their_order(root: Path) -> None:
    nodes = discover_nodes([root, root])
    assert {node: [str(location) for location in versions] for node, versions in nodes.items()} == {
        "order_store": ["order_store/v1_0_0", "order_store/v1_9_0", "order_store/v1_10_0"],
        "ping": ["ping/v2_0_0"],
    }


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere is no folder.*OMNIBASE_WORKERS_PATH"):
        discover_nodes([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("order_store", "order_store/v1_10_0"),
        ("order-store", "order_store/v1_10_0"),
        ("order_store/v1_9_0", "order_store/v1_9_0"),
        ("order-store/1.0.0", "order_store/v1_0_0"),
        ("ping/", "ping/v2_0_0"),
    ],
)
def test_a_node_is_found_by_what_people_type(root: Path, name: str, found: str) -> None:
    assert str(find_node(name, discover_nodes([root]))) == found


def test_an_unknown_node_is_answered_with_those_there_are(root: Path) -> None:
    nodes = discover_nodes([root])
    with pytest.raises(UnknownNodeError, match=r"no node 'nope'; there are: order_store, ping"):
        find_node("nope", nodes)
    with pytest.raises(UnknownNodeError, match=r"did you mean 'order_store'\?"):
        find_node("ordr_store", nodes)
    with pytest.raises(UnknownNodeError, match=r"no version 'v3_0_0'; there are: v1_0_0, v1_9_0, v1_10_0"):
        find_node("order_store/v3_0_0", nodes)
    with pytest.raises(UnknownNodeError, match=r"there are: none"):
        find_node("nope", {})


def test_a_path_means_one_contract_or_all_below(root: Path) -> None:
    contract = root / "ping/v2_0_0/contract.yaml"
    assert [str(location) for location in locate_contracts(contract)] == ["ping/v2_0_0"]
    assert [str(location) for location in locate_contracts(contract.parent)] == ["ping/v2_0_0"]
    assert len(locate_contracts(root / "order_store")) == 3
    loose = root / "loose.yaml"
    loose.write_text("", encoding="utf-8")
    assert [location.node for location in locate_contracts(loose)] == ["loose"]
    with pytest.raises(UnknownNodeError, match=r"empty holds no contract\.yaml"):
        locate_contracts(root / "empty")
