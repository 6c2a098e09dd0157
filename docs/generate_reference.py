"""Write the reference pages that come from code: settings, error codes, metrics.

    python docs/generate_reference.py            writes the pages
    python docs/generate_reference.py --check    exits with 1 when one is out of step, and says how to mend it

Between its two markers a page belongs to this script, around them to people.
"""  # noqa: INP001 - a script of the documentation, no module

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from omnibase_infra import shared, topics
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.core.setting_catalogue import OTHER_VARIABLES, setting_entries
from omnibase_infra.shared.observability.metric_definitions import CATALOGUE, GaugeDefinition, HistogramDefinition
from omnibase_infra.shared.postgres import errors as postgres_errors

DOCS: Final = Path(__file__).resolve().parent
BEGIN: Final = "<!-- begin: written by docs/generate_reference.py -->"
END: Final = "<!-- end -->"


def settings_page() -> Iterator[str]:
    """Yield the tables of process settings, by section, and of the other variables there are."""
    for title, entries in groupby(setting_entries(), key=lambda entry: entry.section):
        yield f"### {title}\n"
        yield from table(
            ("variable", "type", "unit", "default", "meaning"),
            ((f"`{one.variable}`", one.type, one.unit, one.default, one.meaning) for one in entries),
        )
        yield ""
    yield "### Variables that are no settings\n"
    yield from table(("variable", "meaning"), ((f"`{name}`", text) for name, text in OTHER_VARIABLES.items()))


def errors_page() -> Iterator[str]:
    """Yield the tables of error codes: the tree's, and those that PostgreSQL's answers get."""
    yield "### Codes of the error tree\n"
    rows = sorted(_error_classes(), key=lambda cls: (cls.code, cls.__name__))
    merged: dict[str, list[type[OmnibaseError]]] = {}
    for cls in rows:
        merged.setdefault(cls.code, []).append(cls)
    yield from table(
        ("code", "retryable", "what it means", "class"),
        (
            (
                f"`{code}`",
                "yes" if classes[0].retryable else "no",
                " ".join(_first_sentence(cls) for cls in classes),
                ", ".join(f"`{cls.__name__}`" for cls in classes),
            )
            for code, classes in merged.items()
        ),
    )
    yield "\n### What PostgreSQL's SQLSTATEs become\n"
    yield from table(("SQLSTATE", "becomes"), _sqlstates())


def metrics_page() -> Iterator[str]:
    """Yield the table of metrics, in the order in which they are declared."""
    yield from table(
        ("metric", "kind", "unit", "labels", "of several processes", "meaning"),
        (
            (
                f"`{metric.name}`",
                metric.kind,
                metric.unit,
                ", ".join(f"`{label}`" for label in metric.labels),
                metric.across if isinstance(metric, GaugeDefinition) else "sum",
                metric.meaning
                + (f" Buckets: {_numbers(metric.buckets)}." if isinstance(metric, HistogramDefinition) else ""),
            )
            for metric in CATALOGUE
        ),
    )


def rules_page() -> Iterator[str]:
    """Yield the table of contract rules."""
    yield from table(
        ("rule", "what it says", "why", "how to mend a breach"),
        ((f"`{rule.id}`", rule.title, rule.why, rule.repair) for rule in Rule),
    )


PAGES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "guides/CONFIGURATION.md": settings_page,
    "reference/error-codes.md": errors_page,
    "reference/metrics.md": metrics_page,
    "reference/contract-rules.md": rules_page,
}


def table(columns: Sequence[str], rows: Any) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def rendered(page: str) -> str:
    """Return a page as it should be: people's text, with the part between the markers written anew.

    Raises:
        SystemExit: the page lacks a marker.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"docs/{page}: expected the line {BEGIN!r} once, and {END!r} once after it")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    written = "\n".join(PAGES[page]()).strip()
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"


def pages_out_of_step() -> list[str]:
    """Return the pages that differ from what code says."""
    return [page for page in PAGES if rendered(page) != (DOCS / page).read_text(encoding="utf-8")]


def _error_classes() -> set[type[OmnibaseError]]:
    """Return the whole tree, from every module that a running worker, a client or the command line may load."""
    for package in (shared, topics):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".testing" not in module.name:
                importlib.import_module(module.name)
    found: set[type[OmnibaseError]] = set()
    waiting: list[type[OmnibaseError]] = [OmnibaseError]
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        if cls.__module__.startswith("omnibase_infra.shared.") and "code" in vars(cls):
            found.add(cls)
    return found


def _first_sentence(cls: type[OmnibaseError]) -> str:
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return text if text.endswith(".") else f"{text}."


def _sqlstates() -> Iterator[tuple[str, str]]:
    schema = postgres_errors._SCHEMA_STATES
    for state in sorted(schema):
        yield f"`{state}`", "`dependency-unavailable`, with the hint to run `omninode migrate`"
    for state in sorted(postgres_errors._UNAVAILABLE_STATES):
        yield f"`{state}`", "`dependency-unavailable`"
    for group in sorted(postgres_errors._UNAVAILABLE_CLASSES):
        yield f"other states of class `{group}`", "`dependency-unavailable`"
    for state in sorted(postgres_errors._TRANSIENT_STATES):
        yield f"`{state}`", "`transient`"
    for group in sorted(postgres_errors._TRANSIENT_CLASSES):
        yield f"other states of class `{group}`", "`transient`"
    for state, code in sorted(postgres_errors._BUSINESS_CODES.items()):
        yield f"`{state}`", f"`{code}` (a `failed` answer)"
    for group, code in sorted(postgres_errors._BUSINESS_CLASSES.items()):
        yield f"other states of class `{group}`", f"`{code}` (a `failed` answer)"
    yield "any other", "`internal-error`: tried again, then a dead letter and a `failed` answer"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def main(arguments: Sequence[str]) -> int:
    """Write or check the pages; return an exit code."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write(str(__doc__))
        return 2
    stale = pages_out_of_step()
    for page in stale:
        if arguments:
            sys.stderr.write(f"docs/{page} differs from the code; run `python docs/generate_reference.py`\n")
        else:
            (DOCS / page).write_text(rendered(page), encoding="utf-8")
            sys.stdout.write(f"wrote docs/{page}\n")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
