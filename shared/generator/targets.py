"""Where the files of a node go, and under which import path."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from omnibase_infra.shared.registry.packages import own_workers, package_of

WORK_FOLDER: Final = ".generation"


class Target(msgspec.Struct, frozen=True):
    """The place of one version of a node.

    Attributes:
        node: folder that holds the contract; its parent is the node's folder.
        tests: folder of the generated tests.
        package: import path of `node`.
    """

    node: Path
    tests: Path
    package: str

    @property
    def marker(self) -> Path:
        """Return the package file of the node's folder, which all versions share."""
        return self.node.parent / "__init__.py"

    @property
    def work(self) -> Path:
        """Return the folder for work in progress; never committed."""
        return self.node / WORK_FOLDER


def target_of(node: Path, tests: Path | None = None) -> Target:
    """Return the target of a version folder.

    In this checkout tests go to `tests/nodes/<node>/<version>`, elsewhere to `tests` below the version folder. The
    import path is that of the enclosing packages, and at least `<node>.<version>`.

    Args:
        node: the version folder; it need not exist.
        tests: another folder for the tests.
    """
    folder = node.resolve()
    root = own_workers()
    mirrored = root.parent / "tests" / "nodes" / folder.parent.name / folder.name
    default = mirrored if folder.parent.parent == root else folder / "tests"
    return Target(folder, (tests or default).resolve(), package_of(folder))
