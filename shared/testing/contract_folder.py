"""A contract with its SQL files in a folder of a test's own: written, edited, loaded."""

from __future__ import annotations

from pathlib import Path

from omnibase_infra.shared.contracts.loader import load_contract
from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.core.errors import ContractError, Problem


class ContractFolder:
    """The folder `<root>/<node>/<version>` of one contract.

    Attributes:
        root: a folder as OMNIBASE_WORKERS_PATH names one.
        folder: where the contract and its SQL files are.
        path: the contract file.
    """

    def __init__(self, root: Path, node: str, version: str = "v1_0_0") -> None:
        self.root = root
        self.folder = root / node / version
        self.path = self.folder / "contract.yaml"

    def write(self, name: str, text: str) -> Path:
        """Write a file beside the contract, or the contract itself."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def text(self) -> str:
        """Return the contract's text."""
        return self.path.read_text(encoding="utf-8")

    def replace(self, *edits: tuple[str, str]) -> None:
        """Change the contract's text: of each pair, the first occurrence of the old text becomes the new one.

        Raises:
            ValueError: the contract does not hold an old text.
        """
        text = self.text()
        for old, new in edits:
            if old not in text:
                raise ValueError(f"{self.path} does not hold {old!r}")
            text = text.replace(old, new, 1)
        self.write("contract.yaml", text)

    def load(self) -> Contract:
        """Load the contract.

        Raises:
            ContractError: it has problems.
        """
        return load_contract(self.path)

    def problems(self) -> list[Problem]:
        """Load the contract and return what is wrong with it, sorted by place."""
        try:
            self.load()
        except ContractError as error:
            return list(error.problems)
        return []
