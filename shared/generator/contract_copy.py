"""Bring a contract that lies elsewhere, and the SQL files beside it, into the folder that is generated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.generator.manifest import read_manifest, sha256_of

CONTRACT_FILE: Final = "contract.yaml"
_SQL_FOLDERS: Final = ("statements", "migrations")


def bring_contract(contract: Path, node_type: str, node: Path, *, write: bool) -> Path:
    """Return the contract in the version folder `node`, copied there from `contract` when that lies elsewhere.

    Args:
        contract: the file people edit.
        node_type: what it must say it is.
        node: the version folder.
        write: whether to copy; otherwise what is there must be the same.

    Raises:
        ConfigurationError: another node type, or the copy in the folder was edited.
    """
    _check_type(contract, node_type)
    copy = node / CONTRACT_FILE
    if contract.resolve() == copy.resolve():
        return copy
    previous = read_manifest(node)
    changed = [(source, path) for source, path in _pairs(contract, node) if not _same(source, path)]
    for source, path in changed:
        record = previous.files.get(path.relative_to(node).as_posix()) if previous else None
        if path.exists() and (record is None or sha256_of(path.read_bytes()) != record.sha256):
            raise ConfigurationError(
                f"{path} differs from {source}, and was not copied from it or has been edited since",
                hint="bring the two in line, or generate from the one in the output folder",
            )
    if changed and not write:
        raise ConfigurationError(f"{changed[0][1]} is not {changed[0][0]}", hint="generate first, without --check")
    for source, path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
    return copy


def _check_type(contract: Path, node_type: str) -> None:
    try:
        data = yaml.safe_load(contract.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # loading it says what is wrong, and where
    stated = data.get("node_type") if isinstance(data, dict) else None
    if stated is not None and stated != node_type:
        raise ConfigurationError(f"{contract} has node_type {stated!r}, --type says {node_type!r}")


def _pairs(contract: Path, node: Path) -> Iterator[tuple[Path, Path]]:
    yield contract, node / CONTRACT_FILE
    for folder in _SQL_FOLDERS:
        for source in sorted((contract.parent / folder).glob("*.sql")):
            yield source, node / folder / source.name


def _same(source: Path, path: Path) -> bool:
    return path.is_file() and sha256_of(path.read_bytes()) == sha256_of(source.read_bytes())
