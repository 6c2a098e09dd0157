"""How commands speak: results on stdout, everything else on stderr, errors as one line with a hint and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from logging import WARNING
from typing import Any

import msgspec
import typer

from omnibase_infra.shared.cli import exit_codes
from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    OmnibaseError,
    OperationRejectedError,
    RequestTimeoutError,
    ServiceStartError,
)

# Output that another program reads is not cut to a terminal's width.
_WIDTH_ELSEWHERE = 240


def report(error: OmnibaseError) -> int:
    """Print an error and what to do on stderr; return the exit code that belongs to it."""
    note(f"error: {error.message}")
    if error.hint:
        note(f"hint: {error.hint}")
    return exit_code(error)


def exit_code(error: OmnibaseError) -> int:
    """Return the exit code of a command that ends with this error."""
    from omnibase_infra.shared.client.errors import AnsweredFailedError

    if isinstance(error, ServiceStartError) and isinstance(error.cause, OmnibaseError):
        return exit_code(error.cause)
    if isinstance(error, ConfigurationError | OperationRejectedError):
        return exit_codes.USAGE
    if isinstance(error, RequestTimeoutError):
        return exit_codes.TIMED_OUT
    return exit_codes.ANSWERED_FAILED if isinstance(error, AnsweredFailedError) else exit_codes.FAILED


@contextmanager
def reported_errors() -> Iterator[None]:
    """Report an error of ours and leave with its exit code."""
    try:
        yield
    except OmnibaseError as error:
        raise typer.Exit(report(error)) from error


def note(text: str) -> None:
    """Print a line for people on stderr."""
    typer.echo(text, err=True)


def print_json_line(content: Any) -> None:
    """Print a value as one line of JSON on stdout, at once also into a pipe."""
    typer.echo(msgspec.json.encode(content))


def print_json(content: Any) -> None:
    """Print a value as indented JSON on stdout."""
    typer.echo(msgspec.json.format(msgspec.json.encode(content), indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under column titles on stdout. Values are printed as they are, nothing in them is markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=_WIDTH_ELSEWHERE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row))
    console.print(table)


def cell_text(value: Any) -> str:
    """Return a JSON value as a table shows it: text bare, nothing as `-`, the rest as JSON."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def parse_seconds(option: str, text: str) -> float:
    """Return the seconds that an option's value stands for: `500ms`, `30s`, `5m`.

    Raises:
        ConfigurationError: it is no duration, or zero; names the option.
    """
    from omnibase_infra.shared.contracts.units import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None
    if not seconds:
        raise ConfigurationError(f"{option}: {text!r} is no time at all, expected more than zero")
    return seconds


def quiet(_level: int, _event: str, /, **_fields: Any) -> None:
    """Log nowhere: for short commands, whose errors say why by themselves."""


def warnings(level: int, event: str, /, **fields: Any) -> None:
    """Log warnings on stderr in a person's words: for commands that go on for long."""
    if level >= WARNING:
        note(f"warning: {fields.get('message') or fields.get('error') or event}")
