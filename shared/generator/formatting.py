"""Format a tree of generated Python with ruff."""

from __future__ import annotations

import json
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Final

from omnibase_infra.shared.core.errors import ConfigurationError

_CONFIG: Final = Path(__file__).parent / "generated_code.toml"
_TIMEOUT_SECONDS: Final = 60


class FormattingError(ConfigurationError):
    """What a template or a kit wrote is not Python. The message says where."""

    code = "generated-code-invalid"


def format_tree(folder: Path, package: str) -> None:
    """Sort imports and format every Python file below a folder, in place.

    Args:
        folder: the tree.
        package: import path of the node; its first part counts as one's own.

    Raises:
        FormattingError: a file is not Python.
    """
    own = sorted({"omnibase_infra", package.split(".", 1)[0]})
    first_party = f"lint.isort.known-first-party={json.dumps(own)}"
    _ruff("check", "--fix", "--quiet", "--no-cache", "--config", first_party, folder=folder)
    _ruff("format", "--quiet", "--no-cache", folder=folder)


def _ruff(*arguments: str, folder: Path) -> None:
    # The package carries no types; its binary is all we need.
    ruff = import_module("ruff").find_ruff_bin()
    command = [ruff, *arguments, "--config", str(_CONFIG), "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise FormattingError(f"generated code cannot be formatted:\n{done.stdout}{done.stderr}")
