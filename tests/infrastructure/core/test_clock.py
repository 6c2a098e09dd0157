"""Time as the wire writes it: RFC 3339, UTC, microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.clock import SystemClock, parse_rfc3339, rfc3339

moments = st.integers(0, 32_500_000_000_000_000).map(
    lambda micros: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
)


@given(moments)
def test_a_written_time_reads_back_to_the_microsecond(moment: datetime) -> None:
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)

    assert parse_rfc3339(rfc3339(seconds)) == moment.replace(microsecond=0)
    assert parse_rfc3339(moment.isoformat()) == moment


def test_time_is_written_in_utc_with_microseconds() -> None:
    assert rfc3339(0.000001) == "1970-01-01T00:00:00.000001Z"
    assert rfc3339(1_700_000_000) == "2023-11-14T22:13:20.000000Z"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.123456Z", datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2026-01-31T12:00:00-07:30", datetime(2026, 1, 31, 12, tzinfo=timezone(-timedelta(hours=7, minutes=30)))),
    ],
)
def test_the_forms_of_rfc_3339_are_read(text: str, moment: datetime) -> None:
    assert parse_rfc3339(text) == moment


def test_nanoseconds_of_other_producers_are_read() -> None:
    assert abs(parse_rfc3339("2026-01-31T12:00:00.123456789Z").microsecond - 123456) <= 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12Z",
        "20260131T120000Z",
        "2026-W05-6T12:00:00Z",
        "2026-01-31X12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T12:00:00,5Z",
        "2026-01-31T12:00:00+00:00:30",
        "1769860800",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not RFC 3339|has no time zone"):
        parse_rfc3339(text)


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic() for _ in range(1000)]

    assert readings == sorted(readings)
    assert abs(clock.time() - datetime.now(UTC).timestamp()) < 5
