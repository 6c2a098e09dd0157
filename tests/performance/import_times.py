"""What a worker process imports, and how long that takes: `python -m tests.performance.import_times [--write]`.

Workers are started with servers away, so that nothing but imports is measured, each several times; the times are those
that Python itself reports (`-X importtime`), a module's own without what it imports. `--write` puts the table into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import msgspec
from tests.performance.figures import expect
from tests.performance.machine import machine_facts, run_facts
from tests.performance.processes import child_environment

DOCUMENT: Final = Path("docs/benchmarks.md")
BEGIN: Final = "<!-- imports: begin (written by `python -m tests.performance.import_times --write`) -->"
END: Final = "<!-- imports: end -->"
_GOLDEN: Final = Path(__file__).resolve().parents[1] / "generator" / "golden"
_SECONDS: Final = 60.0
_PROBE: Final = "omnibase_infra.shared.testing.import_probe"
_OURS: Final = "omnibase_infra."
_LEAST_MILLISECONDS: Final = 0.5


class Subject(msgspec.Struct, frozen=True):
    """A worker as it is started."""

    title: str
    node: str
    environment: dict[str, str]


SUBJECTS: Final = (
    Subject("a worker without dependencies", "price_desk", {}),
    Subject("`postgres_adapter`", "postgres_adapter", {}),
    Subject(
        "`postgres_adapter`, a collector is set", "postgres_adapter", {"OMNIBASE_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    ),
)


class Imports(msgspec.Struct):
    """Modules and milliseconds by what they belong to."""

    modules: dict[str, int]
    milliseconds: dict[str, float]


def measure(subject: Subject, rounds: int) -> Imports:
    """Return the least that each module took in several starts: what else the machine does only adds.

    The first start compiles, and does not count.
    """
    starts = [_start(subject) for _ in range(rounds + 1)][1:]
    owners = packages_distributions()
    modules: dict[str, int] = defaultdict(int)
    milliseconds: dict[str, float] = defaultdict(float)
    for name in {name for start in starts for name in start}:
        owner = _owner(name, owners)
        modules[owner] += 1
        milliseconds[owner] += min(start[name] for start in starts if name in start)
    return Imports(dict(modules), dict(milliseconds))


def _start(subject: Subject) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        loaded = Path(folder) / "loaded"
        environment = {
            "OMNIBASE_ENV": "test",
            "OMNIBASE_STATE_DIR": folder,
            "OMNIBASE_WORKERS_PATH": str(_GOLDEN),
            "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "OMNIBASE_POSTGRES_DSN": "postgresql://nobody:none@127.0.0.1:1/nothing",
            "OMNIBASE_LOADED_MODULES": str(loaded),
            **subject.environment,
        }
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", _PROBE, "run", subject.node],
            stderr=subprocess.PIPE,
            env=child_environment(environment),
            text=True,
        )
        assert process.stderr is not None
        lines: list[str] = []
        asked = False
        for line in process.stderr:
            lines.append(line)
            # It looks for its topics: all is loaded, and signals are heeded. Twice: nobody waits for the brokers.
            if not asked and '"topic-check"' in line:
                asked = True
                process.terminate()
            if '"worker_stopping"' in line:
                process.terminate()
        process.wait(_SECONDS)
        expect(loaded.exists(), "the worker did not start:\n" + "".join(lines[-20:]))
        return _imports(lines, set(loaded.read_text(encoding="utf-8").split("\n")))


def _imports(lines: Sequence[str], loaded: set[str]) -> dict[str, float]:
    """Return the milliseconds of each module itself. What was looked for and is not installed is reported, too."""
    found: dict[str, float] = {}
    for line in lines:
        own, _, rest = line.removeprefix("import time:").partition("|")
        name = rest.rpartition("|")[2].strip()
        if line.startswith("import time:") and own.strip().isdecimal() and name in loaded:
            found[name] = int(own) / 1000
    return found


def _owner(name: str, owners: Mapping[str, Sequence[str]]) -> str:
    top = name.partition(".")[0]
    if name.startswith(_OURS):
        return "this project: " + "/".join(name.removeprefix(_OURS).split(".")[:2])
    if top in sys.stdlib_module_names or top not in owners:
        return "Python's own"
    return "opentelemetry" if top == "opentelemetry" else owners[top][0].lower()


def table(found: Sequence[tuple[Subject, Imports]]) -> list[str]:
    """Return the lines of the table: what takes half a millisecond somewhere, then the rest, then all."""
    owners = {owner for _, one in found for owner in one.milliseconds}
    worth = [
        owner for owner in owners if max(one.milliseconds.get(owner, 0) for _, one in found) >= _LEAST_MILLISECONDS
    ]
    worth.sort(key=lambda owner: -max(one.milliseconds.get(owner, 0) for _, one in found))
    lines = [
        "| imported | " + " | ".join(subject.title for subject, _ in found) + " |",
        "|---|" + "---:|" * len(found),
    ]

    def row(name: str, chosen: Sequence[str]) -> str:
        cells = []
        for _, one in found:
            count = sum(one.modules.get(owner, 0) for owner in chosen)
            spent = sum(one.milliseconds.get(owner, 0.0) for owner in chosen)
            cells.append(f"{spent:.1f} ms ({count})" if count else "")
        return f"| {name} | " + " | ".join(cells) + " |"

    lines += [row(owner, [owner]) for owner in worth]
    lines += [row("others", sorted(owners - set(worth))), row("**all**", sorted(owners))]
    return lines


def document_with(text: str, report: Sequence[str]) -> str:
    """Return a document with its report replaced, or with one at its end."""
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## Imports of a worker\n\n{BEGIN}\n{END}\n"
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    return before + "\n".join([BEGIN, "", *report, "", END]) + after


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.performance.import_times", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each worker that count")
    asked = parser.parse_args(arguments)
    facts = machine_facts()
    found = [(subject, measure(subject, asked.rounds)) for subject in SUBJECTS]
    report = [
        *(f"- {name}: {value}" for name, value in (facts | run_facts()).items()),
        "- again with: `python -m tests.performance.import_times --write`",
        "",
        "Milliseconds of a module itself, without what it imports, and in parentheses the number of modules; the least of some starts.",
        "Where a collector is set, the exporter is loaded in a thread of its own. A worker is ready sooner than the sum says:",
        "Python measures each import at a price. `tests/architecture/test_worker_imports.py` holds workers to what they need.",
        "",
        *table(found),
    ]
    sys.stdout.write("\n".join(report) + "\n")
    if asked.write:
        DOCUMENT.write_text(document_with(DOCUMENT.read_text(encoding="utf-8"), report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    sys.exit(main())
