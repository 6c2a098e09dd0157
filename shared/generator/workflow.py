"""Generate or check nodes: load, plan, render, then write or compare. What the command line and tests call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from omnibase_infra.shared.contracts.loader import load_contract
from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.generator.check import Finding, check_node, diff_node
from omnibase_infra.shared.generator.journal import finish_interrupted
from omnibase_infra.shared.generator.kits.discovery import schemas_of
from omnibase_infra.shared.generator.kits.interface import Kit, Servers
from omnibase_infra.shared.generator.manifest import Manifest, make_manifest, read_manifest
from omnibase_infra.shared.generator.plan import SourceFile
from omnibase_infra.shared.generator.planner import make_plan
from omnibase_infra.shared.generator.rendered import render
from omnibase_infra.shared.generator.targets import Target
from omnibase_infra.shared.generator.unchanged import is_unchanged, remember
from omnibase_infra.shared.generator.writer import WriteResult, write_node
from omnibase_infra.shared.local_services.file_lock import file_lock

_LOCK_TIMEOUT_SECONDS: Final = 60.0


class Rendered(msgspec.Struct, frozen=True):
    """A node as it should be, and what is known about it as it is."""

    target: Target
    contract: Contract
    files: Sequence[SourceFile]
    manifest: Manifest
    previous: Manifest | None


def render_node(contract_path: Path, target: Target, kits: Mapping[str, Kit], servers: Servers) -> Rendered:
    """Return the node of a contract, rendered in memory.

    Raises:
        ContractError: the contract has problems.
        ConfigurationError: it cannot be generated.
        DependencyUnavailableError, LocalServiceError: a server is needed and cannot be asked.
    """
    return _render(load_contract(contract_path, schemas_of(kits)), target, kits, servers)


def _render(contract: Contract, target: Target, kits: Mapping[str, Kit], servers: Servers) -> Rendered:
    previous = read_manifest(target.node)
    plan = make_plan(contract, target.package, kits, servers)
    files = render(plan, kits)
    return Rendered(target, contract, files, make_manifest(contract, files, previous), previous)


def generate_node(contract_path: Path, target: Target, kits: Mapping[str, Kit], servers: Servers) -> WriteResult:
    """Bring a node's folders in line with its contract, all or nothing.

    Raises:
        ContractError, ConfigurationError, DependencyUnavailableError, LocalServiceError: see `render_node`.
        PeoplesFileError, ImportCheckError, OSError: see `write_node`.
    """
    with _locked(target):
        finish_interrupted(target.work)
        contract = load_contract(contract_path, schemas_of(kits))
        if is_unchanged(target, contract, read_manifest(target.node)):
            return WriteResult()
        node = _render(contract, target, kits, servers)
        result = write_node(target, node.files, node.manifest, node.previous)
        if not result.warning:
            remember(target, contract)
        return result


def check(contract_path: Path, target: Target, kits: Mapping[str, Kit], servers: Servers, repair: str) -> list[Finding]:
    """Return how a node differs from its contract; `repair` is the command that generates it.

    Raises:
        ContractError, ConfigurationError, DependencyUnavailableError, LocalServiceError: see `render_node`.
    """
    node = render_node(contract_path, target, kits, servers)
    return check_node(target, node.files, node.manifest, node.previous, repair)


def diff(contract_path: Path, target: Target, kits: Mapping[str, Kit], servers: Servers) -> Iterator[str]:
    """Yield a unified diff from what is on disk to what generating would write; `generation.json` is left out.

    Raises:
        ContractError, ConfigurationError, DependencyUnavailableError, LocalServiceError: see `render_node`.
    """
    node = render_node(contract_path, target, kits, servers)
    yield from diff_node(target, node.files, node.previous)


@contextmanager
def _locked(target: Target) -> Iterator[None]:
    """Keep two generations of one node apart."""
    with file_lock(target.work / "lock", timeout=_LOCK_TIMEOUT_SECONDS):
        yield
