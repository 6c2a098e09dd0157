from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from omnibase_infra.shared.core.errors import (
    BusinessError,
    DependencyUnavailableError,
    SchemaMissingError,
    TransientError,
)
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.statements import (
    BoundStatement,
    Statement,
    StatementProblem,
    require_statements,
    run_statements,
    run_transaction,
    verify_statements,
)
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

SCHEMA = """
CREATE TABLE item (
    position bigint GENERATED ALWAYS AS IDENTITY,
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (name <> ''),
    price numeric(10, 2),
    attributes jsonb,
    made_at timestamptz NOT NULL DEFAULT '2025-01-02T03:04:05Z'
);
CREATE TABLE counter (name text PRIMARY KEY, value int NOT NULL);
"""


class ItemParameters(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    price: Decimal | None = None
    attributes: Any = None


class InsertItem(msgspec.Struct, frozen=True):
    parameters: ItemParameters


class ItemRow(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    price: Decimal | None
    attributes: Any
    made_at: datetime


class Name(msgspec.Struct, frozen=True):
    name: str


class FindItems(Name, frozen=True):
    pass


class CountUp(Name, frozen=True):
    pass


class TakeCounter(Name, frozen=True):
    pass


class Rename(msgspec.Struct, frozen=True):
    id: UUID
    name: str


class Purge(msgspec.Struct, frozen=True):
    pass


class LogName(Name, frozen=True):
    pass


class CounterRow(msgspec.Struct, frozen=True):
    name: str
    value: int


class Response(msgspec.Struct, frozen=True):
    rows: list[Any]
    row_count: int


class Transaction(msgspec.Struct, frozen=True):
    statements: list[Any]


ITEM_COLUMNS = "id, name, price, attributes, made_at"
INSERT_ITEM = Statement(
    name="insert_item",
    sql=f"INSERT INTO item (id, name, price, attributes) VALUES ($1, $2, $3, $4) RETURNING {ITEM_COLUMNS}",
    cardinality="one",
    parameters=("id", "name", "price", "attributes"),
    row=ItemRow,
    batch_sql=(
        "INSERT INTO item (id, name, price, attributes) SELECT m.id, m.name, m.price, m.attributes "
        "FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::jsonb[]) "
        f"WITH ORDINALITY AS m (id, name, price, attributes, ord) ORDER BY m.ord RETURNING {ITEM_COLUMNS}"
    ),
)
FIND_ITEMS = Statement(
    name="find_items",
    sql=f"SELECT {ITEM_COLUMNS} FROM item WHERE name = $1 ORDER BY position",
    cardinality="many",
    parameters=("name",),
    row=ItemRow,
    batch_sql=(
        f"SELECT m.ord, found.* FROM unnest($1::text[]) WITH ORDINALITY AS m (name, ord), "
        f"LATERAL (SELECT {ITEM_COLUMNS} FROM item WHERE item.name = m.name ORDER BY position) AS found"
    ),
    batch_rows="ordinal",
)
COUNT_UP = Statement(
    name="count_up",
    sql=(
        "INSERT INTO counter AS c VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET value = c.value + 1 "
        "RETURNING name, value"
    ),
    cardinality="one",
    parameters=("name",),
    row=CounterRow,
    batch_sql=(
        "INSERT INTO counter AS c SELECT m.name, 1 FROM unnest($1::text[]) WITH ORDINALITY AS m (name, ord) "
        "ORDER BY m.ord ON CONFLICT (name) DO UPDATE SET value = c.value + 1 RETURNING name, value"
    ),
)
TAKE_COUNTER = Statement(
    name="take_counter",
    sql="INSERT INTO counter VALUES ($1, 0) ON CONFLICT DO NOTHING RETURNING name, value",
    cardinality="one",
    parameters=("name",),
    row=CounterRow,
    batch_sql=(
        "INSERT INTO counter SELECT m.name, 0 FROM unnest($1::text[]) WITH ORDINALITY AS m (name, ord) "
        "ORDER BY m.ord ON CONFLICT DO NOTHING RETURNING name, value"
    ),
)
RENAME = Statement(
    name="rename",
    sql="UPDATE item SET name = $2 WHERE id = $1",
    cardinality="exec",
    parameters=("id", "name"),
    row=None,
)
PURGE = Statement(name="purge", sql="DELETE FROM item", cardinality="exec", parameters=(), row=None)
LOG_NAME = Statement(
    name="log_name",
    sql="INSERT INTO item (id, name) VALUES (gen_random_uuid(), $1)",
    cardinality="exec",
    parameters=("name",),
    row=None,
    batch_sql=(
        "INSERT INTO item (id, name) SELECT gen_random_uuid(), m.name "
        "FROM unnest($1::text[]) WITH ORDINALITY AS m (name, ord) ORDER BY m.ord"
    ),
)


def bound(statement: Statement, parameters: Any = lambda request: request) -> BoundStatement:
    return BoundStatement(statement, Response, parameters)


BINDINGS: dict[type, BoundStatement] = {
    InsertItem: bound(INSERT_ITEM, attrgetter("parameters")),
    FindItems: bound(FIND_ITEMS),
    CountUp: bound(COUNT_UP),
    TakeCounter: bound(TAKE_COUNTER),
    Rename: bound(RENAME),
    Purge: bound(PURGE),
    LogName: bound(LOG_NAME),
}
ALL = [binding.statement for binding in BINDINGS.values()]


@pytest.fixture
async def connection(postgres_connection_pool: PostgresConnectionPool) -> AsyncIterator[Any]:
    async with postgres_connection_pool.acquire() as lent:
        await lent.execute(SCHEMA)
        yield lent


def item(name: str = "nut", **values: Any) -> InsertItem:
    return InsertItem(ItemParameters(uuid4(), name, **values))


async def run(connection: Any, *requests: Any) -> list[Response]:
    async with connection.transaction():
        return await run_statements(connection, requests, BINDINGS)


def calls(pool: PostgresConnectionPool, name: str) -> int:
    totals = pool.query_metrics.snapshot().get(name)
    return 0 if totals is None else totals.calls


async def test_one_statement_gives_its_row_as_a_model(connection: Any) -> None:
    request = item(price=Decimal("1.50"), attributes={"colour": "red", "sizes": [1, 2]})
    (response,) = await run(connection, request)
    parameters = request.parameters
    assert response == Response(
        [
            ItemRow(
                parameters.id,
                "nut",
                Decimal("1.50"),
                {"colour": "red", "sizes": [1, 2]},
                datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
            )
        ],
        1,
    )
    assert msgspec.json.decode(msgspec.json.encode(response))["rows"][0]["id"] == str(parameters.id)


async def test_a_batch_is_one_round_trip_with_a_result_per_request_in_order(
    connection: Any, postgres_connection_pool: PostgresConnectionPool
) -> None:
    requests = [item(f"item {index}", price=Decimal(index)) for index in range(500)]
    responses = await run(connection, *requests)
    assert [response.rows[0].id for response in responses] == [request.parameters.id for request in requests]
    assert {response.row_count for response in responses} == {1}
    assert calls(postgres_connection_pool, "insert_item") == 1
    stored = await connection.fetch("SELECT id FROM item ORDER BY position")
    assert [row["id"] for row in stored] == [request.parameters.id for request in requests]


async def test_json_of_every_shape_survives_a_batch(connection: Any) -> None:
    values: list[Any] = [[1, [2, 3]], [], {"a": []}, "text", 7, None, [None], [[1], [2, 3]], True]
    responses = await run(connection, *(item(attributes=value) for value in values))
    assert [response.rows[0].attributes for response in responses] == values


async def test_batch_and_single_give_the_same(connection: Any) -> None:
    pairs = [item(price=Decimal("9.99")), item(attributes=[1]), item("bolt"), item()]
    together = await run(connection, *pairs)
    await run(connection, Purge())
    alone = [(await run(connection, request))[0] for request in pairs]
    assert together == alone


async def test_requests_of_several_types_keep_their_places(connection: Any) -> None:
    requests = [item("a"), CountUp("x"), item("b"), FindItems("zzz"), CountUp("y"), item("c")]
    responses = await run(connection, *requests)
    names = [response.rows[0].name if response.rows else None for response in responses]
    assert names == ["a", "x", "b", None, "y", "c"]


async def test_a_batched_select_gives_each_request_its_own_rows(
    connection: Any, postgres_connection_pool: PostgresConnectionPool
) -> None:
    inserted = await run(connection, item("nut"), item("bolt"), item("nut"))
    responses = await run(connection, FindItems("nut"), FindItems("none"), FindItems("bolt"), FindItems("nut"))
    nut, none, bolt, nut_again = responses
    assert nut.rows == [inserted[0].rows[0], inserted[2].rows[0]]
    assert nut_again == nut
    assert none == Response([], 0)
    assert bolt.rows == [inserted[1].rows[0]]
    assert calls(postgres_connection_pool, "find_items") == 1


async def test_no_row_is_a_successful_answer(connection: Any) -> None:
    assert await run(connection, FindItems("nothing")) == [Response([], 0)]
    assert await run(connection, Rename(uuid4(), "x")) == [Response([], 0)]


async def test_exec_counts_rows(connection: Any) -> None:
    await run(connection, item(), item(), item())
    assert await run(connection, Purge()) == [Response([], 3)]


async def test_statements_without_a_batch_form_run_one_by_one(connection: Any) -> None:
    first, second = item("a"), item("b")
    await run(connection, first, second)
    responses = await run(
        connection, Rename(first.parameters.id, "x"), Rename(uuid4(), "y"), Rename(second.parameters.id, "z")
    )
    assert [response.row_count for response in responses] == [1, 0, 1]


async def test_an_insert_without_columns_is_batched_by_its_count(
    connection: Any, postgres_connection_pool: PostgresConnectionPool
) -> None:
    assert await run(connection, *(LogName(f"n{index}") for index in range(50))) == [Response([], 1)] * 50
    assert calls(postgres_connection_pool, "log_name") == 1


async def test_two_requests_that_meet_in_one_row_fall_back_to_one_by_one(connection: Any) -> None:
    responses = await run(connection, CountUp("a"), CountUp("b"), CountUp("a"), CountUp("a"))
    assert [response.rows[0] for response in responses] == [
        CounterRow("a", 1),
        CounterRow("b", 1),
        CounterRow("a", 2),
        CounterRow("a", 3),
    ]


async def test_a_batch_with_a_missing_row_falls_back_and_tells_who_got_none(connection: Any) -> None:
    await run(connection, TakeCounter("taken"))
    responses = await run(connection, TakeCounter("free"), TakeCounter("taken"), TakeCounter("also free"))
    assert [response.row_count for response in responses] == [1, 0, 1]
    assert await connection.fetchval("SELECT count(*) FROM counter") == 3


async def test_a_fall_back_undoes_the_batch_and_nothing_else(connection: Any) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO counter VALUES ('before', 7)")
        await run_statements(connection, [CountUp("a"), CountUp("a")], BINDINGS)
    rows = await connection.fetch("SELECT name, value FROM counter ORDER BY name")
    assert [tuple(row) for row in rows] == [("a", 2), ("before", 7)]


@pytest.mark.parametrize("size", [1, 3])
async def test_a_refused_request_names_statement_and_constraint_and_no_value(connection: Any, size: int) -> None:
    await run(connection, item("first"))
    secret = "value-of-a-payload"
    bad = item("")
    with pytest.raises(BusinessError) as caught:
        await run(connection, *[item(secret) for _ in range(size - 1)], bad)
    error = caught.value
    assert error.instance_code == "constraint-violated"
    assert error.details["statement"] == "insert_item"
    assert error.details["constraint"] == "item_name_check"
    assert secret not in str(error)
    assert await connection.fetchval("SELECT count(*) FROM item") == 1


async def test_a_value_out_of_range_is_refused(connection: Any) -> None:
    with pytest.raises(BusinessError) as caught:
        await run(connection, item(price=Decimal(123456789012)))
    assert caught.value.instance_code == "invalid-data"
    assert caught.value.details["sqlstate"] == "22003"


async def test_a_statement_that_waits_too_long_for_a_lock_is_transient(
    connection: Any, postgres_connection_pool: PostgresConnectionPool
) -> None:
    request = item()
    await run(connection, request)
    async with postgres_connection_pool.acquire() as other:
        await other.execute("SET lock_timeout = '50ms'")
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM item FOR UPDATE")
            with pytest.raises(TransientError):
                await run(other, Rename(request.parameters.id, "x"))


async def test_a_table_changed_under_a_prepared_statement_is_transient_and_then_works(
    connection: Any, postgres_connection_pool: PostgresConnectionPool
) -> None:
    wide = Statement(name="all_of_it", sql="SELECT * FROM counter", cardinality="many", parameters=(), row=CounterRow)
    binding: dict[type, BoundStatement] = {Purge: bound(wide)}
    async with connection.transaction():
        await run_statements(connection, [Purge()], binding)
    async with postgres_connection_pool.acquire() as other:
        await other.execute("ALTER TABLE counter ALTER COLUMN value TYPE bigint")

    async def again() -> list[Any]:
        async with connection.transaction():
            return await run_statements(connection, [Purge()], binding)

    with pytest.raises(TransientError):
        await again()
    assert await again() == [Response([], 0)]


async def test_a_statement_for_a_missing_table_is_an_outage_until_migrated(connection: Any) -> None:
    await connection.execute("DROP TABLE counter")
    with pytest.raises(DependencyUnavailableError, match="omninode migrate"):
        await run(connection, CountUp("x"))


async def test_a_transaction_runs_its_statements_in_order(connection: Any) -> None:
    request = Transaction([CountUp("a"), item("one"), CountUp("a"), FindItems("one"), Purge()])
    async with connection.transaction():
        (results,) = await run_transaction(connection, [request], BINDINGS, response=list)
    assert [result.row_count for result in results] == [1, 1, 1, 1, 1]
    assert results[2].rows == [CounterRow("a", 2)]
    assert results[3].rows == results[1].rows


async def test_a_refused_statement_of_a_transaction_is_named_by_its_place(connection: Any) -> None:
    duplicate = item()

    async def refused() -> None:
        async with connection.transaction():
            await run_transaction(
                connection, [Transaction([CountUp("a"), duplicate, duplicate])], BINDINGS, response=list
            )

    with pytest.raises(BusinessError) as caught:
        await refused()
    assert caught.value.details["index"] == "2"
    assert caught.value.details["statement"] == "insert_item"
    assert await connection.fetchval("SELECT count(*) FROM counter") == 0


async def test_a_transaction_has_at_most_so_many_statements(connection: Any) -> None:
    with pytest.raises(BusinessError) as caught:
        await run_transaction(connection, [Transaction([Purge()] * 4)], BINDINGS, response=list, max_statements=3)
    assert caught.value.instance_code == "too-many-statements"


async def test_statements_that_fit_the_schema_pass(connection: Any) -> None:
    assert await verify_statements(connection, ALL) == []
    await require_statements(connection, ALL)


async def test_every_statement_that_does_not_fit_is_reported_at_once(connection: Any) -> None:
    broken = [
        Statement(name="no_table", sql="SELECT a FROM nowhere", cardinality="one", parameters=(), row=Name),
        Statement(name="no_column", sql="SELECT colour FROM item", cardinality="one", parameters=(), row=Name),
        Statement(name="typo", sql="SELEC name FROM item", cardinality="one", parameters=(), row=Name),
        Statement(name="wide", sql="SELECT name, price FROM item", cardinality="one", parameters=(), row=Name),
        Statement(name="arity", sql="SELECT $1::text || $2", cardinality="one", parameters=("name",), row=Name),
        msgspec.structs.replace(FIND_ITEMS, name="batch", batch_sql="SELECT name FROM unnest($1::text[]) AS m (name)"),
    ]
    problems = await verify_statements(connection, [*broken, *ALL])
    assert problems == [
        StatementProblem("no_table", 'relation "nowhere" does not exist (42P01)'),
        StatementProblem("no_column", 'column "colour" does not exist (42703)'),
        StatementProblem("typo", 'syntax error at or near "SELEC" (42601)'),
        StatementProblem("wide", "gives 2 columns, the generated code expects 1"),
        StatementProblem("arity", "takes 2 parameters, the generated code gives 1"),
        StatementProblem("batch", "gives 1 columns, the generated code expects 6"),
    ]
    with pytest.raises(SchemaMissingError, match="no_column") as caught:
        await require_statements(connection, broken)
    assert "omninode migrate" in str(caught.value)


async def test_checking_statements_on_a_lost_connection_is_an_outage(
    connection: Any, postgres_test_db: PostgresDatabase
) -> None:
    other = await postgres_test_db.connect()
    await other.close()
    with pytest.raises(DependencyUnavailableError):
        await verify_statements(other, ALL)


async def test_a_connection_without_a_pool_will_do(connection: Any, postgres_test_db: PostgresDatabase) -> None:
    other = await postgres_test_db.connect()
    assert await run(other, CountUp("a")) == [Response([CounterRow("a", 1)], 1)]
    await other.close()
