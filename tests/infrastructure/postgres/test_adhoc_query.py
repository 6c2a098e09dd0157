from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from omnibase_infra.shared.core.errors import BusinessError, InvalidPayloadError, OperationDisabledError
from omnibase_infra.shared.postgres.adhoc_query import QueryColumn, QueryResult, run_query
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase


class Request(msgspec.Struct, frozen=True):
    sql: str
    parameters: list[Any] = []
    max_rows: int = 1000


@pytest.fixture
async def role(postgres_test_db: PostgresDatabase) -> AsyncIterator[str]:
    """A role that may read one table and not the other."""
    name = f"reader_{uuid4().hex}"
    connection = await postgres_test_db.connect()
    await connection.execute(f"CREATE ROLE {name}")
    await connection.execute(
        "CREATE TABLE open (id int, name text); INSERT INTO open VALUES (1, 'a'), (2, 'b'), (3, 'c');"
        f"CREATE TABLE closed (id int); GRANT SELECT ON open TO {name}; GRANT INSERT ON open TO {name}"
    )
    yield name
    await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    await connection.close()


@pytest.fixture
def pool(postgres_connection_pool: PostgresConnectionPool) -> PostgresConnectionPool:
    return postgres_connection_pool


async def test_rows_come_with_their_columns(pool: PostgresConnectionPool, role: str) -> None:
    result = await run_query(pool, Request("SELECT id, name FROM open WHERE id > $1 ORDER BY id", [1]), role)
    assert result == QueryResult(
        [QueryColumn("id", "int4"), QueryColumn("name", "text")], [[2, "b"], [3, "c"]], 2, truncated=False
    )


async def test_values_of_every_type_are_ready_for_json(pool: PostgresConnectionPool, role: str) -> None:
    sql = (
        "SELECT 1.50::numeric, 'a3bb189e-8bf9-3853-9ef6-40abc0e8d1b2'::uuid, '2025-01-02T03:04:05Z'::timestamptz, "
        "'2025-01-02'::date, '\\x00ff'::bytea, '[1,3)'::int4range, '1 day'::interval, ARRAY[1,NULL], "
        """'{"a": [1]}'::jsonb, '10.0.0.1'::inet, ROW(1, 'x'), NULL, true"""
    )
    result = await run_query(pool, Request(sql), role)
    (row,) = result.rows
    assert row[:10] == [
        "1.50",
        "a3bb189e-8bf9-3853-9ef6-40abc0e8d1b2",
        "2025-01-02T03:04:05Z",
        "2025-01-02",
        "AP8=",
        "[1,3)",
        "P1D",
        [1, None],
        {"a": [1]},
        "10.0.0.1",
    ]
    assert row[11:] == [None, True]
    assert msgspec.json.decode(msgspec.json.encode(row[10])) == [1, "x"]


@pytest.mark.parametrize(
    ("expression", "value", "expected"),
    [
        ("$1::int", 4, 4),
        ("$1::bigint", 2**40, 2**40),
        ("$1::numeric", "1.10", "1.10"),
        ("$1::numeric", 3, "3"),
        ("$1::float8", 1, 1.0),
        ("$1::text", "x'; DROP TABLE open; --", "x'; DROP TABLE open; --"),
        ("$1::uuid", "a3bb189e-8bf9-3853-9ef6-40abc0e8d1b2", "a3bb189e-8bf9-3853-9ef6-40abc0e8d1b2"),
        ("$1::timestamptz", "2025-01-02T03:04:05+01:00", "2025-01-02T02:04:05Z"),
        ("$1::timestamp", "2025-01-02T03:04:05", "2025-01-02T03:04:05"),
        ("$1::date", "2025-01-02", "2025-01-02"),
        ("$1::bytea", "AP8=", "AP8="),
        ("$1::interval", "PT2S", "PT2S"),
        ("$1::jsonb", {"a": [1, None]}, {"a": [1, None]}),
        ("$1::int[]", [1, None, 3], [1, None, 3]),
        ("$1::text[]", ["a"], ["a"]),
        ("$1::boolean", True, True),
        ("$1::int", None, None),
    ],
)
async def test_parameters_are_bound_as_the_query_needs_them(
    pool: PostgresConnectionPool, role: str, expression: str, value: Any, expected: Any
) -> None:
    result = await run_query(pool, Request(f"SELECT {expression}", [value]), role)
    assert result.rows == [[expected]]


