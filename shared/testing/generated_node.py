"""A node in a folder of its own, to try contracts, kits and the generator on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omnibase_infra.shared.generator.check import Finding
from omnibase_infra.shared.generator.kits.interface import Kit, Servers
from omnibase_infra.shared.generator.targets import Target, target_of
from omnibase_infra.shared.generator.workflow import check, generate_node
from omnibase_infra.shared.generator.writer import WriteResult

REPAIR = "omninode generate it"


def no_server() -> str:
    """Stand for a server that must not be asked."""
    raise AssertionError("a server was asked for, the lock file should have answered")


@dataclass(frozen=True)
class GeneratedNode:
    """The version folder of a node, with the kits and servers it is generated with."""

    folder: Path
    kits: Mapping[str, Kit]
    servers: Servers = field(default_factory=lambda: Servers(postgres_dsn=no_server))

    @property
    def contract(self) -> Path:
        """Return the contract file."""
        return self.folder / "contract.yaml"

    @property
    def target(self) -> Target:
        """Return where the node's files go."""
        return target_of(self.folder)

    def generate(self) -> WriteResult:
        """Bring the folder in line with the contract."""
        return generate_node(self.contract, self.target, self.kits, self.servers)

    def check(self) -> list[Finding]:
        """Return how the folder differs from the contract."""
        return check(self.contract, self.target, self.kits, self.servers, REPAIR)

    def path(self, relative: str) -> Path:
        """Return a file's path."""
        return self.folder / relative

    def edit(self, relative: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        path = self.path(relative)
        text = path.read_text("utf-8")
        if old not in text:
            raise AssertionError(f"{relative} does not hold {old!r}")
        path.write_text(text.replace(old, new), "utf-8")

    def files(self) -> dict[str, bytes]:
        """Return every file of the node, work in progress apart."""
        return {
            path.relative_to(self.folder.parent).as_posix(): path.read_bytes()
            for path in sorted(self.folder.parent.rglob("*"))
            if path.is_file() and not {".generation", "__pycache__"} & set(path.parts)
        }
