"""YAML's traps are refused by name, all located, and no input gets past the reader's bounds."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.yaml_source import MAX_BYTES, MAX_DEPTH, MAX_VALUES, Position, read_yaml


def found(text: str | bytes) -> list[tuple[str, int, int]]:
    """Return (rule, line, column) of every problem."""
    source = read_yaml(text.encode() if isinstance(text, str) else text, "f.yaml")
    return [(problem.rule, problem.line, problem.column) for problem in source.problems]


def test_values_and_keys_have_places() -> None:
    source = read_yaml(b"a: 1\nb:\n  - {c: two, d: [3]}\n", "f.yaml")
    assert source.data == {"a": 1, "b": [{"c": "two", "d": [3]}]}
    assert source.position(("b", 0, "c")) == Position(3, 9)
    assert source.position(("b", 0, "c"), of_key=True) == Position(3, 6)
    assert source.position(("b", 0, "d", 0)) == Position(3, 18)


def test_a_place_that_is_not_there_is_its_parents() -> None:
    source = read_yaml(b"a:\n  b: {c: 1}\n", "f.yaml")
    assert source.position(("a", "b", "missing", 7)) == source.position(("a", "b")) == Position(2, 6)


def test_scalars_are_read_as_json_would() -> None:
    text = "a: 1\nb: -2\nc: 1.5\nd: true\ne: null\nf: ~\ng:\nh: text\ni: '1'\nj: 1.0.0\nk: 12:30:45\nl: 2026-01-01\nm: 5s\nn: 2e3\n"
    assert read_yaml(text.encode(), "f").data == {
        "a": 1, "b": -2, "c": 1.5, "d": True, "e": None, "f": None, "g": None, "h": "text", "i": "1",
        "j": "1.0.0", "k": "12:30:45", "l": "2026-01-01", "m": "5s", "n": 2000.0,
    }  # fmt: skip


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "NO", "On", "OFF", "y", "N"])
def test_old_booleans_are_refused_as_values(word: str) -> None:
    assert found(f"a: {word}\n") == [(Rule.YAML_BOOLEAN.id, 1, 4)]
    assert found(f"a: '{word}'\n") == []


def test_on_is_a_key_like_any_other() -> None:
    assert read_yaml(b"on: event\nyes: 1\n", "f").data == {"on": "event", "yes": 1}


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "010", "0x1F", "0o17", "0b1", "1_000", "1" * 19, "1e999"])
def test_numbers_that_readers_disagree_on_are_refused(number: str) -> None:
    assert found(f"a: {number}\n") == [(Rule.YAML_NUMBER.id, 1, 4)]


@pytest.mark.parametrize("key", ["1", "1.5", "true", "null", "~", "? ''\n"])
def test_keys_are_text(key: str) -> None:
    expected = [] if "''" in key else [(Rule.YAML_KEY.id, 1, 1)]
    assert found(f"{key}: 1\n") == expected


def test_a_duplicate_key_is_named_with_its_first_place() -> None:
    source = read_yaml(b"a: 1\nb: {c: 1, c: 2}\na: 3\n", "f")
    assert [(p.rule, p.line, p.column) for p in source.problems] == [("CT002", 2, 11), ("CT002", 3, 1)]
    assert "first in line 1" in source.problems[1].message
    assert source.data == {"a": 1, "b": {"c": 1}}


def test_tabs_in_the_indentation_are_named_every_one() -> None:
    assert found("a:\n\tb: 1\n\tc: 2\n") == [(Rule.YAML_TAB.id, 2, 1), (Rule.YAML_TAB.id, 3, 1)]
    assert found("a: [1,\n  \t2]\n") == [(Rule.YAML_TAB.id, 2, 3)]


def test_tabs_elsewhere_are_allowed() -> None:
    assert found("a:\t1\nb: |\n  text\n  \tindented text\nc: 'a\tb'\n") == []


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("a: &x [*x]\n", 1, 8), ("a: &x {b: {c: *x}}\n", 1, 15), ("a: *none\n", 1, 4), ("<<: {a: 1}\n", 1, 1)],
)
def test_aliases_that_recurse_lead_nowhere_or_merge_are_refused(text: str, line: int, column: int) -> None:
    assert found(text) == [(Rule.YAML_ALIAS.id, line, column)]


def test_plain_aliases_are_read_and_located_where_the_value_is_written() -> None:
    source = read_yaml(b"a: &list [1, {b: 2}]\nc: *list\n", "f")
    assert source.data == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}
    assert source.position(("c", 1, "b")) == Position(1, 18)


def test_multiplying_aliases_are_bounded() -> None:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    started = time.monotonic()
    assert [rule for rule, _, _ in found("\n".join(lines))] == [Rule.YAML_ALIAS.id]
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused(opening: str) -> None:
    rules = {rule for rule, _, _ in found(opening * 50_000)}
    assert rules <= {Rule.YAML_SIZE.id, Rule.YAML_KEY.id}
    assert len(rules) == 1


def test_bounds_are_exact() -> None:
    assert found("[" * MAX_DEPTH + "]" * MAX_DEPTH) == []
    assert found("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)) == [(Rule.YAML_SIZE.id, 1, MAX_DEPTH + 1)]
    assert found("- 1\n" * (MAX_VALUES - 1)) == []
    assert [rule for rule, _, _ in found("- 1\n" * MAX_VALUES)] == [Rule.YAML_SIZE.id]
    assert found(b"#" * MAX_BYTES) == [(Rule.YAML_SYNTAX.id, 1, 1)]
    assert found(b"#" * (MAX_BYTES + 1)) == [(Rule.YAML_SIZE.id, 1, 1)]


@pytest.mark.parametrize("tag", ["!!int '3'", "!custom 3", "!!python/object/apply:os.system [x]", "!!binary aGk="])
def test_tags_are_refused(tag: str) -> None:
    assert found(f"a: {tag}\n") == [(Rule.YAML_TAG.id, 1, 4)]


def test_a_second_document_is_refused() -> None:
    assert found("a: 1\n---\nb: 2\n") == [(Rule.YAML_DOCUMENTS.id, 2, 1)]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: b: c\n", 1, 5),
        ("a: 'open\n", 2, 1),
        ("a: [1, 2\n", 2, 1),
        ("a: %x\n", 1, 4),
        ("a: \x01\n", 1, 4),
        ("", 1, 1),
    ],
)
def test_syntax_errors_are_located(text: str, line: int, column: int) -> None:
    assert found(text) == [(Rule.YAML_SYNTAX.id, line, column)]


def test_a_template_without_quotes_is_explained() -> None:
    assert found("a: {{ name }}\n") == [(Rule.YAML_KEY.id, 1, 5)]


def test_other_encodings_are_refused_where_they_begin() -> None:
    assert found("a: 1\nb: caf\xe9\n".encode("latin-1")) == [(Rule.FILE_UNREADABLE.id, 2, 7)]
    assert read_yaml("\ufeffa: 1\n".encode(), "f").data == {"a": 1}


@given(
    st.binary(max_size=400)
    | st.text(max_size=400).map(str.encode)
    | st.text("ab:-[]{}&*!|>'\"%#, \n\t?<~1", max_size=200).map(str.encode)
)
def test_no_input_raises(content: bytes) -> None:
    source = read_yaml(content, "f.yaml")
    lines = content.decode("utf-8", "replace").count("\n") + 2
    for problem in source.problems:
        assert (
            1 <= problem.line <= lines + content.count(b"\r") + content.count(b"\xc2\x85") + content.count(b"\xe2\x80")
        )
        assert problem.column >= 1