@pytest.mark.parametrize(
    ("sql", "parameters", "message"),
    [
        ("SELECT $1::int", ["secret"], r"\$\.parameters\[0\]: Expected `int`, got `str`, for PostgreSQL's int4"),
        ("SELECT $1::int, $2::uuid", [1, "secret"], r"\$\.parameters\[1\]: Invalid UUID"),
        ("SELECT $1::int[]", [["secret"]], r"\$\.parameters\[0\]"),
        ("SELECT $1::int", [], r"takes 1, got 0"),
        ("SELECT 1", [1, 2], r"takes 0, got 2"),
    ],
)
async def test_parameters_that_do_not_fit_are_located(
    pool: PostgresConnectionPool, role: str, sql: str, parameters: list[Any], message: str
) -> None:
    with pytest.raises(InvalidPayloadError, match=message) as caught:
        await run_query(pool, Request(sql, parameters), role)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELEC 1", "invalid-sql"),
        ("SELECT nope FROM open", "invalid-sql"),
        ("SELECT * FROM nowhere", "invalid-sql"),
        ("SELECT 1; SELECT 2", "invalid-sql"),
        ("", "invalid-sql"),
        ("COMMIT", "invalid-sql"),
        ("SET ROLE NONE", "invalid-sql"),
        ("DO $$ BEGIN DELETE FROM open; END $$", "invalid-sql"),
        ("SELECT * FROM closed", "permission-denied"),
        ("INSERT INTO open VALUES (4, 'd') RETURNING id", "read-only"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "query-failed"),
        ("SELECT 1 / 0", "invalid-data"),
        ("SELECT 'x'::int", "invalid-data"),
        ("SELECT (SELECT id FROM open)", "cardinality-violated"),
    ],
)
async def test_what_a_query_may_not_is_refused(pool: PostgresConnectionPool, role: str, sql: str, code: str) -> None:
    with pytest.raises(BusinessError) as caught:
        await run_query(pool, Request(sql), role)
    assert caught.value.instance_code == code
    assert caught.value.dependency == "postgres"


async def test_without_a_role_it_is_switched_off(pool: PostgresConnectionPool) -> None:
    with pytest.raises(OperationDisabledError, match="OMNIBASE_POSTGRES_QUERY_ROLE"):
        await run_query(pool, Request("SELECT 1"), None)


async def test_a_role_that_does_not_exist_is_no_role(pool: PostgresConnectionPool) -> None:
    with pytest.raises(OperationDisabledError, match="cannot be taken on"):
        await run_query(pool, Request("SELECT 1"), "no such; role")


@pytest.mark.parametrize(("max_rows", "count", "truncated"), [(2, 2, True), (3, 3, False), (4, 3, False), (0, 0, True)])
async def test_rows_are_limited(
    pool: PostgresConnectionPool, role: str, max_rows: int, count: int, truncated: bool
) -> None:
    result = await run_query(pool, Request("SELECT id FROM open", max_rows=max_rows), role)
    assert (result.row_count, len(result.rows), result.truncated) == (count, count, truncated)


async def test_rows_are_limited_whatever_the_caller_asks_for(pool: PostgresConnectionPool, role: str) -> None:
    result = await run_query(pool, Request("SELECT generate_series(1, 5000)", max_rows=10**9), role)
    assert (result.row_count, result.truncated) == (1000, True)


async def test_bytes_are_limited(pool: PostgresConnectionPool, role: str) -> None:
    sql = "SELECT repeat('x', 1000) FROM generate_series(1, 500)"
    result = await run_query(pool, Request(sql), role, max_bytes=10_000)
    assert 0 < len(msgspec.json.encode(result.rows)) <= 10_000
    assert result.truncated


async def test_a_slow_query_is_answered_and_not_retried(postgres_test_db: PostgresDatabase, role: str) -> None:
    async with PostgresConnectionPool(postgres_test_db.dsn, PoolOptions(statement_timeout=0.1)) as pool:
        with pytest.raises(BusinessError) as caught:
            await run_query(pool, Request("SELECT pg_sleep(5)"), role)
    assert caught.value.instance_code == "query-timeout"


async def test_nothing_of_a_query_outlives_it(postgres_test_db: PostgresDatabase, role: str) -> None:
    async with PostgresConnectionPool(postgres_test_db.dsn, PoolOptions(maximum=1, minimum=0)) as pool:
        for sql in (
            "SELECT set_config('work_mem', '1MB', false), set_config('role', 'none', false)",
            "SELECT set_config('default_transaction_read_only', 'on', false)",
            "SELECT pg_advisory_lock(77)::text",
        ):
            await run_query(pool, Request(sql), role)
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW work_mem") != "1MB"
            assert await connection.fetchval("SELECT current_user = session_user")
            locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77"
            assert await connection.fetchval(locks) == 0
            await connection.execute("INSERT INTO open VALUES (9, 'writable')")
        assert pool.query_metrics.snapshot()["query"].calls == 3
