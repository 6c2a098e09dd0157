"""The report of a run: a table for the terminal, and the same in Markdown between markers of a document."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.performance.figures import Figure, Section

BEGIN = "<!-- benchmark: begin (written by `make bench`) -->"
END = "<!-- benchmark: end -->"
_HEADINGS = ("measurement", "median", "rounds", "CPU µs/record", "floor", "met")


def print_sections(console: Console, sections: Sequence[Section]) -> None:
    """Show the figures."""
    table = Table(show_header=True, header_style="bold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in {"measurement", "met"} else "right")
    for section in sections:
        for figure in section.figures:
            table.add_row(*_cells(figure), style="red" if figure.met is False else None)
        table.add_section()
    console.print(table)


def check_document(path: Path) -> None:
    """Find out before a run whether its report can be written.

    Raises:
        ValueError: the document has no markers, or only one.
    """
    if path.exists():
        _around_report(path)


def write_document(path: Path, sections: Sequence[Section], facts: Mapping[str, str], command: str) -> None:
    """Put the report between the markers of a document, or into a new one; what stands around them stays.

    Raises:
        ValueError: the document has no markers, or only one.
    """
    before, after = _around_report(path) if path.exists() else ("# Benchmarks\n\n", "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{BEGIN}\n{markdown(sections, facts, command)}{END}{after}", encoding="utf-8")


def _around_report(path: Path) -> tuple[str, str]:
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{path} needs the lines {BEGIN} and {END} once each, in this order, around the old report")
    return text.partition(BEGIN)[0], text.partition(END)[2]


def markdown(sections: Sequence[Section], facts: Mapping[str, str], command: str) -> str:
    """Return the report."""
    lines = ["", *(f"- {name}: {value}" for name, value in facts.items()), f"- again with: `{command}`", ""]
    for section in sections:
        lines += [f"### {section.name}", "", f"{section.title}.", ""]
        lines += [f"| {' | '.join(_HEADINGS)} |", "|---|---:|---:|---:|---:|---|"]
        lines += [f"| {' | '.join(_cells(figure))} |" for figure in section.figures]
        lines += ["", *(f"- checked: {check}" for check in section.checks), ""]
    return "\n".join(lines) + "\n"


def _cells(figure: Figure) -> tuple[str, ...]:
    def number(value: float) -> str:
        return f"{value:,.{figure.digits}f}"

    unit = "" if figure.unit == "ratio" else f" {figure.unit}"
    spread = f"{number(min(figure.values))} to {number(max(figure.values))} ({len(figure.values)})"
    cpu = f"{statistics.median(figure.cpu_microseconds):.1f}" if figure.cpu_microseconds else ""
    met = {True: "met", False: "NOT MET", None: ""}[figure.met]
    return (figure.name, number(figure.median) + unit, spread, cpu, str(figure.floor or ""), met)
