"""SQL text of a caller, read-only, under a role of its own, within limits. Off unless a role is configured.

The role is a second fence. SQL that names functions can take the worker's own role back on, so the login of the worker
must not be allowed more than `query` may show; the transaction itself is read-only in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, NoReturn
from uuid import UUID

import asyncpg
import msgspec

from omnibase_infra.shared.core.errors import BusinessError, InvalidPayloadError, OperationDisabledError
from omnibase_infra.shared.core.redaction import sanitised
from omnibase_infra.shared.postgres.connection_pool import Connection, PostgresConnectionPool, is_lost
from omnibase_infra.shared.postgres.errors import DEPENDENCY, business_error, classify, condition, raise_classified
from omnibase_infra.shared.postgres.transactions import transaction

MAX_RESULT_BYTES: Final = 512 * 1024
MAX_RESULT_ROWS: Final = 1000
_ROWS_PER_FETCH: Final = 100

_PYTHON_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), int),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "citext"), str),
    **dict.fromkeys(("float4", "float8"), float),
    **dict.fromkeys(("json", "jsonb"), Any),
    "bool": bool,
    "numeric": Decimal,
    "uuid": UUID,
    "timestamptz": Annotated[datetime, msgspec.Meta(tz=True)],
    "timestamp": Annotated[datetime, msgspec.Meta(tz=False)],
    "date": date,
    "time": time,
    "interval": timedelta,
    "bytea": bytes,
}


class QueryColumn(msgspec.Struct, frozen=True):
    """A result column: its name and PostgreSQL's name of its type."""

    name: str
    type: str


class QueryResult(msgspec.Struct, frozen=True):
    """Rows as JSON-ready values. `truncated`: there was more than the limits allow."""

    columns: list[QueryColumn]
    rows: list[list[Any]]
    row_count: int
    truncated: bool


async def run_query(
    pool: PostgresConnectionPool, request: Any, role: str | None, *, max_bytes: int = MAX_RESULT_BYTES
) -> QueryResult:
    """Run one SQL query in a read-only transaction that is always rolled back.

    Args:
        pool: connections; the session is cleared afterwards.
        request: model with `sql`, `parameters` (JSON values for `$1` to `$n`) and `max_rows`.
        role: role the query runs under, `OMNIBASE_POSTGRES_QUERY_ROLE`; None: switched off.
        max_bytes: JSON of the rows at most; a longer result is cut at a row.

    Raises:
        OperationDisabledError: no role, or one that cannot be taken on.
        InvalidPayloadError: parameters do not fit the query.
        BusinessError: PostgreSQL refused the query, or it gives no rows.
        TransientError, DependencyUnavailableError: see `errors.classify`.
    """
    if role is None:
        raise OperationDisabledError(
            "`query` is switched off", hint="set OMNIBASE_POSTGRES_QUERY_ROLE to a role that may only read"
        )
    # Rolled back in any case, which also undoes whatever settings the query changed.
    async with (
        pool.acquire(full_reset=True) as connection,
        transaction(connection, read_only=True, keep=False),
    ):
        try:
            await _take_on(connection, role)
            with pool.query_metrics.measure("query", request.sql):
                return await _run(connection, request, max_bytes)
        except asyncpg.PostgresError as error:
            _raise_refusal(error, connection)


async def _take_on(connection: Connection, role: str) -> None:
    try:
        # Reads nothing but takes a snapshot, after which the transaction cannot be made writable again.
        await connection.fetchval("SELECT set_config('role', $1, true)", role)
    except asyncpg.PostgresError as error:
        if not (error.sqlstate or "").startswith(("22", "42")):
            raise
        raise OperationDisabledError(
            f"the role of OMNIBASE_POSTGRES_QUERY_ROLE cannot be taken on ({error.sqlstate})",
            hint="create it and grant it to the worker's user",
            dependency=DEPENDENCY,
        ) from error


async def _run(connection: Connection, request: Any, max_bytes: int) -> QueryResult:
    prepared = await connection.prepare(request.sql)
    attributes = prepared.get_attributes()
    if not attributes:
        raise BusinessError(
            "the statement gives no rows; `query` only reads", code="invalid-sql", dependency=DEPENDENCY
        )
    arguments = _arguments(prepared.get_parameters(), request.parameters)
    cursor = await prepared.cursor(*arguments)
    rows, truncated = await _fetch(cursor.fetch, min(request.max_rows, MAX_RESULT_ROWS), max_bytes)
    columns = [QueryColumn(attribute.name, attribute.type.name) for attribute in attributes]
    return QueryResult(columns, rows, len(rows), truncated)


async def _fetch(fetch: Callable[[int], Any], max_rows: int, max_bytes: int) -> tuple[list[list[Any]], bool]:
    rows: list[list[Any]] = []
    size = 0
    # One row more than wanted tells whether there is more.
    while records := await fetch(min(_ROWS_PER_FETCH, max_rows + 1 - len(rows))):
        for record in records:
            row = msgspec.to_builtins(list(record), enc_hook=_plain)
            size += len(msgspec.json.encode(row)) + 1
            if len(rows) == max_rows or size > max_bytes:
                return rows, True
            rows.append(row)
    return rows, False


def _arguments(types: Sequence[asyncpg.Type], values: Sequence[Any]) -> list[Any]:
    if len(types) != len(values):
        raise InvalidPayloadError(f"$.parameters: the query takes {len(types)}, got {len(values)}")
    return [_argument(index, kind, value) for index, (kind, value) in enumerate(zip(types, values, strict=True))]


def _argument(index: int, kind: asyncpg.Type, value: Any) -> Any:
    wanted = _PYTHON_TYPES.get(kind.name.removesuffix("[]"))
    if value is None or wanted is None:
        return value  # of other types the driver takes their text form
    if kind.name.endswith("[]"):
        wanted = list.__class_getitem__(wanted | None)
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise InvalidPayloadError(f"$.parameters[{index}]: {error}, for PostgreSQL's {kind.name}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, asyncpg.Range):
        opening, closing = "[" if value.lower_inc else "(", "]" if value.upper_inc else ")"
        ends = ("" if end is None else str(end) for end in (value.lower, value.upper))
        return "empty" if value.isempty else f"{opening}{','.join(ends)}{closing}"
    if isinstance(value, asyncpg.Record):
        return dict(value.items())
    return str(value)


def _raise_refusal(error: asyncpg.PostgresError, connection: Connection) -> NoReturn:
    """The SQL is the caller's, and so is the fault of everything that is not an outage."""
    state = error.sqlstate or ""
    if state == "25006":
        raise BusinessError("the query writes; `query` only reads", code="read-only", dependency=DEPENDENCY) from None
    if state == "57014":
        raise BusinessError("the query took too long", code="query-timeout", dependency=DEPENDENCY) from None
    if state != "42501" and state.startswith(("42", "3F", "0A", "26", "34")):
        message = sanitised(error.message or condition(error))
        raise BusinessError(
            f"PostgreSQL: {message}", code="invalid-sql", details={"sqlstate": state}, dependency=DEPENDENCY
        ) from None
    lost = is_lost(connection)
    if classify(error, connection_lost=lost) is error:
        raise business_error(error, "query-failed") from None
    raise_classified(error, connection_lost=lost)
