"""Import freshly rendered code in a process of its own, before it replaces what is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.generator.plan import SourceFile
from omnibase_infra.shared.generator.rendered import write_text
from omnibase_infra.shared.generator.targets import Target

_TIMEOUT_SECONDS: Final = 120

# Puts the staged folder before the real one on the path of the package above the node, then imports each module.
_SCRIPT: Final = """
import importlib, sys, traceback
staged, parent, *modules = sys.argv[1:]
if parent:
    importlib.import_module(parent).__path__.insert(0, staged)
else:
    sys.path.insert(0, staged)
for module in modules:
    try:
        importlib.import_module(module)
    except Exception:
        print(f"{module} cannot be imported:", file=sys.stderr)
        traceback.print_exc(limit=-3)
        sys.exit(1)
"""


class ImportCheckError(ConfigurationError):
    """Generated code cannot be imported; nothing was written. The message holds the end of the traceback."""

    code = "generated-code-invalid"


def check_imports(target: Target, files: Sequence[SourceFile], staging: Path) -> str:
    """Import every generated module of a node.

    People's files are taken as they are on disk. Modules that need them are imported last: their failure is
    people's to repair, and returned instead of raised.

    Args:
        target: where the files will go.
        files: all files of the node.
        staging: an empty folder to lay them out in.

    Raises:
        ImportCheckError: a module that depends on no people's file fails.
    """
    node, version = target.package.split(".")[-2:]
    folder = staging / node / version
    write_text(staging / node / "__init__.py", "")
    for file in files:
        if file.root == "node":
            write_text(folder / file.path, _content(target, file))
    parent = target.package.rpartition(f".{node}.{version}")[0] if target.package.count(".") > 1 else ""
    modules = [_module(target.package, path) for path in _python(files)]
    theirs = [_module(target.package, file.path) for file in files if file.owner == "people"]
    ours = [module for module in modules if module not in theirs]
    if not theirs:
        _run(staging, parent, ours)
        return ""
    needs_theirs = {f"{target.package}.node", f"{target.package}.registry.build"}
    _run(staging, parent, [module for module in ours if module not in needs_theirs])
    try:
        _run(staging, parent, [*theirs, *sorted(needs_theirs)])
    except ImportCheckError as error:
        return str(error)
    return ""


def _content(target: Target, file: SourceFile) -> str:
    existing = target.node / file.path
    return existing.read_text("utf-8") if file.owner == "people" and existing.is_file() else file.content


def _python(files: Iterable[SourceFile]) -> list[str]:
    return [file.path for file in files if file.root == "node" and file.path.endswith(".py")]


def _module(package: str, path: str) -> str:
    parts = path.removesuffix(".py").split("/")
    return ".".join([package, *(part for part in parts if part != "__init__")])


def _run(staging: Path, parent: str, modules: Sequence[str]) -> None:
    command = [sys.executable, "-B", "-c", _SCRIPT, str(staging), parent, *modules]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise ImportCheckError(f"generated code cannot be imported\n{done.stderr.strip()}")
