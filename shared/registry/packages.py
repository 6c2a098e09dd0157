"""Where nodes are: the folders that hold them, and the import paths of what is in there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import omnibase_infra
from omnibase_infra.shared.core.errors import SettingsError

WORKERS_PACKAGE: Final = "omnibase_infra.workers"
FURTHER_FOLDERS: Final = "OMNIBASE_WORKERS_PATH"


def own_workers() -> Path:
    """Return the folder of the nodes that come with this distribution."""
    return (Path(str(omnibase_infra.__file__)).parent / "workers").resolve()


def worker_folders() -> Sequence[Path]:
    """Return every folder with nodes: our own, then those of OMNIBASE_WORKERS_PATH.

    Raises:
        SettingsError: one of the latter is no folder.
    """
    from omnibase_infra.shared.core.settings import environment_values

    further = environment_values([FURTHER_FOLDERS]).get(FURTHER_FOLDERS, "")
    folders = [Path(part).resolve() for part in further.split(":") if part]
    for folder in folders:
        if not folder.is_dir():
            raise SettingsError(f"{folder} is no folder, expected one with nodes", hint=f"correct {FURTHER_FOLDERS}")
    return [own_workers(), *folders]


def package_of(version: Path) -> str:
    """Return the import path of a version folder: of the enclosing packages, and at least `<node>.<version>`."""
    node = version.parent
    if node.parent == own_workers():
        return f"{WORKERS_PACKAGE}.{node.name}.{version.name}"
    return ".".join([*(part.name for part in _packages_above(node)), node.name, version.name])


def make_importable(version: Path) -> None:
    """Let the package of a version folder be imported; nothing to do for our own."""
    node = version.parent
    if node.parent == own_workers():
        return
    above = _packages_above(node)
    root = str((above[0] if above else node).parent)
    if root not in sys.path:
        sys.path.append(root)


def _packages_above(node: Path) -> list[Path]:
    """Return the packages that enclose a node's folder, outermost first."""
    found: list[Path] = []
    for parent in node.parents:
        if not (parent / "__init__.py").is_file():
            break
        found.insert(0, parent)
    return found
