"""Ask for known vulnerabilities of everything that `requirements.lock` pins, by pip-audit.

    python deployment/security/dependency_audit.py               fails on a vulnerability that has no exception
    python deployment/security/dependency_audit.py --required    fails as well when no vulnerability data can be reached

Vulnerability data come from the package index in use (its JSON API), for which a network may have none: one package is
asked for first, and when there is nothing to learn about it this says so plainly and passes, since a build in a closed network
cannot be asked for more. A release is audited with `--required`.

An exception stands in `vulnerability_exceptions.toml`, with a reason and the day on which it ends:

    [[exception]]
    id = "GHSA-…"
    package = "requests"
    until = 2027-01-31
    reason = "we never call the function that is affected"
"""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
EXCEPTIONS = Path(__file__).resolve().with_name("vulnerability_exceptions.toml")
PROBE = "requests"
REQUEST_SECONDS = 10
PROBE_SECONDS = 60
AUDIT_SECONDS = 600


@dataclass(frozen=True, order=True)
class Vulnerability:
    """One known vulnerability of a pinned package; `names` are its ids in several lists."""

    package: str
    version: str
    names: tuple[str, ...]
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        cure = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fix yet"
        return f"{self.package} {self.version}: {', '.join(self.names)} ({cure})"


@dataclass(frozen=True)
class Audit:
    """What was learnt: how many packages there are data about, of how many, and what is wrong with them."""

    audited: int
    pinned: int
    found: tuple[Vulnerability, ...]


def audited(report: dict[str, Any]) -> Audit:
    """Return what pip-audit's JSON says."""
    packages = report["dependencies"]
    found = [
        Vulnerability(one["name"], one["version"], (each["id"], *each["aliases"]), tuple(each["fix_versions"]))
        for one in packages
        for each in one.get("vulns", ())
    ]
    return Audit(sum("skip_reason" not in one for one in packages), len(packages), tuple(sorted(found)))


def judge(audit: Audit, exceptions: Sequence[dict[str, Any]], today: dt.date) -> list[str]:
    """Return what makes the gate fail: vulnerabilities without an exception, and exceptions that are over."""
    problems = []
    excused: set[tuple[str, str]] = set()
    for one in exceptions:
        if missing := [field for field in ("id", "package", "until", "reason") if not one.get(field)]:
            problems.append(f"{EXCEPTIONS.name}: {one.get('id', '?')} lacks {', '.join(missing)}")
        elif one["until"] < today:
            problems.append(f"{EXCEPTIONS.name}: {one['id']} of {one['package']} ended on {one['until']}")
        else:
            excused.add((one["package"], one["id"]))
    bare = (each for each in audit.found if not any((each.package, name) in excused for name in each.names))
    return [*problems, *map(str, bare)]


def ask(requirements: Path, seconds: float) -> Audit | None:
    """Return what the index knows of these pins, None when it does not answer."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(requirements),
        "--disable-pip",
        "--require-hashes",
    ]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", str(REQUEST_SECONDS)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    # 1 means that something was found, or that it failed; only then there is no report.
    return audited(json.loads(result.stdout)) if result.stdout.startswith("{") else None


def probe() -> bool:
    """Return whether the index has vulnerability data: of one package that everybody uses."""
    block = re.search(rf"^{PROBE}==.*?(?=^\S|\Z)", LOCK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None, f"{PROBE} is not in requirements.lock"
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "requirements.txt"
        one.write_text(block[0], encoding="utf-8")
        answer = ask(one, PROBE_SECONDS)
    return answer is not None and answer.audited > 0


def main(arguments: Sequence[str]) -> int:
    """Audit; return an exit code."""
    required = list(arguments) == ["--required"]
    exceptions = tomllib.loads(EXCEPTIONS.read_text(encoding="utf-8")).get("exception", [])
    audit = ask(LOCK, AUDIT_SECONDS) if probe() else None
    problems = judge(audit or Audit(0, 0, ()), exceptions, dt.datetime.now(dt.UTC).date())
    for problem in problems:
        print(problem)
    if audit is None or not audit.audited:
        print("NOT CHECKED: the package index in use has no vulnerability data, so nothing is known of what is pinned")
        return 1 if problems or required else 0
    print(
        f"{audit.audited} of {audit.pinned} pinned packages are known to the index, {len(audit.found)} vulnerabilities"
    )
    return 1 if problems or (required and audit.audited < audit.pinned) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
