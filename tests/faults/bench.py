"""`make faults`: put every fault on real workers and print what was lost, doubled or reordered."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from tests.faults.catalogue import SCENARIOS
from tests.faults.scenario import Row, Scenario, run_scenario
from tests.faults.servers import Servers, running_servers

EXIT_BROKEN: Final = 1
EXIT_INTERRUPTED: Final = 130
_WIDTH_IN_A_FILE: Final = 150


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit code: 0 when every row is as it should be."""
    asked = _parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE)
    if asked.list:
        for scenario in SCENARIOS:
            console.print(f"{'short  ' if scenario.short else '       '}{scenario.name}")
        return 0
    chosen = [one for one in SCENARIOS if not asked.only or any(word in one.name for word in asked.only)]
    chosen = [one for one in chosen if one.short or not asked.short]
    _end_on_sigterm()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="omnibase-faults-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            with running_servers(folder) as servers:
                if asked.soak:
                    from tests.faults.soak import soak

                    code: int = asyncio.run(soak(servers, folder, console, asked.soak * 60.0, asked.seed))
                    return code
                rows = asyncio.run(_run(servers, chosen, folder, console, asked.seed))
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
    console.print(table_of(rows))
    well = sum(row.is_well for row in rows)
    console.print(
        f"{well} of {len(rows)} rows as they should be, in {time.monotonic() - began:.0f} s, seed {asked.seed}"
    )
    return 0 if well == len(rows) else EXIT_BROKEN


async def _run(servers: Servers, chosen: Sequence[Scenario], folder: Path, console: Console, seed: int) -> list[Row]:
    rows: list[Row] = []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("faults", total=len(chosen))
        for number, scenario in enumerate(chosen):
            progress.update(bar, description=scenario.name)
            row = await run_scenario(servers, scenario, folder / f"scenario-{number}", seed)
            rows.append(row)
            progress.advance(bar)
            mark = "[green]✓[/green]" if row.is_well else "[red]✗[/red]"
            console.print(f"{mark} {scenario.name} ({row.recovery:.1f} s)")
            if row.problem:
                console.print(row.problem, markup=False, style="red")
    return rows


def table_of(rows: Sequence[Row]) -> Table:
    """Return the table of a run: a row per fault, zeros in the middle where all is well."""
    table = Table(title="Faults", title_justify="left")
    table.add_column("fault", max_width=46)
    for heading in ("records", "lost", "doubled", "out of order", "other", "recovery s", "bound s"):
        table.add_column(heading, justify="right")
    table.add_column("alarm")
    table.add_column("")
    for row in rows:
        report = row.report
        counts = ["-"] * 5
        if report is not None:
            named = {"lost": report.lost, "doubled": report.doubled, "disordered": report.disordered}
            other = sum(len(found) for kind, found in report.findings.items() if kind not in named)
            counts = [str(report.inputs), *(str(len(found)) for found in named.values()), str(other)]
        alarm = f"{row.scenario.alarm}: {'raised' if row.alarm_raised else 'MISSING'}" if row.scenario.alarm else "none"
        table.add_row(
            row.scenario.name,
            *counts,
            f"{row.recovery:.1f}",
            f"{row.scenario.bound:g}",
            alarm,
            "[green]✓[/green]" if row.is_well else "[red]✗[/red]",
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make faults ARGS=…", description=__doc__)
    parser.add_argument("--list", action="store_true", help="only name the faults")
    parser.add_argument("--short", action="store_true", help="only those of `make test`")
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="only those whose name holds one of these")
    parser.add_argument("--seed", type=int, default=1, help="of everything left to chance")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="random faults for so long, and memory watched")
    return parser


def _end_on_sigterm() -> None:
    """Let SIGTERM end the run as Ctrl-C does, servers and workers with it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


if __name__ == "__main__":
    sys.exit(main())
