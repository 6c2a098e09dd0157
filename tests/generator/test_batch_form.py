"""The set-based form of a statement does what the statement does, request by request; what is uncertain has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import pq

from omnibase_infra.shared.contracts.statement_file import parse_statement_file
from omnibase_infra.shared.generator.kits.postgres.analysis import analyse_statement
from omnibase_infra.shared.generator.kits.postgres.catalogue import Catalogue
from omnibase_infra.shared.generator.kits.postgres.scratch_database import scratch_database
from omnibase_infra.shared.generator.kits.postgres.sql_types import AnalysedStatement
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer

SCHEMA = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE things (
    place integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    "user" text,
    amount numeric NOT NULL DEFAULT 0,
    mood mood,
    tags text[],
    input text
);
"""


@pytest.fixture(scope="module")
def connection(
    postgres_container: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[psycopg.Connection]:
    """A scratch database with one table."""
    migration = tmp_path_factory.mktemp("batch") / "0001_things.sql"
    migration.write_text(SCHEMA)
    with scratch_database(postgres_container.dsn, [("migrations/0001_things.sql", migration)]) as scratch:
        yield scratch


def analyse(connection: psycopg.Connection, folder: Path, header: str, sql: str) -> AnalysedStatement:
    path = folder / "it.sql"
    path.write_text(f"-- name: it {header}\n{sql}\n")
    return analyse_statement(connection, Catalogue(connection), "statements/it.sql", parse_statement_file(path))


def rows(connection: psycopg.Connection, sql: str, parameters: Sequence[str | None]) -> list[list[bytes | None]]:
    """Run a statement with $n placeholders; everything is text."""
    values = [None if value is None else value.encode() for value in parameters]
    result = connection.pgconn.exec_params(sql.encode(), values)
    assert result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK), result.error_message
    return [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]


def array(values: Sequence[Any]) -> str:
    return "{" + ",".join("NULL" if value is None else f'"{value}"' for value in values) + "}"


@pytest.mark.parametrize(
    ("header", "sql"),
    [
        (
            ":one\n-- params: name, user?",
            'INSERT INTO things (name, "user") VALUES ($1, $2) RETURNING place, name, "user"',
        ),
        (":exec\n-- params: name, amount", "INSERT INTO things (name, amount) VALUES ($1, $2)"),
        (
            ":one\n-- params: name, amount",
            (
                "insert into things as t (name, amount)\nvalues (lower($1) || ')' /* ) */, $2 + 1) -- VALUES (\n"
                "on conflict (name) do update set amount = excluded.amount + t.amount returning name, amount"
            ),
        ),
        (
            ":one\n-- params: name, mood?",
            "INSERT INTO things (name, mood) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING name",
        ),
    ],
)
def test_an_insert_of_one_row_becomes_an_insert_from_arrays(
    connection: psycopg.Connection, tmp_path: Path, header: str, sql: str
) -> None:
    analysis = analyse(connection, tmp_path, header, sql)
    assert analysis.batch_rows == "positional"
    assert analysis.batch_sql is not None
    assert "WITH ORDINALITY" in analysis.batch_sql


def test_rows_of_a_batched_insert_come_and_are_numbered_in_the_order_of_the_inputs(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    sql = 'INSERT INTO things (name, "user", amount) VALUES ($1, $2, $3) RETURNING place, name'
    analysis = analyse(connection, tmp_path, ":one\n-- params: name, user?, amount", sql)
    names = [f"order-{number * 7919 % 501:03}" for number in range(501)]
    assert analysis.batch_sql is not None
    users = [None if number % 3 else "someone" for number in range(501)]
    found = rows(connection, analysis.batch_sql, [array(names), array(users), array([1] * 501)])
    assert [str(name, "utf-8") for _, name in found if name] == names
    places = [int(place) for place, _ in found if place]
    assert places == sorted(places)


@pytest.mark.parametrize("many", [False, True])
def test_a_batched_select_gives_each_input_what_the_single_one_gives(
    connection: psycopg.Connection, tmp_path: Path, many: bool
) -> None:
    prefix = f"select-{many}"
    for number in range(30):
        values = [f"{prefix}-{number}", str(number % 5)]
        rows(connection, "INSERT INTO things (name, amount) VALUES ($1, $2::numeric)", values)
    if many:
        header = ":many\n-- params: prefix, amount, max_rows"
        sql = "SELECT name, place FROM things WHERE name LIKE $1 || '%' AND amount = $2 ORDER BY place DESC LIMIT $3"
        inputs = [[prefix, str(number % 7), "3"] for number in range(20)]
    else:
        header = ":one\n-- params: name"
        sql = "SELECT place, amount, 'it''s $1' AS note FROM things WHERE name = $1 -- not $1"
        inputs = [[f"{prefix}-{number * 11 % 40}"] for number in range(20)]
    analysis = analyse(connection, tmp_path, header, sql)
    assert analysis.batch_rows == "ordinal"
    assert analysis.batch_sql is not None
    together = rows(connection, analysis.batch_sql, [array(column) for column in zip(*inputs, strict=True)])
    for number, parameters in enumerate(inputs, start=1):
        own = [row[1:] for row in together if row[0] == str(number).encode()]
        assert own == rows(connection, sql, parameters)


@pytest.mark.parametrize(
    ("header", "sql"),
    [
        (":exec\n-- params: name", "UPDATE things SET amount = 1 WHERE name = $1"),
        (":exec\n-- params: name", "DELETE FROM things WHERE name = $1"),
        (":exec", "INSERT INTO things (name) VALUES ('a')"),
        (":exec\n-- params: name, tags", "INSERT INTO things (name, tags) VALUES ($1, $2)"),
        (":exec\n-- params: name", "INSERT INTO things (name) VALUES ($1), ('b')"),
        (":exec\n-- params: name", "INSERT INTO things (name, amount) VALUES ($1, DEFAULT)"),
        (":exec\n-- params: name", "INSERT INTO things (name) SELECT $1"),
        (":exec\n-- params: name", "WITH q AS (SELECT 1) INSERT INTO things (name) VALUES ($1)"),
        (
            ":exec\n-- params: name, amount",
            "INSERT INTO things (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET amount = $2",
        ),
        (":one\n-- params: name, note", "INSERT INTO things (name) VALUES ($1) RETURNING $2::text AS note"),
        (":one\n-- params: name", "SELECT place FROM things WHERE name = $1 FOR UPDATE"),
        (
            ":one\n-- params: name",
            "WITH gone AS (DELETE FROM things WHERE name = $1 RETURNING place) SELECT place FROM gone",
        ),
        (":many\n-- params: tags", "SELECT place FROM things WHERE name = any($1)"),
    ],
)
def test_what_is_uncertain_has_no_set_based_form(
    connection: psycopg.Connection, tmp_path: Path, header: str, sql: str
) -> None:
    assert analyse(connection, tmp_path, header, sql).batch_sql is None


def test_the_input_s_name_gives_way_to_a_name_in_the_statement(connection: psycopg.Connection, tmp_path: Path) -> None:
    header = ":one\n-- params: ord, user"
    sql = 'SELECT place FROM things WHERE input = $1 AND "user" = $2'
    analysis = analyse(connection, tmp_path, header, sql)
    assert analysis.batch_sql is not None
    assert 'AS input_rows(ord, "user", input_ord)' in analysis.batch_sql
    assert rows(connection, analysis.batch_sql, [array(["x"]), array(["y"])]) == []
