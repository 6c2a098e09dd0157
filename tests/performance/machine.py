"""Where and with what a run was made, as facts for its report."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import confluent_kafka
from tests.performance.processes import REPOSITORY

_PACKAGES = ("asyncpg", "msgspec", "uvloop")


def machine_facts() -> dict[str, str]:
    """Return processor, memory, system and load; what the kernel does not say is left out."""
    facts = {
        "processor": f"{_processor_model()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load average before the run": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
    return {name: value for name, value in facts.items() if value}


def version_facts(kafka: str, postgres: str) -> dict[str, str]:
    """Return the versions that matter to the figures."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    client = f"confluent-kafka {version('confluent-kafka')} (librdkafka {confluent_kafka.libversion()[0]})"
    return {
        "versions": f"Python {platform.python_version()}, {client}, {packages}",
        "servers": f"Kafka {kafka}, PostgreSQL {postgres}, on the same machine",
    }


def run_facts() -> dict[str, str]:
    """Return date and commit."""
    return {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": _commit()}


def _processor_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _commit() -> str:
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        # Tests and documents don't change what is measured.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "shared", "topics", "workers")
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"
    return f"{head} with uncommitted changes" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
