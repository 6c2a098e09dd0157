"""Payloads of answers, shown to people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from omnibase_infra.shared.cli.payload_view import print_payload


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    def show(payload: Any) -> list[list[str]]:
        print_payload(payload)
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    return show


def test_rows_are_a_table_with_the_other_fields_beneath(shown: Any) -> None:
    assert shown({"statement": "list", "row_count": 2, "rows": [{"a": 1, "b": None}, {"a": "x"}]}) == [
        ["a", "b"],
        ["1", "-"],
        ["x", "-"],
        [],
        ["statement:", "list,", "row_count:", "2"],
    ]


def test_a_single_row_is_a_table(shown: Any) -> None:
    assert shown({"row": {"a": 1}, "row_count": 1})[:2] == [["a"], ["1"]]


def test_a_query_has_its_columns_apart(shown: Any) -> None:
    payload = {"columns": [{"name": "n", "type": "int4"}], "rows": [[7]], "row_count": 1, "truncated": False}
    assert shown(payload) == [["n"], ["7"], [], ["row_count:", "1,", "truncated:", "false"]]


def test_results_of_a_transaction_come_one_by_one(shown: Any) -> None:
    payload = {"results": [{"row_count": 0, "rows": []}, {"row_count": 1, "rows": [{"a": 1}]}]}
    lines = shown(payload)
    assert lines[0] == ["result", "1"]
    assert ["result", "2"] in lines
    assert lines[-4:] == [["a"], ["1"], [], ["row_count:", "1"]]


@pytest.mark.parametrize(
    "payload",
    [
        {"status": "healthy"},
        {"rows": []},
        {"row": None},
        {"rows": [1, 2]},
        {"rows": "x"},
        {"results": []},
        [1],
        None,
        5,
    ],
)
def test_anything_else_is_json(payload: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_payload(payload)
    assert json.loads(capsys.readouterr().out) == payload
