"""Durations, rates and quantities, as contracts write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.contracts.units import (
    Rate,
    format_duration,
    parse_cpu,
    parse_duration,
    parse_memory,
    parse_rate,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("0.5s", 0.5),
        ("5s", 5.0),
        ("1m", 60.0),
        ("1.5m", 90.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("7d", 604800.0),
        ("0s", 0.0),
        ("1ms", 0.001),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5 s",
        "5S",
        "-5s",
        "+5s",
        "5sec",
        "05s",
        ".5s",
        "5.s",
        "5s ",
        "5s\n",
        "1e3s",
        "5s5s",
        "\u0665s",
        "9" * 400 + "s",
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration, expected a number with ms, s, m, h or d"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_formatted_duration_reads_back_equal(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.text(max_size=20))
def test_parsers_raise_nothing_but_value_error(text: str) -> None:
    for parse in (parse_duration, parse_rate, parse_cpu, parse_memory):
        message = ""
        try:
            parse(text)
        except ValueError as error:
            message = str(error)
        assert not message or repr(text) in message


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50/second", Rate(50, 1.0)),
        ("1000/minute", Rate(1000, 60.0)),
        ("1/hour", Rate(1, 3600.0)),
        ("9/day", Rate(9, 86400.0)),
    ],
)
def test_a_rate_is_a_count_per_period(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0/second", "50/sec", "50", "50 / second", "-1/day", "1.5/day", "50/second\n"])
def test_anything_else_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize(("text", "thousandths"), [("100m", 100), ("1", 1000), ("0.5", 500), ("2.25", 2250)])
def test_cpu_is_cores_or_thousandths(text: str, thousandths: int) -> None:
    assert parse_cpu(text) == thousandths


@pytest.mark.parametrize("text", ["0", "0.0", "0m", "1.5m", "-1", "1e3", "half", "1\n"])
def test_anything_else_is_no_cpu(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of CPU"):
        parse_cpu(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("128Mi", 128 * 2**20),
        ("1Gi", 2**30),
        ("500M", 500_000_000),
        ("2k", 2000),
        ("3Ki", 3072),
        ("1T", 10**12),
        ("1Ti", 2**40),
    ],
)
def test_memory_is_bytes_with_a_unit(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["0Mi", "128mi", "128MB", "1.5Gi", "Mi", "1KI"])
def test_anything_else_is_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of memory"):
        parse_memory(text)
