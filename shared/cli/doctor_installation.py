"""Checks that need no server: Python, packages, the import root, settings, local services, nodes, generated files."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final, NoReturn

import omnibase_infra
from omnibase_infra.shared.cli.doctor_report import CheckResult, listed, ok, wrong
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.core.settings import ENV_FILE, Settings, read_env_file, state_directory

DISTRIBUTION: Final = "omnibase-infra-fleet"
OLDEST_PYTHON: Final = (3, 11)
IMPORT_ROOT: Final = ("shared", "topics", "workers")

_REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:(?:>=|==)(?P<version>[0-9.]+))?")


def python() -> Iterator[CheckResult]:
    """Look at the interpreter."""
    version = platform.python_version()
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        yield wrong("python", f"{version} is too old", f"use Python {oldest} or newer, then run `make setup`")
    else:
        yield ok("python", f"{version} on {platform.system()} {platform.machine()}")


def packages() -> Iterator[CheckResult]:
    """Look whether every package we need is there, and new enough."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
        own_version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield wrong("packages", f"{DISTRIBUTION} is not installed in {sys.prefix}", "run `make setup`")
        return
    needed = [text for text in requirements if _applies(text)]
    problems = [problem for text in needed if (problem := package_problem(text))]
    if problems:
        yield wrong("packages", "; ".join(problems), f"run `make setup`, or pip install --upgrade {DISTRIBUTION}")
    else:
        yield ok("packages", f"{DISTRIBUTION} {own_version} with {len(needed)} packages")


def package_problem(requirement: str) -> str:
    """Return what is wrong about a requirement such as `msgspec>=0.22`; empty when it is met."""
    match = _REQUIREMENT.match(requirement)
    if match is None:
        return ""
    name, oldest = match["name"], match["version"]
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    if oldest and _numbers(installed) < _numbers(oldest):
        return f"{name} is {installed}, needed is {oldest} or newer"
    return ""


def _applies(requirement: str) -> bool:
    """Return whether a requirement holds here: extras are people's choice, uvloop is not built for Windows."""
    _, _, marker = requirement.partition(";")
    if "extra" in marker:
        return False
    return not ("sys_platform" in marker and "!=" in marker and sys.platform == "win32")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))[:3]


def import_root() -> Iterator[CheckResult]:
    """Look at the links of a checkout; in an installed wheel they are folders."""
    root = Path(str(omnibase_infra.__file__)).parent
    for name in IMPORT_ROOT:
        if not (root / name / "__init__.py").is_file():
            yield wrong(
                "import root",
                f"{root / name} does not lead to the folder {name}",
                "on a file system without symbolic links: `git config core.symlinks true`, then check out again",
            )
            return
    kind = "links" if (root / IMPORT_ROOT[0]).is_symlink() else "folders"
    yield ok("import root", f"{root} ({kind})")


def settings(found: Settings) -> Iterator[CheckResult]:
    """Look which servers are set."""
    yield ok("settings", f"realm {found.realm}")
    for name, value in (
        ("OMNIBASE_KAFKA_BOOTSTRAP_SERVERS", found.kafka_bootstrap_servers),
        ("OMNIBASE_POSTGRES_DSN", found.postgres_dsn),
    ):
        if not value:
            yield wrong("settings", f"{name} is not set", "set it, or run `omninode infra up`")


def local_services() -> Iterator[CheckResult]:
    """Look for servers that were started here and do not run or answer any more."""
    from omnibase_infra.shared.local_services import status

    folder = state_directory()
    if not folder.is_dir():
        yield ok("local services", "none were started here")
        return
    written = read_env_file(folder / ENV_FILE)
    for service in status(folder):
        left = [name for name in written if name.startswith(f"OMNIBASE_{service.name.upper()}_")]
        described = f"{service.name} {service.version} at {service.address}".replace("  ", " ")
        if service.state == "unhealthy":
            action = f"look at `omninode infra logs {service.name}`, then `omninode infra down` and `up`"
            yield wrong("local services", f"{described}: {service.detail or 'does not answer'}", action)
        elif service.state == "stopped" and left:
            message = f"{service.name} was started here and does not run any more"
            yield wrong("local services", message, "run `omninode infra up`; its data is kept")
        elif service.state == "stopped":
            yield ok("local services", f"{service.name} is stopped")
        else:
            yield ok("local services", f"{described} is {service.state}")


def node(name: str) -> Iterator[CheckResult]:
    """Look whether spec and models of a node load."""
    from omnibase_infra.shared.client.node_interface import load_interface

    spec = load_interface(name).spec
    yield ok("nodes", f"{name} {spec.version}: {', '.join(operation.name for operation in spec.operations)}")


def generated_files(only: str | None) -> Iterator[CheckResult]:
    """Look whether the generated files are what their contracts say; of one node, or of all that have a contract."""
    try:
        from omnibase_infra.shared.generator.kits.discovery import installed_kits
        from omnibase_infra.shared.generator.kits.interface import Servers
        from omnibase_infra.shared.generator.targets import target_of
        from omnibase_infra.shared.generator.workflow import check
    except ImportError as error:
        yield CheckResult("generated files", "skipped", f"the generator is not installed ({error.name} is missing)")
        return
    for name, contract in _contracts(only):
        repair = f"omninode generate {name}"
        # Asking a server would make a scratch database: not the business of a check that is to change nothing.
        servers = Servers(postgres_dsn=partial(_analysis_is_old, repair))
        found = check(contract, target_of(contract.parent), installed_kits(), servers, repair)
        if found:
            message = listed([f"{finding.path}: {finding.message}" for finding in found])
            yield wrong("generated files", message, found[0].repair)
        else:
            yield ok("generated files", f"{name} is what its contract says")


def _analysis_is_old(repair: str) -> NoReturn:
    raise ConfigurationError("SQL files have changed since they were analysed", hint=f"run `{repair}`")


def _contracts(only: str | None) -> Iterator[tuple[str, Path]]:
    """Yield name and contract of each version of the nodes."""
    from omnibase_infra.shared.contracts.discovery import discover_nodes
    from omnibase_infra.shared.registry.packages import worker_folders

    for name, versions in discover_nodes(worker_folders()).items():
        if only in (None, name):
            yield from ((str(location), location.path) for location in versions)
