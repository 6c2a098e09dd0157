"""Make the virtual environment: `python setup_environment.py VENV LOCK`. Standard library only; shows what it does.

Packages come from the index that pip is configured for, each checked against the hash in the lock file.
"""

from __future__ import annotations

import subprocess
import sys
import time
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path

MINIMUM = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
# The installer: the same result as pip in a tenth of the time. Its own version is fixed here.
INSTALLER = "uv>=0.9,<1"
OWN = ("shared", "topics", "workers")


def main() -> int:
    """Create or refresh the environment; return an exit code."""
    if sys.version_info < MINIMUM:
        print(
            f"error: Python {sys.version.split()[0]} is too old, 3.11 or newer is needed; "
            "name another one by `make PYTHON=python3.12 …`",
            file=sys.stderr,
        )
        return 2
    environment, lock = (ROOT / argument for argument in sys.argv[1:3])
    python = environment / "bin" / "python"
    install = [str(python), "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    steps: list[tuple[str, list[str]]] = [
        ("install the installer", [str(python), "-m", "pip", "install", "--quiet", "--upgrade", INSTALLER]),
        (
            f"install {_count(lock)} locked packages",
            # Compiled now: a process that may not write, or must not, would compile everything at each of its starts.
            [*install, "--compile-bytecode", "--require-hashes", "-r", str(lock)],
        ),
        (
            "install omnibase_infra itself, editable",
            [*install, "--no-deps", "--no-build-isolation", "-e", str(ROOT)],
        ),
        ("compile omnibase_infra", [str(python), "-m", "compileall", "-q", *(str(ROOT / name) for name in OWN)]),
    ]
    if not python.exists():
        _step("create the virtual environment", partial(venv.create, environment, with_pip=True))
    for name, command in steps:
        if not _step(name, partial(subprocess.run, command, check=True, cwd=ROOT)):
            return 1
    return 0


def _step(name: str, action: Callable[[], object]) -> bool:
    print(f"setup: {name} … ", end="", flush=True)
    started = time.monotonic()
    try:
        action()
    except subprocess.CalledProcessError as error:
        print(f"failed with exit code {error.returncode}; the reason stands above", flush=True)
        return False
    print(f"{time.monotonic() - started:.1f} s", flush=True)
    return True


def _count(lock: Path) -> int:
    return sum("==" in line and not line.startswith((" ", "#")) for line in lock.read_text().splitlines())


if __name__ == "__main__":
    sys.exit(main())
