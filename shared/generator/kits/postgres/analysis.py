"""Ask PostgreSQL what a statement takes and gives: parameter types, columns, nullability, and whether it can batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import pq

from omnibase_infra.shared.contracts.statement_file import StatementFile
from omnibase_infra.shared.core.errors import ContractError, Problem
from omnibase_infra.shared.generator.kits.postgres.batch_form import batch_form
from omnibase_infra.shared.generator.kits.postgres.catalogue import Catalogue
from omnibase_infra.shared.generator.kits.postgres.nullability import nulled_outputs
from omnibase_infra.shared.generator.kits.postgres.scratch_database import line_and_column
from omnibase_infra.shared.generator.kits.postgres.sql_types import (
    ANNOTATIONS,
    AnalysedStatement,
    BatchRows,
    Column,
    Parameter,
    SqlType,
)


class _Description(msgspec.Struct, frozen=True):
    parameters: tuple[int, ...]
    columns: tuple[tuple[str, int, int, int], ...]  # name, type oid, table oid, column number


class _Refused(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, message: str, position: int | None) -> None:
        super().__init__(message)
        self.position = position


def analyse_statement(
    connection: psycopg.Connection, catalogue: Catalogue, path: str, statement: StatementFile
) -> AnalysedStatement:
    """Return what PostgreSQL says about one statement. It is prepared and explained, never run.

    Raises:
        ContractError: PostgreSQL refuses it, or it has a type without a Python counterpart; located.
    """
    try:
        description = _describe(connection, statement.sql)
        plan = _explain(connection, statement.sql)
    except _Refused as refusal:
        raise ContractError([_located(path, statement, refusal)]) from refusal
    parameters = [
        Parameter(name, catalogue.type_of(oid), name in statement.nullable)
        for name, oid in zip(statement.params, description.parameters, strict=True)
    ]
    nulled = nulled_outputs(plan, len(description.columns))
    columns = [
        Column(name, catalogue.type_of(oid), _nullable(catalogue, statement, name, table, number, joined))
        for (name, oid, table, number), joined in zip(description.columns, nulled, strict=True)
    ]
    if problems := _problems(path, statement, parameters, columns):
        raise ContractError(problems)
    batch_sql, batch_rows = _accepted_batch(connection, catalogue, statement, parameters, columns, description)
    return AnalysedStatement(
        parameters=tuple(parameters), columns=tuple(columns), batch_sql=batch_sql, batch_rows=batch_rows
    )


def _describe(connection: psycopg.Connection, text: str) -> _Description:
    """Prepare the unnamed statement and read its description.

    Raises:
        _Refused: with PostgreSQL's message and the position it names.
    """
    prepared = connection.pgconn.prepare(b"", text.encode())
    if prepared.status != pq.ExecStatus.COMMAND_OK:
        position = prepared.error_field(pq.DiagnosticField.STATEMENT_POSITION)
        message = prepared.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"no reason given"
        raise _Refused(message.decode(), int(position) - 1 if position else None)
    result = connection.pgconn.describe_prepared(b"")
    return _Description(
        tuple(result.param_type(index) for index in range(result.nparams)),
        tuple(
            ((result.fname(index) or b"").decode(), result.ftype(index), result.ftable(index), result.ftablecol(index))
            for index in range(result.nfields)
        ),
    )


def _explain(connection: psycopg.Connection, text: str) -> Mapping[str, Any]:
    result = connection.pgconn.exec_(b"EXPLAIN (GENERIC_PLAN, VERBOSE, FORMAT JSON) " + text.encode())
    if result.status != pq.ExecStatus.TUPLES_OK:
        message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"no reason given"
        raise _Refused(f"it cannot be explained: {message.decode()}", None)
    plan: Mapping[str, Any] = json.loads(result.get_value(0, 0) or b"")[0]["Plan"]
    return plan


def _nullable(catalogue: Catalogue, statement: StatementFile, name: str, table: int, number: int, joined: bool) -> bool:
    if name in statement.columns:
        return statement.columns[name]
    return joined or not catalogue.is_not_null(table, number)


def _problems(
    path: str, statement: StatementFile, parameters: Sequence[Parameter], columns: Sequence[Column]
) -> list[Problem]:
    found = []
    names = [column.name for column in columns]
    items: list[Parameter | Column] = [*parameters, *columns]
    for item in items:
        if not item.type.is_known:
            kind = "parameter" if isinstance(item, Parameter) else "column"
            found.append(
                f"the {kind} {item.name!r} has the type {item.type.sql}, which has no Python counterpart; cast it to "
                f"one of {', '.join(ANNOTATIONS)}, for example {item.name}::text"
            )
    found += [f"two columns are called {name!r}; give one another name" for name in _repeated(names)]
    found += [f"a column has no name that a field could have: {name!r}" for name in names if not name.isidentifier()]
    found += [
        f"the header speaks of a column {name!r}, there is none" for name in statement.columns if name not in names
    ]
    if columns and statement.cardinality == "exec":
        found.append("the statement gives rows, expected :one or :many, not :exec")
    if not columns and statement.cardinality != "exec":
        found.append(f"the statement gives no rows, expected :exec, not :{statement.cardinality}")
    return [Problem(path, 1, 1, message) for message in found]


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _accepted_batch(
    connection: psycopg.Connection,
    catalogue: Catalogue,
    statement: StatementFile,
    parameters: Sequence[Parameter],
    columns: Sequence[Column],
    single: _Description,
) -> tuple[str | None, BatchRows]:
    """Return the batch form if PostgreSQL takes it and gives it the same types as the single form."""
    quoted = [catalogue.quoted(parameter.name) for parameter in parameters]
    column_names = [catalogue.quoted(column.name) for column in columns]
    form = batch_form(statement.sql, parameters, column_names, quoted, many=statement.cardinality == "many")
    if form is None:
        return None, "positional"
    try:
        batch = _describe(connection, form.sql)
    except _Refused:
        return None, "positional"
    result = batch.columns[1:] if form.rows == "ordinal" else batch.columns
    same_columns = [column[:2] for column in result] == [column[:2] for column in single.columns]
    arrays: list[SqlType] = [catalogue.type_of(oid) for oid in batch.parameters]
    same_parameters = [(a.name, a.sql, a.array) for a in arrays] == [
        (p.type.name, p.type.sql, True) for p in parameters
    ]
    return (form.sql, form.rows) if same_columns and same_parameters else (None, "positional")


def _located(path: str, statement: StatementFile, refusal: _Refused) -> Problem:
    line, column = line_and_column(statement.sql, refusal.position or 0)
    return Problem(path, statement.sql_line + line - 1, column, f"PostgreSQL refuses the statement: {refusal}")
