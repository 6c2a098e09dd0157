from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.postgres.fingerprints import normalised, pattern_of

SAME = [
    "SELECT * FROM orders WHERE id = 17 AND note IN ('a', 'b''c', $$x$$)",
    "select *\n  from Orders -- all of them\n where ID = $1 and note in ($2,$3);",
    "SELECT/* why /* nested */ not */* FROM orders WHERE id=-1.5e-3 AND note IN (E'it\\'s')",
]


def test_values_spelling_and_comments_make_no_other_pattern() -> None:
    assert {normalised(sql) for sql in SAME} == {"select * from orders where id = ? and note in (?)"}
    assert len({pattern_of(sql).fingerprint for sql in SAME}) == 1


def test_a_fingerprint_is_the_same_in_every_process_and_release() -> None:
    assert pattern_of(SAME[0]).fingerprint == "21473078e2678aa9"


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')", "insert into t (a, b) values (?)"),
        ("INSERT INTO t (a, b) VALUES ($1, $2)", "insert into t (a, b) values (?)"),
        ('SELECT "Id" FROM "Order"', 'select "Id" from "Order"'),
        ("SELECT a->>'k', b::jsonb, c[1], count(*) FROM x.y", "select a ->> ?, b::jsonb, c[?], count (*) from x.y"),
        (r"SELECT 'C:\' , 1", "select ?"),
        ("SELECT a - 1 FROM t WHERE b = -1", "select a - ? from t where b = ?"),
        ("SELECT $tag$ it's $1 $tag$", "select ?"),
        ("SELECT U&'d\\0061', X'1f', B'01', N'x'", "select ?"),
        ("", ""),
        ("SELECT 'never closed", "select ?"),
        ("SELECT $a$never closed", "select ?"),
        ("SELECT /* never closed", "select"),
    ],
)
def test_what_is_left_of_a_statement(sql: str, text: str) -> None:
    assert normalised(sql) == text


def test_other_tables_and_other_conditions_are_other_patterns() -> None:
    statements = ("SELECT FROM a", "SELECT FROM b", "SELECT FROM a WHERE x = 1", "SELECT FROM a WHERE x > 1")
    assert len({pattern_of(sql).fingerprint for sql in statements}) == 4


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_value_is_left(value: str) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    assert normalised(f"SELECT a FROM t WHERE secret = {quoted} AND b = 1") == (
        "select a from t where secret = ? and b = ?"
    )


@given(st.text(max_size=200))
def test_any_text_has_a_pattern(sql: str) -> None:
    assert len(pattern_of(sql).fingerprint) == 16


def test_long_text_is_read_to_a_bound() -> None:
    long = "SELECT " + ", ".join(f"column_{number}" for number in range(5000))
    assert len(pattern_of(long).text) == 300
