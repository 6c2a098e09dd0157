"""A plan rendered and formatted, in memory, ready to be written or compared."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from omnibase_infra.shared.generator.emitters import emit_all
from omnibase_infra.shared.generator.formatting import format_tree
from omnibase_infra.shared.generator.kits.interface import Kit
from omnibase_infra.shared.generator.plan import GenerationPlan, SourceFile


def render(plan: GenerationPlan, kits: Mapping[str, Kit]) -> Sequence[SourceFile]:
    """Return every file of the plan as it is to be, sorted by root and path.

    Raises:
        FormattingError: a template or a kit wrote something that is not Python.
        ConfigurationError: two emitters write one file.
    """
    files = emit_all(plan, kits)
    with tempfile.TemporaryDirectory(prefix="omninode-generate-") as name:
        folder = Path(name)
        python = [file for file in files if file.path.endswith(".py")]
        for file in python:
            write_text(folder / file.root / file.path, file.content)
        format_tree(folder, plan.package)
        formatted = {(file.root, file.path): (folder / file.root / file.path).read_text("utf-8") for file in python}
    return [
        msgspec.structs.replace(file, content=formatted.get((file.root, file.path), file.content)) for file in files
    ]


def write_text(path: Path, content: str) -> None:
    """Write a text file with LF line ends, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")
