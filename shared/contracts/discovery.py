"""Which nodes there are: `<root>/<node>/v<M>_<m>_<p>/contract.yaml` under each root."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from omnibase_infra.shared.contracts.draft import CONTRACT_FILE, NODE_FOLDER, VERSION_FOLDER
from omnibase_infra.shared.contracts.model import Version
from omnibase_infra.shared.contracts.schema_check import did_you_mean
from omnibase_infra.shared.core.errors import SettingsError, UnknownNodeError


class NodeLocation(msgspec.Struct, frozen=True, order=True):
    """A contract of one version of a node. Sorted by node, then version, then root."""

    node: str
    version: Version
    path: Path

    @property
    def folder(self) -> Path:
        """Return the folder of this version, which holds the contract and what is generated from it."""
        return self.path.parent

    def __str__(self) -> str:
        return f"{self.node}/{self.version.folder}"


def discover_nodes(roots: Iterable[Path]) -> dict[str, list[NodeLocation]]:
    """Return every node below `roots` with its versions, oldest first. Nothing is read but folder names.

    Raises:
        SettingsError: a root is no folder.
    """
    found: dict[str, set[NodeLocation]] = {}
    for root in roots:
        if not root.is_dir():
            raise SettingsError(
                f"{root} is no folder, expected one that holds nodes", hint="correct OMNIBASE_WORKERS_PATH"
            )
        for path in root.resolve().glob(f"*/v*/{CONTRACT_FILE}"):
            version, node = path.parent.name, path.parent.parent.name
            match = VERSION_FOLDER.match(version)
            if match and NODE_FOLDER.match(node):
                parts = Version(int(match[1]), int(match[2]), int(match[3]))
                found.setdefault(node, set()).add(NodeLocation(node, parts, path))
    return {node: sorted(found[node]) for node in sorted(found)}


def locate_contracts(path: Path) -> list[NodeLocation]:
    """Return the contracts a path means: a contract file, or a folder of one version, one node, or several nodes.

    Raises:
        UnknownNodeError: the folder holds no contract.
    """
    resolved = path.resolve()
    if resolved.is_file():
        return [_location(resolved)]
    for pattern in (CONTRACT_FILE, f"v*/{CONTRACT_FILE}", f"*/v*/{CONTRACT_FILE}"):
        if found := sorted(resolved.glob(pattern)):
            return [_location(contract) for contract in found]
    raise UnknownNodeError(f"{path} holds no {CONTRACT_FILE}, nor do its folders of nodes and versions")


def _location(contract: Path) -> NodeLocation:
    """Name a contract by its folders; outside the usual layout by its file, as version 0.0.0."""
    if match := VERSION_FOLDER.match(contract.parent.name):
        version = Version(int(match[1]), int(match[2]), int(match[3]))
        return NodeLocation(contract.parent.parent.name, version, contract)
    return NodeLocation(contract.stem, Version(0, 0, 0), contract)


def find_node(name: str, nodes: Mapping[str, list[NodeLocation]]) -> NodeLocation:
    """Return a node by name, with or without a version; without one the newest.

    Args:
        name: `postgres_adapter`, `postgres-adapter` or `postgres_adapter/v1_0_0`.
        nodes: what `discover_nodes` found.

    Raises:
        UnknownNodeError: lists the nodes, or the versions, that there are.
    """
    node, _, version = name.strip("/").partition("/")
    node = node.replace("-", "_")
    versions = nodes.get(node)
    if not versions:
        there_are = ", ".join(nodes) or "none"
        raise UnknownNodeError(f"there is no node {name!r}{did_you_mean(node, nodes)}; there are: {there_are}")
    if not version:
        return versions[-1]
    for location in versions:
        if location.version.folder == version or str(location.version) == version.removeprefix("v"):
            return location
    known = ", ".join(location.version.folder for location in versions)
    raise UnknownNodeError(f"{node} has no version {version!r}; there are: {known}")
