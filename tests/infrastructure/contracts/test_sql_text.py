"""Masking SQL keeps every character in its place and hides what is no code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.contracts.sql_text import mask, placeholders


@pytest.mark.parametrize(
    ("sql", "masked"),
    [
        ("a 'b' c", "a     c"),
        ("a 'it''s' c", "a         c"),
        ('a "b;" c', "a      c"),
        ("a -- b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("a $$ b $$ c", "a         c"),
        ("a $t$ $$ $t$ c", "a            c"),
        ("e'\\'' x", "      x"),
        ("a'open", "a     "),
        ("a /* open", "a        "),
        ("a $$ open", "a        "),
        ("price$1 $2", "price$1 $2"),
    ],
)
def test_what_is_no_code_is_blank(sql: str, masked: str) -> None:
    assert mask(sql) == masked


def test_placeholders_are_found_with_their_offsets() -> None:
    assert placeholders("x = $1 AND y = $23 AND a$4") == [(1, 4), (23, 15)]


@given(st.text("a '\"-$/*\n\\e;1", max_size=100))
def test_length_and_lines_stay(sql: str) -> None:
    masked = mask(sql)
    assert len(masked) == len(sql)
    assert [index for index, c in enumerate(masked) if c == "\n"] == [index for index, c in enumerate(sql) if c == "\n"]
    assert all(new in (old, " ") for old, new in zip(sql, masked, strict=True))
