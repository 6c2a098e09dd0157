"""Run the named statements of a contract: one by one, as set-based batches, or several in one transaction.

Generated processors hold the data (SQL, parameter names, row models) and call the functions here. All of them run in
the transaction their caller has opened; errors leave them classified.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final, Literal, NoReturn

import asyncpg
import msgspec

from omnibase_infra.shared.core.errors import BusinessError, SchemaMissingError
from omnibase_infra.shared.postgres.adhoc_query import QueryResult, run_query
from omnibase_infra.shared.postgres.connection_pool import Connection, JsonValue, is_lost
from omnibase_infra.shared.postgres.errors import DEPENDENCY, MIGRATE_HINT, classify, condition, raise_classified
from omnibase_infra.shared.postgres.query_metrics import metrics_of

__all__ = [
    "BoundStatement",
    "QueryResult",
    "SqlConnection",
    "Statement",
    "StatementProblem",
    "require_statements",
    "run_query",
    "run_statements",
    "run_transaction",
    "verify_statements",
]

SqlConnection = asyncpg.Connection | Connection

MAX_TRANSACTION_STATEMENTS: Final = 100


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A statement and what PostgreSQL said about it.

    Attributes:
        name: of the statement file; metrics and errors carry it.
        sql: with `$1` to `$n`.
        cardinality: `one` row, `many` rows, or `exec` for a row count.
        parameters: attribute names of the parameters model, in the order of `$n`.
        row: model of a row, fields in the order of the columns; None when there are no columns.
        batch_sql: the same for many requests at once, `$n` being arrays; None: one by one.
        batch_rows: how rows of `batch_sql` belong to requests. `positional`: one row each, in the order of the
            requests; another number of rows is rolled back and run one by one. `ordinal`: the first column is the
            request's number from 1, and is taken off.
    """

    name: str
    sql: str
    cardinality: Literal["one", "many", "exec"]
    parameters: tuple[str, ...]
    row: type[msgspec.Struct] | None
    batch_sql: str | None = None
    batch_rows: Literal["positional", "ordinal"] = "positional"


class BoundStatement(msgspec.Struct, frozen=True):
    """A statement between its request and response models.

    Attributes:
        result: rows (as row models) and row count to the response model.
        parameters: request to parameters model.
    """

    statement: Statement
    result: Callable[[list[Any], int], Any]
    parameters: Callable[[Any], Any]


class StatementProblem(msgspec.Struct, frozen=True):
    """A statement that does not fit the live schema."""

    statement: str
    message: str


_Outcome = tuple[list[Any], int]


async def run_statements(
    connection: SqlConnection, requests: Sequence[Any], bindings: Mapping[type, BoundStatement]
) -> list[Any]:
    """Run one statement per request; return their responses in the order of the requests.

    Requests of one type become one set-based statement where there is one. No row is a successful answer.

    Raises:
        BusinessError: PostgreSQL refused a request; `details` holds statement, SQLSTATE and constraint.
        TransientError, DependencyUnavailableError: see `errors.classify`.
    """
    indexes_by_type: dict[type, list[int]] = defaultdict(list)
    for index, request in enumerate(requests):
        indexes_by_type[type(request)].append(index)
    responses: list[Any] = [None] * len(requests)
    for kind, indexes in indexes_by_type.items():
        bound = bindings[kind]
        outcomes = await _run_all(connection, bound, [requests[index] for index in indexes])
        for index, (rows, count) in zip(indexes, outcomes, strict=True):
            responses[index] = bound.result(rows, count)
    return responses


async def run_transaction(
    connection: SqlConnection,
    requests: Sequence[Any],
    bindings: Mapping[type, BoundStatement],
    *,
    response: Callable[[list[Any]], Any],
    max_statements: int = MAX_TRANSACTION_STATEMENTS,
) -> list[Any]:
    """Run the statements of each request in their order; return a response per request.

    All or nothing comes from the caller's transaction, opened at the isolation level the request asks for.

    Args:
        connection: with that transaction.
        requests: models with `statements`; in practice one.
        bindings: by the type of the single statement commands.
        response: list of the statements' responses to the transaction's response model.
        max_statements: statements a request may have.

    Raises:
        BusinessError: too many statements, or one was refused; `details` holds its name and its index from 0.
        TransientError, DependencyUnavailableError: see `errors.classify`.
    """
    return [response(await _run_in_order(connection, request, bindings, max_statements)) for request in requests]


async def verify_statements(connection: SqlConnection, statements: Iterable[Statement]) -> list[StatementProblem]:
    """Prepare each statement against the live schema; return everything that does not fit.

    Args:
        connection: outside a transaction, which the first problem would end.
        statements: any number.

    Raises:
        DependencyUnavailableError, TransientError: nothing can be said.
    """
    problems: list[StatementProblem] = []
    for statement in statements:
        for sql, is_batch in ((statement.sql, False), (statement.batch_sql, True)):
            if sql is not None and (message := await _check(connection, statement, sql, is_batch=is_batch)):
                problems.append(StatementProblem(statement.name, message))
    return problems


async def require_statements(connection: SqlConnection, statements: Iterable[Statement]) -> None:
    """Do nothing when all statements fit the live schema.

    Raises:
        SchemaMissingError: names all that do not.
        DependencyUnavailableError, TransientError: nothing can be said.
    """
    problems = await verify_statements(connection, statements)
    if problems:
        lines = "\n".join(f"  {problem.statement}: {problem.message}" for problem in problems)
        raise SchemaMissingError(f"statements do not fit the database:\n{lines}", hint=MIGRATE_HINT)


