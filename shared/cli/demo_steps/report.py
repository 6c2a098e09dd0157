"""The report of the demo: for people a page on stdout, for programs JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from omnibase_infra.shared.cli.demo_steps.bad_input import BadInputOutcome
from omnibase_infra.shared.cli.demo_steps.load import LoadReport
from omnibase_infra.shared.cli.demo_steps.narration import StepTime
from omnibase_infra.shared.cli.demo_steps.proofs import Proof
from omnibase_infra.shared.cli.demo_steps.worker_processes import WorkerReport

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_WIDTH_ELSEWHERE: Final = 240
_NUMBERS: Final = ("expected", "seen", "seconds")


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        realm / database: what the run had for itself; removed unless `kept`.
        repeated_answers: answers sent again with the same id, which is allowed.
        steps: how long each took; `seconds` is all of them.
        logs: folder of the workers' logs.
    """

    realm: str
    database: str
    kept: bool
    commands: int
    keys: int
    load: LoadReport
    proofs: Sequence[Proof]
    repeated_answers: int
    bad_inputs: Sequence[BadInputOutcome]
    workers: Sequence[WorkerReport]
    steps: Sequence[StepTime]
    seconds: float
    logs: str

    @property
    def passed(self) -> bool:
        """Return whether every proof holds."""
        return all(proof.holds for proof in self.proofs)


def report_json(report: DemoReport) -> dict[str, Any]:
    """Return what `--json` prints: the report, and whether it and each proof in it holds."""
    content = {"passed": report.passed, **msgspec.to_builtins(report)}
    content["proofs"] = [{**msgspec.to_builtins(item), "holds": item.holds} for item in report.proofs]
    content["bad_inputs"] = [{**msgspec.to_builtins(item), "holds": item.holds} for item in report.bad_inputs]
    return content


def print_report(report: DemoReport) -> None:
    """Print the report on stdout."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    # Output that another program reads is not cut to a terminal's width.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_ELSEWHERE, highlight=False, markup=False)
    marks = _marks(sys.stdout.encoding)

    proofs = _table("", "what was proved", "expected", "seen")
    for proof in report.proofs:
        proofs.add_row(_mark(proof.holds, marks), Text(proof.what), f"{proof.expected:,}", f"{proof.seen:,}")
        if proof.example and not proof.holds:
            proofs.add_row("", Text(f"for example {proof.example}", style="red"), "", "")
    times = _table("step", "seconds")
    for step in report.steps:
        times.add_row(Text(step.step), f"{step.seconds:.1f}")
    times.add_row(Text("all", style="bold"), f"{report.seconds:.1f}")

    console.print()
    console.print(proofs)
    console.print()
    console.print(Text("bad input and where it went", style="bold"))
    for item in report.bad_inputs:
        console.print(Text.assemble(_mark(item.holds, marks), f"  {_went(item)}"))
        console.print(Padding(Text(item.message, style="dim"), (0, 0, 0, 5), expand=False))
    console.print()
    console.print(times)
    console.print()
    for line in _facts(report):
        console.print(Text(line))
    console.print()
    console.print(Text.assemble(_mark(report.passed, marks), "  ", (_verdict(report), "bold")))


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    return table


def _mark(holds: bool, marks: tuple[str, str]) -> Text:
    from rich.text import Text

    return Text(marks[0], style="green") if holds else Text(marks[1], style="bold red")


def _went(item: BadInputOutcome) -> str:
    went = f"{item.what}: {item.went_to} {item.code}".rstrip()
    return went if item.holds else f"{went}, expected {item.expected} {item.expected_code}"


def _facts(report: DemoReport) -> Sequence[str]:
    load = report.load
    facts = [
        ("throughput", f"{load.commands_per_second:,.0f} commands/s until the kill"),
        (
            "recovery",
            f"{load.recovery_seconds:.1f} s from the kill until all {load.in_flight:,} commands in flight were answered",
        ),
        ("repeats", f"{report.repeated_answers:,} answers were sent again, with the id they had"),
        ("logs", report.logs),
    ]
    if report.kept:
        facts.append(("kept", f"realm {report.realm}, database {report.database}"))
    return [f"{name:<12}{text}" for name, text in facts]


def _verdict(report: DemoReport) -> str:
    if report.passed:
        return f"{report.commands:,} commands, one worker killed: nothing lost, nothing doubled, every key in order"
    failed = sum(not proof.holds for proof in report.proofs)
    return f"{failed} of {len(report.proofs)} proofs failed"


def _marks(encoding: str | None) -> tuple[str, str]:
    try:
        "✓✗".encode(encoding or "ascii")
    except UnicodeEncodeError:
        return "ok", "FAILED"
    return "✓", "✗"
