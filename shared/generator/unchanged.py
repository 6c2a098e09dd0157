"""Remember that a node was brought in line, so that the next run over the same inputs costs nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Final

from omnibase_infra.shared.contracts.kits import KIT_ENTRY_POINTS
from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.generator.journal import write_durably
from omnibase_infra.shared.generator.manifest import MANIFEST_FILE, Manifest, sha256_of
from omnibase_infra.shared.generator.targets import Target
from omnibase_infra.shared.generator.writer import ROOTS, folder_of

_FILE: Final = "fingerprint"
# What the output is made with, besides our own source.
_LIBRARIES: Final = ("jinja2", "datamodel-code-generator", "ruff", "sqlglot", "msgspec")
_SHARED: Final = Path(__file__).resolve().parent.parent


def is_unchanged(target: Target, contract: Contract, manifest: Manifest | None) -> bool:
    """Return whether nothing changed since the node was last brought in line: inputs, generator, and its files."""
    known = target.work / _FILE
    if manifest is None or not known.is_file() or not target.marker.is_file():
        return False
    return known.read_text("utf-8") == fingerprint(target, contract) and all(_intact(target, manifest))


def remember(target: Target, contract: Contract) -> None:
    """Note that the node is in line with its contract."""
    write_durably(target.work / _FILE, fingerprint(target, contract).encode())


def fingerprint(target: Target, contract: Contract) -> str:
    """Return a hash over the contract, the generator's source and libraries, and the manifest."""
    digest = hashlib.sha256(contract.sha256.encode() + target.package.encode())
    for path in _sources():
        digest.update(path.read_bytes())
    kits = {entry.dist.name: entry.dist.version for entry in entry_points(group=KIT_ENTRY_POINTS) if entry.dist}
    versions: Mapping[str, str] = kits | {name: version(name) for name in _LIBRARIES}
    digest.update(repr(sorted(versions.items())).encode())
    manifest = target.node / MANIFEST_FILE
    digest.update(manifest.read_bytes() if manifest.is_file() else b"")
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for folder in ("generator", "contracts", "core"):
        yield from sorted(path for path in (_SHARED / folder).rglob("*") if path.suffix in (".py", ".j2", ".toml"))


def _intact(target: Target, manifest: Manifest) -> Iterator[bool]:
    for root in ROOTS:
        for path, record in manifest.records(root).items():
            file = folder_of(target, root) / path
            yield file.is_file() and (record.owner == "people" or sha256_of(file.read_bytes()) == record.sha256)
