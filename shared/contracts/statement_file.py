"""One SQL statement in a file, with the header that names it, its parameters and how many rows it gives.

    -- name: insert_order :one
    -- params: order_id, customer_id, note?
    -- columns: total!
    -- description: Stores an order.
    INSERT INTO … VALUES ($1, $2, $3) RETURNING *

`?` marks what may be null, `!` what may not; types come from PostgreSQL itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, cast, get_args

import msgspec

from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.sql_text import mask, placeholders, reads_only
from omnibase_infra.shared.core.errors import ContractError, Problem

Cardinality = Literal["one", "many", "exec"]
CARDINALITIES: Final = get_args(Cardinality)
MAX_STATEMENT_BYTES: Final = 256 * 1024
MAX_PARAMETERS: Final = 1000  # PostgreSQL allows 65,535; nobody can read more than these

_HEADER_KEYS: Final = ("name", "params", "columns", "description")
_HEADER_LINE: Final = re.compile(r"--[ \t]*(?P<key>[A-Za-z_-]+):[ \t]*(?P<value>.*?)[ \t]*\Z")
_NAME_VALUE: Final = re.compile(r"(?P<name>\S+)(?:[ \t]+(?P<cardinality>\S+))?\Z")
_SNAKE: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*\Z")
_COLUMN: Final = re.compile(r"[a-z_][a-z0-9_]*\Z")
_FIRST_WORD: Final = re.compile(r"[A-Za-z]+")
_NO_CODE: Final = re.compile(r"(?:[;\s]|--[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)*+\Z")
_RETURNING: Final = re.compile(r"\breturning\b", re.IGNORECASE)

_Report = Callable[[int, int, Rule, str], None]


class StatementFile(msgspec.Struct, frozen=True):
    """A parsed statement file.

    Attributes:
        name: snake case; what callers send as `statement`.
        cardinality: `one` row, `many` rows, or `exec` for a row count only.
        params: names of $1, $2 … in order.
        nullable: the parameters that may be null.
        sql: the statement, without header, comments kept, no closing semicolon.
        description: one line or several, from the header.
        columns: result columns whose nullability the header states: name to "may be null".
        read_only: the statement has no word that writes, by its text.
        sql_line: line of the file on which `sql` starts, to locate what PostgreSQL says about it.
    """

    name: str
    cardinality: Cardinality
    params: tuple[str, ...]
    nullable: frozenset[str]
    sql: str
    description: str = ""
    columns: Mapping[str, bool] = {}
    read_only: bool = False
    sql_line: int = 1


def parse_statement_file(path: Path, shown: str | None = None) -> StatementFile:
    """Read and check a statement file.

    Args:
        path: the file.
        shown: how errors name it; default: the path as given.

    Raises:
        ContractError: everything that is wrong with it, located.
    """
    name = shown or str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ContractError([_problem(name, 1, 1, Rule.STATEMENT_FILE, f"{reason}, expected a SQL file")]) from error
    if len(content) > MAX_STATEMENT_BYTES:
        message = f"the file has {len(content)} bytes, expected at most {MAX_STATEMENT_BYTES}"
        raise ContractError([_problem(name, 1, 1, Rule.STATEMENT_FILE, message)])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ContractError([_problem(name, line, 1, Rule.FILE_UNREADABLE, "not UTF-8, expected UTF-8 text")]) from None
    return parse_statement(text, name, expected_name=path.stem)


def parse_statement(text: str, file: str, expected_name: str | None = None) -> StatementFile:
    """Parse the text of a statement file; `file` is how errors name it.

    Raises:
        ContractError: everything that is wrong with it, located.
    """
    problems: list[Problem] = []

    def report(line: int, column: int, rule: Rule, message: str) -> None:
        problems.append(_problem(file, line, column, rule, message))

    lines = text.replace("\r\n", "\n").split("\n")
    header = _Header(report)
    body_start = header.read(lines)
    if expected_name is not None and header.name and header.name != expected_name:
        report(header.name_line, 1, Rule.STATEMENT_NAME, f"the statement {header.name!r} is in {expected_name}.sql")
    sql = "\n".join(lines[body_start:])
    stripped = _without_closing(sql)
    masked = mask(stripped)
    if "\x00" in text:
        report(text.count("\n", 0, text.index("\x00")) + 1, 1, Rule.STATEMENT_SINGLE, "NUL characters are not SQL")
    if _NO_CODE.match(stripped):
        report(min(body_start + 1, len(lines)), 1, Rule.STATEMENT_SINGLE, "there is no statement behind the header")
    _check_single(masked, body_start, report)
    _check_parameters(masked, header, body_start, report)
    if header.cardinality and masked.strip():
        _check_cardinality(masked, header, report)
    if problems:
        raise ContractError(problems)
    leading = len(stripped) - len(stripped.lstrip())
    return StatementFile(
        name=header.name,
        cardinality=cast("Cardinality", header.cardinality),
        params=tuple(header.params),
        nullable=frozenset(header.nullable),
        sql=stripped.strip(),
        description="\n".join(header.description),
        columns=header.columns,
        read_only=reads_only(masked),
        sql_line=body_start + stripped[:leading].count("\n") + 1,
    )


class _Header:
    """The comment lines at the top of a file, read leniently so that all problems are found at once."""

    def __init__(self, report: _Report) -> None:
        self._report = report
        self.name = ""
        self.name_line = 1
        self.cardinality = ""
        self.params: list[str] = []
        self.nullable: set[str] = set()
        self.params_line = 1
        self.columns: dict[str, bool] = {}
        self.description: list[str] = []

    def read(self, lines: list[str]) -> int:
        """Read the header and return the index of the first line behind it."""
        if not lines or not lines[0].startswith("--") or not re.match(r"--[ \t]*name[ \t]*:", lines[0]):
            self._report(1, 1, Rule.STATEMENT_HEADER, "the first line is not the name, expected `-- name: NAME :one`")
        index = 0
        for index, line in enumerate(lines):
            if not line.startswith("--"):
                return index
            if match := _HEADER_LINE.match(line):
                self._read_entry(match["key"], match["value"], index + 1, match.start("value") + 1)
        return index + 1

    def _read_entry(self, key: str, value: str, line: int, column: int) -> None:
        if key == "name":
            self._read_name(value, line, column)
        elif key == "params":
            self.params_line = line
            for text, place in _items(value, column):
                self._read_parameter(text, line, place)
        elif key == "columns":
            for text, place in _items(value, column):
                self._read_column(text, line, place)
        elif key == "description":
            self.description.append(value)
        elif close := difflib.get_close_matches(key, _HEADER_KEYS, n=1, cutoff=0.7):
            self._report(line, 4, Rule.STATEMENT_HEADER, f"unknown header {key!r}; did you mean {close[0]!r}?")

    def _read_name(self, value: str, line: int, column: int) -> None:
        if self.name:
            self._report(line, 1, Rule.STATEMENT_HEADER, "a second name, expected one statement in a file")
            return
        self.name_line = line
        match = _NAME_VALUE.match(value)
        name, cardinality = (match["name"], match["cardinality"] or "") if match else ("", "")
        if not _SNAKE.match(name):
            self._report(
                line,
                column,
                Rule.STATEMENT_HEADER,
                f"the name {name!r} is not snake case, expected one like insert_order",
            )
        self.name = name
        if cardinality.removeprefix(":") not in CARDINALITIES or not cardinality.startswith(":"):
            close = difflib.get_close_matches(cardinality.removeprefix(":"), CARDINALITIES, n=1, cutoff=0.5)
            hint = f"; did you mean ':{close[0]}'?" if close else ""
            self._report(
                line,
                column,
                Rule.STATEMENT_HEADER,
                f"the cardinality is {cardinality!r}, expected :one, :many or :exec behind the name{hint}",
            )
            return
        self.cardinality = cardinality.removeprefix(":")

    def _read_parameter(self, text: str, line: int, column: int) -> None:
        name = text.removesuffix("?")
        if not _SNAKE.match(name):
            self._report(
                line,
                column,
                Rule.STATEMENT_PARAMETERS,
                f"the parameter {text!r} is not a snake-case name, with ? or not",
            )
        elif name in self.params:
            self._report(line, column, Rule.STATEMENT_PARAMETERS, f"the parameter {name!r} is named twice")
        self.params.append(name)
        if text.endswith("?"):
            self.nullable.add(name)

    def _read_column(self, text: str, line: int, column: int) -> None:
        name = text[:-1]
        if text[-1:] not in ("?", "!") or not _COLUMN.match(name):
            self._report(
                line, column, Rule.STATEMENT_HEADER, f"the column {text!r} is not a column name with ? or ! behind it"
            )
        elif name in self.columns:
            self._report(line, column, Rule.STATEMENT_HEADER, f"the column {name!r} is named twice")
        else:
            self.columns[name] = text.endswith("?")


def _without_closing(sql: str) -> str:
    """Return `sql` without the semicolons, blanks and comments that close it."""
    masked = mask(sql)
    closing = masked.find(";", len(masked.rstrip("; \t\n\r\f\v")))
    return (sql[:closing] if closing >= 0 and _NO_CODE.match(sql, closing) else sql).rstrip()


def _items(value: str, column: int) -> Iterator[tuple[str, int]]:
    """Yield each comma-separated item with its column; an empty value has none."""
    if not value:
        return
    position = 0
    for part in value.split(","):
        yield part.strip(), column + position + len(part) - len(part.lstrip())
        position += len(part) + 1


def _check_single(masked: str, body_start: int, report: _Report) -> None:
    for match in re.finditer(";", masked):
        line, column = _place(masked, match.start(), body_start)
        report(
            line, column, Rule.STATEMENT_SINGLE, "a semicolon inside the statement, expected one statement in a file"
        )


def _check_parameters(masked: str, header: _Header, body_start: int, report: _Report) -> None:
    found = placeholders(masked)
    declared = len(header.params)
    if declared > MAX_PARAMETERS:
        report(header.params_line, 1, Rule.STATEMENT_PARAMETERS, f"{declared} parameters, at most {MAX_PARAMETERS}")
    for number, offset in found:
        if not 1 <= number <= declared:
            line, column = _place(masked, offset, body_start)
            report(
                line,
                column,
                Rule.STATEMENT_PARAMETERS,
                f"${number} has no name, expected {number} names in params and found {declared}"
                if number
                else "$0 is no placeholder, they count from $1",
            )
    used = {number for number, _ in found}
    for index, name in enumerate(header.params, start=1):
        if index not in used:
            report(
                header.params_line,
                1,
                Rule.STATEMENT_PARAMETERS,
                f"the parameter {name!r} is never used, expected ${index}",
            )


def _check_cardinality(masked: str, header: _Header, report: _Report) -> None:
    """Find the contradictions that the text alone shows; PostgreSQL's own answer decides the rest."""
    word = match[0].lower() if (match := _FIRST_WORD.search(masked)) else ""
    gives_rows = word in ("select", "values", "table") or bool(_RETURNING.search(masked))
    if word == "with":
        return
    if header.cardinality == "exec" and gives_rows:
        report(
            header.name_line,
            1,
            Rule.STATEMENT_CARDINALITY,
            "the statement gives rows, expected :one or :many, not :exec",
        )
    elif header.cardinality != "exec" and word in ("insert", "update", "delete") and not gives_rows:
        report(
            header.name_line,
            1,
            Rule.STATEMENT_CARDINALITY,
            f"the statement gives no rows, expected :exec or a RETURNING clause for :{header.cardinality}",
        )


def _place(text: str, offset: int, lines_before: int) -> tuple[int, int]:
    line = text.count("\n", 0, offset)
    return lines_before + line + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


def _problem(file: str, line: int, column: int, rule: Rule, message: str) -> Problem:
    return Problem(file=file, line=line, column=column, message=message, rule=rule.id)
