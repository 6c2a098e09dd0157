"""What PostgreSQL says about statements: types, nullability, errors with their place, and which can batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from omnibase_infra.shared.contracts.statement_file import parse_statement_file
from omnibase_infra.shared.core.errors import ContractError, DependencyUnavailableError
from omnibase_infra.shared.generator.kits.postgres.analysis import analyse_statement
from omnibase_infra.shared.generator.kits.postgres.catalogue import Catalogue
from omnibase_infra.shared.generator.kits.postgres.scratch_database import scratch_database
from omnibase_infra.shared.generator.kits.postgres.sql_types import AnalysedStatement
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer

SCHEMA = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN positive AS integer CHECK (value > 0);
CREATE TABLE parents (id integer PRIMARY KEY, name text NOT NULL, "user" text);
CREATE TABLE children (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent_id integer NOT NULL REFERENCES parents,
    age positive NOT NULL,
    mood mood NOT NULL DEFAULT 'glad',
    moods mood[],
    place point,
    serial uuid NOT NULL DEFAULT gen_random_uuid()
);
CREATE VIEW grown AS SELECT id, age FROM children WHERE age > 17;
"""


@pytest.fixture(scope="module")
def connection(
    postgres_container: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[psycopg.Connection]:
    """A scratch database with a small schema."""
    migration = tmp_path_factory.mktemp("analysis") / "0001_schema.sql"
    migration.write_text(SCHEMA)
    with scratch_database(postgres_container.dsn, [("migrations/0001_schema.sql", migration)]) as scratch:
        yield scratch


def analyse(connection: psycopg.Connection, folder: Path, header: str, sql: str) -> AnalysedStatement:
    """Analyse a statement named `it`; `header` is its cardinality and further lines."""
    path = folder / "it.sql"
    path.write_text(f"-- name: it {header}\n{sql}\n")
    return analyse_statement(connection, Catalogue(connection), "statements/it.sql", parse_statement_file(path))


def types_of(analysis: AnalysedStatement) -> dict[str, str]:
    return {column.name: column.annotation for column in analysis.columns}


@pytest.mark.parametrize(
    ("sql_type", "annotation"),
    [
        ("int2", "SmallInt"),
        ("int4", "Integer"),
        ("int8", "BigInt"),
        ("text", "Text"),
        ("varchar(10)", "Text"),
        ("char(3)", "Text"),
        ("name", "Text"),
        ("bool", "bool"),
        ("float4", "float"),
        ("float8", "float"),
        ("numeric(12, 2)", "Decimal"),
        ("uuid", "UUID"),
        ("timestamptz", "AwareDateTime"),
        ("timestamp", "NaiveDateTime"),
        ("date", "date"),
        ("time", "time"),
        ("interval", "timedelta"),
        ("jsonb", "Any"),
        ("json", "Any"),
        ("bytea", "bytes"),
        ("int4[]", "list[Integer | None]"),
        ("jsonb[]", "list[Any]"),
        ("mood", "Literal['glad', 'sad']"),
        ("mood[]", "list[Literal['glad', 'sad'] | None]"),
        ("positive", "Integer"),
    ],
)
def test_each_type_has_its_annotation_as_parameter_and_as_column(
    connection: psycopg.Connection, tmp_path: Path, sql_type: str, annotation: str
) -> None:
    analysis = analyse(
        connection, tmp_path, ":one\n-- params: value\n-- columns: value!", f"SELECT $1::{sql_type} AS value"
    )
    assert [parameter.annotation for parameter in analysis.parameters] == [annotation]
    assert types_of(analysis) == {"value": annotation}


def test_a_column_of_a_table_is_nullable_unless_it_is_not_null(connection: psycopg.Connection, tmp_path: Path) -> None:
    analysis = analyse(connection, tmp_path, ":many", 'SELECT id, name, "user" FROM parents')
    assert types_of(analysis) == {"id": "Integer", "name": "Text", "user": "Text | None"}


@pytest.mark.parametrize(
    ("sql", "nullable"),
    [
        ("SELECT p.id, c.age FROM parents p JOIN children c ON c.parent_id = p.id", {"id": False, "age": False}),
        ("SELECT p.id, c.age FROM parents p LEFT JOIN children c ON c.parent_id = p.id", {"id": False, "age": True}),
        ("SELECT p.id, c.age FROM parents p RIGHT JOIN children c ON c.parent_id = p.id", {"id": True, "age": False}),
        ("SELECT p.id, c.age FROM parents p FULL JOIN children c ON c.parent_id = p.id", {"id": True, "age": True}),
        (
            "SELECT p.id, q.age FROM parents p LEFT JOIN (SELECT parent_id, age FROM children) q ON q.parent_id = p.id",
            {"id": False, "age": True},
        ),
        (
            (
                "SELECT p.id, q.age FROM parents p LEFT JOIN LATERAL "
                "(SELECT age FROM children c WHERE c.parent_id = p.id ORDER BY age LIMIT 1) q ON true"
            ),
            {"id": False, "age": True},
        ),
        ("WITH q AS MATERIALIZED (SELECT id, age FROM children) SELECT id, age FROM q", {"id": False, "age": False}),
        ("SELECT id, age FROM grown", {"id": True, "age": True}),
        ("SELECT parent_id AS id, age FROM children GROUP BY ROLLUP (parent_id, age)", {"id": True, "age": True}),
        ("SELECT id, age FROM children UNION ALL SELECT 1, NULL", {"id": True, "age": True}),
        ("SELECT count(*) AS id, max(age) AS age FROM children", {"id": True, "age": True}),
        ("UPDATE children SET age = age + 1 RETURNING id, age", {"id": False, "age": False}),
        (
            (
                "UPDATE parents SET name = 'x' FROM children c RIGHT JOIN parents o ON o.id = c.parent_id "
                "WHERE parents.id = o.id RETURNING parents.id, c.age"
            ),
            {"id": False, "age": True},
        ),
        ("DELETE FROM children RETURNING id, age", {"id": False, "age": False}),
    ],
)
def test_an_outer_join_and_what_cannot_be_followed_make_columns_nullable(
    connection: psycopg.Connection, tmp_path: Path, sql: str, nullable: dict[str, bool]
) -> None:
    analysis = analyse(connection, tmp_path, ":many", sql)
    assert {column.name: column.nullable for column in analysis.columns} == nullable


def test_the_header_has_the_last_word_on_nullability(connection: psycopg.Connection, tmp_path: Path) -> None:
    header = ":one\n-- columns: total!, name?"
    analysis = analyse(connection, tmp_path, header, "SELECT count(*) AS total, min(name) AS name FROM parents")
    assert types_of(analysis) == {"total": "BigInt", "name": "Text | None"}


@pytest.mark.parametrize(
    ("header", "sql", "place", "message"),
    [
        (":many", "SELECT id,\n  nmae FROM parents", "statements/it.sql:3:3", 'column "nmae" does not exist'),
        (":many", "SELECT id FROM nowhere", "statements/it.sql:2:16", 'relation "nowhere" does not exist'),
        (":one\n-- params: a", "SELECT $1 + 'x'::text", "statements/it.sql:3:11", "operator"),
        (":many", "SELECT place FROM children", "statements/it.sql:1:1", "cast it to one of int2"),
        (":many", "SELECT id, id FROM children", "statements/it.sql:1:1", "two columns are called 'id'"),
        (":many", "SELECT 1", "statements/it.sql:1:1", "'?column?'"),
        (":many\n-- columns: nope!", "SELECT id FROM children", "statements/it.sql:1:1", "speaks of a column 'nope'"),
        (":exec", "WITH q AS (SELECT 1 AS one) SELECT one FROM q", "statements/it.sql:1:1", "expected :one or :many"),
    ],
)
def test_what_postgresql_refuses_is_named_with_its_place(
    connection: psycopg.Connection, tmp_path: Path, header: str, sql: str, place: str, message: str
) -> None:
    with pytest.raises(ContractError) as refusal:
        analyse(connection, tmp_path, header, sql)
    assert str(refusal.value).startswith(f"{place}: ")
    assert message in str(refusal.value)


def test_a_migration_that_fails_is_named_with_its_place(postgres_container: PostgresServer, tmp_path: Path) -> None:
    migration = tmp_path / "0001_bad.sql"
    migration.write_text("CREATE TABLE fine (a int);\n\nCREATE TABLE bad (a nonsense);\n")
    with (
        pytest.raises(ContractError, match=r'0001_bad\.sql:3:21: .*type "nonsense" does not exist'),
        scratch_database(postgres_container.dsn, [("migrations/0001_bad.sql", migration)]),
    ):
        raise AssertionError("the migration ran")


def test_no_scratch_database_is_left_behind(postgres_container: PostgresServer) -> None:
    names: list[str] = []

    def fail_inside() -> None:
        with scratch_database(postgres_container.dsn, []) as connection:
            names.append(connection.info.dbname)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    with psycopg.connect(postgres_container.dsn) as maintenance:
        assert maintenance.execute("SELECT 1 FROM pg_database WHERE datname = %s", names).fetchone() is None


def test_a_server_that_is_not_there_is_an_error_without_the_password() -> None:
    with (
        pytest.raises(DependencyUnavailableError, match="cannot connect to PostgreSQL") as error,
        scratch_database("postgresql://someone:s3cret@127.0.0.1:1/nothing", []),
    ):
        raise AssertionError("connected")
    assert "s3cret" not in str(error.value)
