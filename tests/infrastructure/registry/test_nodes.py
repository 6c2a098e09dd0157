"""Finding and loading nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import SettingsError, UnknownNodeError
from omnibase_infra.shared.registry.nodes import find_node, load_models, load_spec, node_names


def test_nodes_are_found_by_folder_name_and_by_worker_name() -> None:
    assert "postgres_adapter" in node_names()
    assert find_node("postgres-adapter") == find_node("postgres_adapter")


def test_a_version_may_be_given_in_part_and_in_each_spelling() -> None:
    newest = find_node("postgres_adapter", "1")
    assert newest.version[0] == 1
    for spelling in ("1.0.0", "v1_0_0", "v1.0", "1.0"):
        assert find_node("postgres_adapter", spelling).version == (1, 0, 0)


def test_an_unknown_node_is_answered_with_those_there_are_and_a_close_match() -> None:
    with pytest.raises(UnknownNodeError, match=r"there is no node 'postgre_adaptor'.*postgres_adapter.*did you mean"):
        load_spec("postgre_adaptor")


def test_an_unknown_version_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownNodeError, match=r"no version '9'.*postgres_adapter 1\.0\.0"):
        load_spec("postgres_adapter", "9")


def test_nodes_of_further_folders_are_found_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = tmp_path / "parrot" / "v1_2_0" / "registry"
    registry.mkdir(parents=True)
    for folder in (registry, registry.parent, registry.parent.parent):
        (folder / "__init__.py").write_text("")
    (registry / "spec.py").write_text("SPEC = 'the spec'\n")
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(tmp_path))
    monkeypatch.setattr("sys.path", [*sys.path])
    assert {"parrot", "postgres_adapter"} <= set(node_names())
    assert find_node("parrot").package == "parrot.v1_2_0"
    assert str(load_spec("parrot")) == "the spec"


def test_a_further_folder_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="correct OMNIBASE_WORKERS_PATH"):
        node_names()


def test_spec_and_models_of_a_node_agree_on_its_operations() -> None:
    operations = [operation.name for operation in load_spec("postgres_adapter").operations]
    assert sorted(operations) == sorted(load_models("postgres_adapter").REQUEST_MODELS)
