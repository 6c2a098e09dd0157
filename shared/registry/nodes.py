"""The nodes there are, and how to load one. Finding them imports nothing; loading one imports only that one."""

from __future__ import annotations

import difflib
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import msgspec

from omnibase_infra.shared.core.errors import UnknownNodeError
from omnibase_infra.shared.core.ports import WorkerNode
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.registry.container import ONEXContainer
from omnibase_infra.shared.registry.packages import make_importable, package_of, worker_folders

_VERSION_FOLDER: Final = re.compile(r"v(0|[1-9]\d*)_(0|[1-9]\d*)_(0|[1-9]\d*)\Z")


class NodeVersion(msgspec.Struct, frozen=True, order=True):
    """One generated version of a node."""

    node: str
    version: tuple[int, int, int]
    folder: Path

    def __str__(self) -> str:
        return f"{self.node} {'.'.join(map(str, self.version))}"

    @property
    def package(self) -> str:
        """Return its import path."""
        return package_of(self.folder)

    def module(self, name: str) -> ModuleType:
        """Import and return a module of it, such as `registry.spec`.

        Raises:
            GenerationDriftError: it was generated for another runtime.
        """
        make_importable(self.folder)
        return import_module(f"{self.package}.{name}")


def node_versions() -> list[NodeVersion]:
    """Return every generated node version, sorted by name and version.

    Raises:
        SettingsError: OMNIBASE_WORKERS_PATH names something that is no folder.
    """
    found = []
    for root in worker_folders():
        for spec in root.glob("*/v*/registry/spec.py"):
            folder = spec.parent.parent
            if match := _VERSION_FOLDER.match(folder.name):
                major, minor, patch = (int(number) for number in match.groups())
                found.append(NodeVersion(folder.parent.name, (major, minor, patch), folder))
    return sorted(found)


def node_names() -> list[str]:
    """Return the names of all generated nodes, sorted."""
    return sorted({found.node for found in node_versions()})


def find_node(node: str, version: str | None = None) -> NodeVersion:
    """Return a node's version: the one asked for (`1`, `1.2` or `1.2.0`), or else the newest.

    Args:
        node: folder name or worker name: `postgres_adapter` or `postgres-adapter`.
        version: a whole version or its first numbers, of which the newest is meant.

    Raises:
        UnknownNodeError: lists what there is, and the closest match.
    """
    name = node.replace("-", "_")
    versions = [found for found in node_versions() if found.node == name]
    if not versions:
        names = node_names()
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise UnknownNodeError(
            f"there is no node {node!r}; there {_list_of(names)}",
            hint=f"did you mean {close[0]!r}?" if close else "run `omninode generate` if its contract is new",
        )
    if version is None:
        return versions[-1]
    wanted = version.removeprefix("v").replace("_", ".").split(".")
    fitting = [found for found in versions if [str(number) for number in found.version][: len(wanted)] == wanted]
    if not fitting:
        raise UnknownNodeError(
            f"{name} has no version {version!r}; there {_list_of([str(found) for found in versions])}"
        )
    return fitting[-1]


def load_spec(node: str, version: str | None = None) -> WorkerSpec:
    """Return the worker's spec. Light: no driver and no model is imported.

    Raises:
        UnknownNodeError: no such node or version.
        GenerationDriftError: it was generated for another runtime.
    """
    return cast("WorkerSpec", find_node(node, version).module("registry.spec").SPEC)


def load_models(node: str, version: str | None = None) -> ModuleType:
    """Return the node's `models` package, with REQUEST_MODELS and RESPONSE_MODELS by operation.

    Raises:
        UnknownNodeError: no such node or version.
        GenerationDriftError: it was generated for another runtime.
    """
    return find_node(node, version).module("models")


def load_statements(node: str, version: str | None = None) -> tuple[Any, ...]:
    """Return the node's SQL statements (`shared.postgres.statements.Statement`); none for a node without SQL.

    Raises:
        UnknownNodeError: no such node or version.
    """
    module = f"{find_node(node, version).package}.processors.statements"
    return tuple(import_module(module).STATEMENTS) if find_spec(module) is not None else ()


def load_node(node: str, container: ONEXContainer, version: str | None = None) -> WorkerNode:
    """Return the node, built from the container's services.

    Raises:
        UnknownNodeError: no such node or version.
        GenerationDriftError: it was generated for another runtime.
        ServiceMissingError, ProtocolNotSpokenError, ConfigurationError: something that its contract requires is not there.
    """
    found = find_node(node, version)
    container.limited_to(found.module("registry.dependencies").DEPENDENCIES).require_all()
    return cast("WorkerNode", found.module("registry.build").build(container))


def _list_of(names: list[str]) -> str:
    return f"are: {', '.join(names)}" if names else "are none"
