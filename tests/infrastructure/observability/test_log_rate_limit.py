"""The rate limit holds back repeats and says how many."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from omnibase_infra.shared.observability.log_rate_limit import MAX_KEYS, ErrorRateLimiter
from omnibase_infra.shared.testing.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def limiter(clock: ManualClock) -> ErrorRateLimiter:
    return ErrorRateLimiter(clock, lines=2, window_seconds=5.0)


def _passes(limiter: ErrorRateLimiter, **event: Any) -> dict[str, Any] | None:
    try:
        return dict(limiter(None, "error", {"level": "error", "event": "e", **event}))
    except structlog.DropEvent:
        return None


def test_the_first_lines_of_a_window_pass(limiter: ErrorRateLimiter) -> None:
    assert [_passes(limiter) is not None for _ in range(4)] == [True, True, False, False]


def test_the_first_line_of_the_next_window_says_how_many_were_held_back(
    limiter: ErrorRateLimiter, clock: ManualClock
) -> None:
    for _ in range(7):
        _passes(limiter)
    clock.advance(5)
    line = _passes(limiter)
    assert line is not None
    assert line["suppressed"] == 5
    assert "suppressed" not in (_passes(limiter) or {})


def test_each_event_and_code_has_its_own_count(limiter: ErrorRateLimiter) -> None:
    for _ in range(5):
        _passes(limiter, code="a")
    assert _passes(limiter, code="b") is not None
    assert _passes(limiter, event="other", code="a") is not None


def test_information_is_never_held_back(limiter: ErrorRateLimiter) -> None:
    assert all(_passes(limiter, level="info") for _ in range(100))


def test_draining_reports_once(limiter: ErrorRateLimiter) -> None:
    for _ in range(5):
        _passes(limiter, code="a")
    assert limiter.drain() == {("e", "a"): 3}
    assert limiter.drain() == {}


def test_codes_without_bound_do_not_grow_memory_without_bound(limiter: ErrorRateLimiter) -> None:
    for number in range(3 * MAX_KEYS):
        assert _passes(limiter, code=str(number)) is not None
    for _ in range(3):
        _passes(limiter, code=str(3 * MAX_KEYS - 1))
    assert len(limiter._windows) == MAX_KEYS
