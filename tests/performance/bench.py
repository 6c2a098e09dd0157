"""`make bench`: measure, side by side in one run on real servers, and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import asyncpg
import uvloop
from rich.console import Console
from tests.performance import cold_start, command_throughput, noop_throughput, observed_commands, request_latency
from tests.performance.figures import BenchmarkError, Section
from tests.performance.machine import machine_facts, run_facts, version_facts
from tests.performance.report import check_document, print_sections, write_document
from tests.performance.scale import FULL, QUICK, TINY, Scale
from tests.performance.servers import Say, Servers, running_servers

from omnibase_infra.shared.core.settings import require_postgres
from omnibase_infra.shared.local_services.kafka_jars import KAFKA_VERSION

DOCUMENT: Final = Path("docs/benchmarks.md")
BENCHMARKS: Final[dict[str, Callable[[Servers, Scale, Say], Awaitable[Section]]]] = {
    "noop": noop_throughput.measure,
    "commands": command_throughput.measure,
    "observed": observed_commands.measure,
    "latency": request_latency.measure,
    "cold-start": cold_start.measure,
}
EXIT_BROKEN: Final = 1
EXIT_NOT_MET: Final = 3
EXIT_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    scale: Scale = asked.scale
    names = asked.only or list(BENCHMARKS)
    output: Path | None = asked.output or (DOCUMENT if scale is FULL and not asked.only else None)
    try:
        if output is not None:
            check_document(output)
    except ValueError as error:
        parser.error(str(error))
    # Into a file or a pipe, tables keep their lines whole.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    _end_on_sigterm()
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/dim]  {text}")

    facts = machine_facts()
    try:
        sections, servers = uvloop.run(_measure(names, scale, say))
    except BenchmarkError as error:
        console.print(f"[red]broken run, no figures:[/red] {error}", markup=True)
        return EXIT_BROKEN
    except KeyboardInterrupt:
        console.print("stopped, no figures; servers and workers of the run are gone")
        return EXIT_INTERRUPTED
    print_sections(console, sections)
    if output is not None:
        write_document(output, sections, facts | servers | run_facts() | {"scale": scale.name}, _command(asked))
        say(f"written to {output}")
    missed = [figure.name for section in sections for figure in section.figures if figure.met is False]
    say(f"floors not met: {', '.join(missed)}" if missed else "all floors are met")
    return EXIT_NOT_MET if missed and asked.strict else 0


async def _measure(names: Sequence[str], scale: Scale, say: Say) -> tuple[list[Section], dict[str, str]]:
    say("starting Kafka and PostgreSQL")
    with running_servers(say) as servers:
        sections = []
        for name in names:
            say(f"[bold]{name}[/bold]")
            sections.append(await BENCHMARKS[name](servers, scale, say))
        return sections, version_facts(_kafka_version(), await _postgres_version(servers))


def _kafka_version() -> str:
    return "of OMNIBASE_KAFKA_BOOTSTRAP_SERVERS" if "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS" in os.environ else KAFKA_VERSION


async def _postgres_version(servers: Servers) -> str:
    connection = await asyncpg.connect(require_postgres(servers.settings("version")))
    try:
        version, fsync, commit = [
            await connection.fetchval(f"SHOW {name}") for name in ("server_version", "fsync", "synchronous_commit")
        ]
        return f"{version} (fsync {fsync}, synchronous_commit {commit})"
    finally:
        await connection.close()


def _command(asked: argparse.Namespace) -> str:
    scale: Scale = asked.scale
    options = [] if scale is FULL else [f"--{scale.name}"]
    options += [f"--only {name}" for name in asked.only or ()]
    return " ".join(["python -m tests.performance.bench", *options]) if options else "make bench"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.performance.bench",
        description="Measure on real Kafka and PostgreSQL, started for the run. Exit codes: 0 measured, 1 a broken run, "
        "3 a floor is not met and --strict was given.",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="scale", action="store_const", const=QUICK, help="smaller rounds, about 1 minute")
    size.add_argument("--tiny", dest="scale", action="store_const", const=TINY, help="only to see that it works")
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="one benchmark; may be repeated")
    parser.add_argument(
        "--output", type=Path, help=f"document to write; default: {DOCUMENT} for a whole run at full size, else none"
    )
    parser.add_argument("--strict", action="store_true", help="end with 3 when a floor is not met")
    parser.set_defaults(scale=FULL)
    return parser


def _end_on_sigterm() -> None:
    """Let SIGTERM unwind the stack, so that servers and workers of the run end with it."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    sys.exit(main())
