"""Statement files: header, parameters, one statement; everything wrong is located."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.statement_file import StatementFile, parse_statement, parse_statement_file
from omnibase_infra.shared.core.errors import ContractError, Problem

GOOD = """\
-- name: insert_order :one
-- params: order_id, customer_id,
-- params: note?
-- columns: note?, total!
-- description: Stores an order.
-- description: Twice is refused.

-- an ordinary comment; with $9 and ' in it
INSERT INTO orders (order_id, customer_id, note)
VALUES ($1, $2, $3)
RETURNING *;
"""


def refused(text: str, expected_name: str | None = None) -> list[tuple[str, int, int]]:
    with pytest.raises(ContractError) as raised:
        parse_statement(text, "s.sql", expected_name)
    return [(problem.rule, problem.line, problem.column) for problem in raised.value.problems]


def test_a_statement_file_is_read_whole() -> None:
    good = GOOD.replace("customer_id,\n--", "customer_id\n--")
    assert parse_statement(good, "s.sql", "insert_order") == StatementFile(
        name="insert_order",
        cardinality="one",
        params=("order_id", "customer_id", "note"),
        nullable=frozenset({"note"}),
        sql=good.split("\n\n", 1)[1].strip().rstrip(";"),
        description="Stores an order.\nTwice is refused.",
        columns={"note": True, "total": False},
        read_only=False,
        sql_line=8,
    )


def test_a_trailing_comma_is_an_empty_parameter() -> None:
    assert (Rule.STATEMENT_PARAMETERS.id, 2, 34) in refused(GOOD)


def test_a_statement_without_parameters_needs_no_params_line() -> None:
    statement = parse_statement("-- name: count_orders :one\nSELECT count(*) FROM orders", "s.sql")
    assert statement.params == ()
    assert statement.read_only


def test_line_ends_of_other_systems_change_nothing() -> None:
    unix = "-- name: a :one\n-- params: x\nSELECT $1\n"
    assert parse_statement(unix.replace("\n", "\r\n"), "s.sql") == parse_statement(unix, "s.sql")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", [("CT402", 1, 1)]),
        ("", [("CT402", 1, 1), ("CT404", 1, 1)]),
        ("-- name: a :one\n", [("CT404", 2, 1)]),
        ("-- name: a :one\n-- only a comment", [("CT404", 2, 1)]),
        ("-- name: a :one\n\n-- only\n/* comments */ ;", [("CT404", 2, 1)]),
        ("-- name: A :one\nSELECT 1", [("CT402", 1, 10)]),
        ("-- name: a one\nSELECT 1", [("CT402", 1, 10)]),
        ("-- name: a :ony\nSELECT 1", [("CT402", 1, 10)]),
        ("-- name: a\nSELECT 1", [("CT402", 1, 10)]),
        ("-- name: a :one\n-- name: b :one\nSELECT 1", [("CT402", 2, 1)]),
        ("-- name: a :one\n-- parms: x\nSELECT 1", [("CT402", 2, 4)]),
        ("-- name: a :one\n-- columns: x\nSELECT 1", [("CT402", 2, 13)]),
        ("-- name: a :one\n-- columns: x!, x?\nSELECT 1", [("CT402", 2, 17)]),
        ("-- name: a :one\nSELECT $1", [("CT403", 2, 8)]),
        ("-- name: a :one\n-- params: x\nSELECT $1, $2, $0", [("CT403", 3, 12), ("CT403", 3, 16)]),
        ("-- name: a :one\n-- params: x, y\nSELECT $1", [("CT403", 2, 1)]),
        ("-- name: a :one\n-- params: x, x\nSELECT $1, $2", [("CT403", 2, 15)]),
        ("-- name: a :one\n-- params: X\nSELECT $1", [("CT403", 2, 12)]),
        ("-- name: a :one\nSELECT 1; SELECT 2", [("CT404", 2, 9)]),
        ("-- name: a :one\nSELECT 1; 'x'", [("CT404", 2, 9)]),
        ("-- name: a :exec\nSELECT 1", [("CT408", 1, 1)]),
        ("-- name: a :one\nDELETE FROM t", [("CT408", 1, 1)]),
        ("-- name: a :many\nUPDATE t SET x = 1 -- returning", [("CT408", 1, 1)]),
        ("-- name: a :exec\nDELETE FROM t RETURNING x", [("CT408", 1, 1)]),
    ],
)
def test_what_is_wrong_is_located(text: str, expected: list[tuple[str, int, int]]) -> None:
    assert refused(text) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ';' || E'\\';' || \";\" || $$;$1$$ || $tag$ ; $$ $tag$ /* ; /* $1 */ ; */ -- ; $1",
        "SELECT a$1 FROM (VALUES (1)) AS v (a$1)",
        "WITH gone AS (DELETE FROM t RETURNING x) SELECT x FROM gone",
        "SELECT 1 ; ;\n; -- that was it",
        "SELECT 'x'; /* done */",
        "TABLE orders",
    ],
)
def test_literals_comments_and_names_hide_semicolons_and_placeholders(sql: str) -> None:
    parse_statement(f"-- name: a :many\n{sql}", "s.sql")


def test_all_mistakes_of_a_file_come_at_once() -> None:
    text = "-- name: Insert :ones\n-- params: a, a, b\n-- colums: x!\nSELECT $1, $5; SELECT 1"
    assert len(refused(text, "other")) >= 7


@pytest.mark.parametrize("body", [";", "/*", "--", "'", "$$", "$a", "*/", "(", "\n-- x"])
def test_hostile_repetition_takes_no_time(body: str) -> None:
    started = time.monotonic()
    with pytest.raises(ContractError):
        parse_statement(f"-- name: a :one\n\nSELECT $2 {body * 20_000} x;x", "s.sql")
    assert time.monotonic() - started < 5


def test_file_and_name_agree(tmp_path: Path) -> None:
    path = tmp_path / "other.sql"
    path.write_text("-- name: insert_order :one\nSELECT 1", encoding="utf-8")
    with pytest.raises(ContractError, match=r"other\.sql:1:1: the statement 'insert_order' is in other\.sql \[CT405\]"):
        parse_statement_file(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.sql:1:1: no such file or directory, expected a SQL file"):
        parse_statement_file(tmp_path / "none.sql")
    (tmp_path / "latin.sql").write_bytes(b"-- name: latin :one\nSELECT 'caf\xe9'")
    with pytest.raises(ContractError, match=r"latin\.sql:2:1: not UTF-8"):
        parse_statement_file(tmp_path / "latin.sql")
    (tmp_path / "large.sql").write_bytes(b"-" * (256 * 1024 + 1))
    with pytest.raises(ContractError, match=r"large\.sql:1:1: the file has 262145 bytes"):
        parse_statement_file(tmp_path / "large.sql")


@pytest.mark.parametrize(
    ("sql", "read_only"),
    [
        ("SELECT 1", True),
        ("SELECT 'delete' AS \"update\" -- insert", True),
        ("WITH t AS (INSERT INTO x VALUES (1) RETURNING 1) SELECT * FROM t", False),
        ("SELECT 1 FROM t FOR\n  UPDATE", False),
        ("SELECT deleted_at FROM t", True),
    ],
)
def test_read_only_is_told_by_the_words_outside_literals(sql: str, *, read_only: bool) -> None:
    assert parse_statement(f"-- name: a :many\n{sql}", "s.sql").read_only is read_only


@given(
    st.text(max_size=300)
    | st.text("-name: ;$123'\"/*\n?!abc,", max_size=200).map(lambda tail: f"-- name: a :one\n{tail}")
)
def test_no_text_raises_anything_else(text: str) -> None:
    problems: list[Problem] = []
    try:
        parse_statement(text, "s.sql")
    except ContractError as error:
        problems = list(error.problems)
    last_line = text.count("\n") + 1
    assert all(1 <= problem.line <= last_line and problem.column >= 1 for problem in problems)
