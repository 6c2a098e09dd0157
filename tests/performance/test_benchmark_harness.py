"""The benchmark, as small as it gets: every figure is there and the document is written. No test of times."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.performance.processes import cpu_seconds, cpu_seconds_since

from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 200
BEGIN, END = "<!-- benchmark: begin (written by `make bench`) -->", "<!-- benchmark: end -->"
FIGURES = (
    "bare loop, default settings",
    "bare loop, fetch.queue.backoff.ms=10",
    "no-op worker",
    "no-op worker with answers",
    "no-op worker / bare loop, default",
    "no-op worker / bare loop, tuned",
    "plain inserts by asyncpg",
    "commands, effectively once, answered",
    "commands / plain inserts",
    "memory of the worker under this load, peak",
    "commands, nothing traced",
    "commands, 1 % of conversations traced",
    "commands, traced, the collector is killed",
    "traced / nothing traced",
    "collector killed / collector there",
    "CPU, collector killed / collector there",
    "memory, peak, collector there",
    "memory, peak, collector killed",
    "memory, collector killed / collector there",
    "scrape of /metrics under this load",
    "scrape of /metrics under this load, longest",
    "request to answer, p50",
    "request to answer, p95",
    "request to answer, p99",
    "request to answer, longest",
    "process start to /readyz 200",
    "CPU time until ready",
    "first start after installation",
    "import of the node: driver and models",
    "construction of the node",
    "memory, idle",
)

Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bench(kafka_container: KafkaServer, postgres_container: PostgresServer) -> Bench:
    """Run the benchmark as `make bench` does, on the servers of this test process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
    environment.pop("PYTHONSAFEPATH", None)
    environment["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"] = kafka_container.bootstrap_servers
    environment["OMNIBASE_POSTGRES_DSN"] = postgres_container.dsn

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.performance.bench", *arguments],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


def rows_of(document: str) -> dict[str, str]:
    """Return the medians of the document's tables by measurement."""
    cells = [line.strip("| ").split(" | ") for line in document.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in cells if row[0] != "measurement"}


@pytest.mark.slow
def test_every_benchmark_yields_its_figures_and_they_replace_the_old_ones_in_the_document(
    bench: Bench, tmp_path: Path
) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"# Ours\n\n{BEGIN}\nold figures\n{END}\n\nWhat it means.\n", encoding="utf-8")
    done = bench("--tiny", "--output", str(document))
    assert done.returncode == 0, done.stdout + done.stderr
    text = document.read_text(encoding="utf-8")
    medians = rows_of(text)
    assert tuple(medians) == FIGURES
    assert all(float(re.sub(r"[^\d.]", "", median)) >= 0 for median in medians.values())
    for fact in ("processor", "memory", "versions", "servers", "date", "commit", "again with"):
        assert f"- {fact}: " in text
    assert text.startswith("# Ours\n")
    assert text.endswith("What it means.\n")
    assert "old figures" not in text
    assert "request to answer, p95" in done.stdout, "the table is shown as well"


def test_a_document_without_markers_is_refused_before_anything_is_measured(bench: Bench, tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("somebody's notes\n", encoding="utf-8")
    done = bench("--tiny", "--only", "latency", "--output", str(document))
    assert done.returncode == 2
    assert "<!-- benchmark: end -->" in done.stderr
    assert document.read_text(encoding="utf-8") == "somebody's notes\n"


def test_an_unknown_benchmark_is_refused_with_those_there_are(bench: Bench) -> None:
    done = bench("--only", "nope")
    assert done.returncode == 2
    assert "noop" in done.stderr
    assert "cold-start" in done.stderr


def test_a_measured_process_has_used_some_cpu_however_short_the_measurement() -> None:
    # Ratios are made of it, and the kernel counts in ticks of a hundredth of a second.
    assert cpu_seconds_since(os.getpid(), cpu_seconds(os.getpid())) > 0