async def _run_all(connection: SqlConnection, bound: BoundStatement, requests: Sequence[Any]) -> list[_Outcome]:
    statement = bound.statement
    parameters = [bound.parameters(request) for request in requests]
    try:
        if len(requests) > 1 and statement.batch_sql is not None and statement.parameters:
            outcomes = await _run_batch(connection, statement, parameters)
            if outcomes is not None:
                return outcomes
        return [await _run_one(connection, statement, item) for item in parameters]
    except Exception as error:  # noqa: BLE001 - raised again, classified
        _raise(error, connection, {"statement": statement.name})


async def _run_in_order(
    connection: SqlConnection, request: Any, bindings: Mapping[type, BoundStatement], max_statements: int
) -> list[Any]:
    commands: Sequence[Any] = request.statements
    if len(commands) > max_statements:
        raise BusinessError(
            f"the transaction has {len(commands)} statements, at most {max_statements} are allowed",
            code="too-many-statements",
            dependency=DEPENDENCY,
        )
    responses: list[Any] = []
    for index, command in enumerate(commands):
        bound = bindings[type(command)]
        try:
            rows, count = await _run_one(connection, bound.statement, bound.parameters(command))
        except Exception as error:  # noqa: BLE001 - raised again, classified
            _raise(error, connection, {"statement": bound.statement.name, "index": str(index)})
        responses.append(bound.result(rows, count))
    return responses


async def _run_one(connection: SqlConnection, statement: Statement, parameters: Any) -> _Outcome:
    arguments = _argument_getter(statement.parameters)(parameters)
    with metrics_of(connection).measure(statement.name, statement.sql):
        if statement.row is None:
            return [], _row_count(await connection.execute(statement.sql, *arguments))
        records = await connection.fetch(statement.sql, *arguments)
    row = statement.row
    return [row(*record) for record in records], len(records)


async def _run_batch(
    connection: SqlConnection, statement: Statement, parameters: Sequence[Any]
) -> list[_Outcome] | None:
    """Return None when the requests have to be run one by one; nothing has happened then."""
    assert statement.batch_sql is not None
    columns = _columns(statement.parameters, parameters)
    with metrics_of(connection).measure(statement.name, statement.batch_sql):
        if statement.batch_rows == "ordinal":
            records = await connection.fetch(statement.batch_sql, *columns)
            return _by_ordinal(statement, records, len(parameters))
        savepoint = connection.transaction()
        await savepoint.start()
        try:
            outcomes = await _run_positional(connection, statement, columns, len(parameters))
        except asyncpg.CardinalityViolationError:
            outcomes = None  # two requests of the batch meet in one row
        # A mismatch means that the rows cannot be told apart: some request gave none, or several.
        await (savepoint.rollback() if outcomes is None else savepoint.commit())
        return outcomes


async def _run_positional(
    connection: SqlConnection, statement: Statement, columns: Sequence[Sequence[Any]], expected: int
) -> list[_Outcome] | None:
    assert statement.batch_sql is not None
    if statement.row is None:
        count = _row_count(await connection.execute(statement.batch_sql, *columns))
        return [([], 1) for _ in range(expected)] if count == expected else None
    records = await connection.fetch(statement.batch_sql, *columns)
    if len(records) != expected:
        return None
    row = statement.row
    return [([row(*record)], 1) for record in records]


def _by_ordinal(statement: Statement, records: Sequence[asyncpg.Record], expected: int) -> list[_Outcome]:
    rows: list[list[Any]] = [[] for _ in range(expected)]
    row = statement.row
    for record in records:
        number, *values = record
        rows[number - 1].append(None if row is None else row(*values))
    return [([] if row is None else own, len(own)) for own in rows]


@cache
def _argument_getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda _: ()
    if len(names) == 1:
        single = attrgetter(names[0])
        return lambda parameters: (single(parameters),)
    return attrgetter(*names)


def _columns(names: tuple[str, ...], parameters: Sequence[Any]) -> list[Sequence[Any]]:
    columns = zip(*map(_argument_getter(names), parameters), strict=True)
    return [_without_bare_lists(column) for column in columns]


def _without_bare_lists(column: Sequence[Any]) -> Sequence[Any]:
    # A batched parameter is never an SQL array, so a list can only be a JSON value.
    if not any(type(value) is list for value in column):
        return column
    return [JsonValue(value) if type(value) is list else value for value in column]


def _row_count(status: str) -> int:
    """Return the number at the end of a command tag such as `UPDATE 3`; 0 for commands without one."""
    number = status.rpartition(" ")[2]
    return int(number) if number.isdecimal() else 0


def _raise(error: Exception, connection: SqlConnection, details: Mapping[str, str]) -> NoReturn:
    lost = is_lost(connection)
    classified = classify(error, connection_lost=lost)
    if isinstance(classified, BusinessError):
        classified.details.update(details)
        raise classified from None
    raise_classified(error, connection_lost=lost)


async def _check(connection: SqlConnection, statement: Statement, sql: str, *, is_batch: bool) -> str | None:
    try:
        prepared = await connection.prepare(sql)
    except asyncpg.PostgresError as error:
        if not (error.sqlstate or "").startswith(("42", "3F", "0A")):
            raise_classified(error, connection_lost=is_lost(connection))
        return f"{error.message or condition(error)} ({error.sqlstate})"
    except Exception as error:  # noqa: BLE001 - raised again, classified
        raise_classified(error, connection_lost=is_lost(connection))
    found, expected = len(prepared.get_parameters()), len(statement.parameters)
    if found != expected:
        return f"takes {found} parameters, the generated code gives {expected}"
    width = len(prepared.get_attributes())
    fields = 0 if statement.row is None else len(statement.row.__struct_fields__)
    fields += is_batch and statement.batch_rows == "ordinal"
    return f"gives {width} columns, the generated code expects {fields}" if width != fields else None
