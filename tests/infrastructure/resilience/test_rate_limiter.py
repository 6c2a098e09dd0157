"""A rate limit lets so many per second pass, a burst after a pause, and remembers a bounded number of clients."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond

from omnibase_infra.shared.core.worker_spec import RateLimitSpec
from omnibase_infra.shared.resilience.rate_limiter import RateLimiter, TokenBucket
from omnibase_infra.shared.testing.manual_clock import ManualClock

FIFTY = RateLimitSpec(per="client", count=50, seconds=1, burst=100)
STEP = 1e-4  # of the times in property tests, so that sums stay exact enough to count on


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def _passed_at_once(limiter: RateLimiter, key: str = "a", tries: int = 1000) -> int:
    return sum(limiter.take(key) for _ in range(tries))


def test_after_a_pause_the_burst_passes_at_once_and_no_more(clock: ManualClock) -> None:
    limiter = RateLimiter(FIFTY, clock)
    assert _passed_at_once(limiter) == 100
    clock.advance(3600)
    assert _passed_at_once(limiter) == 100


def test_after_the_burst_places_come_back_at_the_limits_rate(clock: ManualClock) -> None:
    limiter = RateLimiter(FIFTY, clock)
    _passed_at_once(limiter)
    assert limiter.seconds_until_free("a") == pytest.approx(0.02)
    clock.advance(0.019)
    assert not limiter.take("a")
    clock.advance(0.001)
    assert limiter.take("a")
    assert not limiter.take("a")
    clock.advance(1.0)
    assert _passed_at_once(limiter) == 50


def test_a_refused_try_costs_nothing(clock: ManualClock) -> None:
    limiter = RateLimiter(FIFTY, clock)
    _passed_at_once(limiter)
    before = limiter.seconds_until_free("a")
    _passed_at_once(limiter)
    assert limiter.seconds_until_free("a") == before


def test_each_key_has_its_own_count(clock: ManualClock) -> None:
    limiter = RateLimiter(FIFTY, clock)
    assert _passed_at_once(limiter, "a") == 100
    assert _passed_at_once(limiter, "b") == 100


def test_a_burst_below_the_limits_count_spreads_the_rest_over_its_period(clock: ManualClock) -> None:
    limiter = RateLimiter(RateLimitSpec(per="client", count=600, seconds=60, burst=1), clock)
    assert _passed_at_once(limiter) == 1
    assert limiter.seconds_until_free("a") == pytest.approx(0.1)


def test_reserved_places_follow_one_another_and_later_takers_wait_behind_them(clock: ManualClock) -> None:
    limiter = RateLimiter(FIFTY, clock)
    _passed_at_once(limiter)
    places = []
    for _ in range(5):
        places.append(limiter.seconds_until_free("a"))
        limiter.reserve("a", places[-1])
    assert places == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    clock.advance(0.1)
    assert not limiter.take("a"), "all that came until now is reserved"


def test_those_sent_away_come_back_one_after_another_and_take_no_place(clock: ManualClock) -> None:
    limiter = RateLimiter(FIFTY, clock)
    _passed_at_once(limiter)
    assert [limiter.queue("a", 6.0) for _ in range(3)] == pytest.approx([6.0, 6.02, 6.04])
    assert limiter.seconds_until_free("a") == pytest.approx(0.02)


@st.composite
def _limits_and_gaps(draw: st.DrawFn) -> tuple[RateLimitSpec, list[int]]:
    limit = RateLimitSpec(
        per="client",
        count=draw(st.integers(1, 40)),
        seconds=draw(st.sampled_from([1, 60])),
        burst=draw(st.integers(1, 30)),
    )
    interval = limit.seconds / limit.count / STEP
    gaps = draw(st.lists(st.integers(0, int(interval * 3)), min_size=1, max_size=120))
    return limit, gaps


def _most_in_a_window(passed: Sequence[float], limit: RateLimitSpec) -> float:
    """Return by how much any stretch of time holds more than its share and the burst; 0 or less is right."""
    rate = limit.count / limit.seconds
    return max(
        last - first + 1 - ((passed[last] - passed[first]) * rate + limit.burst)
        for first in range(len(passed))
        for last in range(first, len(passed))
    )


@given(_limits_and_gaps())
def test_in_any_stretch_of_time_at_most_its_share_and_the_burst_pass(drawn: tuple[RateLimitSpec, list[int]]) -> None:
    limit, gaps = drawn
    clock = ManualClock()
    limiter = RateLimiter(limit, clock)
    passed = []
    for gap in gaps:
        clock.advance(gap * STEP)
        if limiter.take("a"):
            passed.append(clock.monotonic())
    assert _most_in_a_window(passed, limit) < 1e-3


@given(_limits_and_gaps(), st.data())
def test_the_same_holds_when_places_are_reserved_and_taken_in_any_order(
    drawn: tuple[RateLimitSpec, list[int]], data: st.DataObject
) -> None:
    limit, gaps = drawn
    clock = ManualClock()
    limiter = RateLimiter(limit, clock)
    passed = []
    for gap in gaps:
        clock.advance(gap * STEP)
        if data.draw(st.booleans()):
            ahead = limiter.seconds_until_free("a") + data.draw(st.sampled_from([0.0, 0.5]))
            limiter.reserve("a", ahead)
            passed.append(clock.monotonic() + ahead)
        elif limiter.take("a"):
            passed.append(clock.monotonic())
    if passed:
        assert _most_in_a_window(sorted(passed), limit) < 1e-3


@given(_limits_and_gaps())
def test_whoever_waits_as_long_as_told_passes(drawn: tuple[RateLimitSpec, list[int]]) -> None:
    limit, gaps = drawn
    clock = ManualClock()
    limiter = RateLimiter(limit, clock)
    for gap in gaps:
        clock.advance(gap * STEP)
        clock.advance(limiter.seconds_until_free("a"))
        assert limiter.take("a")


def test_clients_that_went_away_are_forgotten(clock: ManualClock) -> None:
    bucket, item = TokenBucket(100, clock), RateLimitItemPerSecond(50)
    for number in range(10_000):
        assert bucket.hit(item, f"client-{number}")
        clock.advance(0.001)
    assert len(bucket) < 100, "those of the last 20 ms, and what has not been looked at yet"


def test_however_many_clients_come_at_once_memory_is_bounded(clock: ManualClock) -> None:
    bucket, item = TokenBucket(5, clock, max_keys=50), RateLimitItemPerSecond(50)
    for number in range(1000):
        assert bucket.hit(item, f"client-{number}")
    assert len(bucket) == 50


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 200)), max_size=300))
def test_forgetting_clients_that_are_over_lets_nobody_pass_more(steps: list[tuple[int, int]]) -> None:
    clock = ManualClock()
    forgetful = RateLimiter(RateLimitSpec(per="client", count=20, seconds=1, burst=3), clock)
    fresh: dict[str, RateLimiter] = {}
    for client, gap in steps:
        clock.advance(gap * STEP)
        key = f"client-{client}"
        alone = fresh.setdefault(key, RateLimiter(forgetful.limit, clock))
        assert forgetful.take(key) == alone.take(key)


def test_a_full_memory_forgets_the_client_that_owes_least(clock: ManualClock) -> None:
    bucket, item = TokenBucket(10, clock, max_keys=3), RateLimitItemPerSecond(1)
    for client, hits in (("heavy", 10), ("light", 1), ("middle", 5), ("new", 1)):
        for _ in range(hits):
            assert bucket.hit(item, client)
    assert not bucket.hit(item, "heavy")
    assert bucket.get_window_stats(item, "light").remaining == 10


def test_it_answers_the_librarys_own_questions(clock: ManualClock) -> None:
    bucket, item = TokenBucket(100, clock), RateLimitItemPerSecond(50)
    assert bucket.test(item, "a", cost=100)
    assert not bucket.test(item, "a", cost=101)
    assert bucket.hit(item, "a", cost=99)
    assert bucket.get_window_stats(item, "a") == (0.0, 1)
    assert bucket.hit(item, "a")
    empty = bucket.get_window_stats(item, "a")
    assert empty.reset_time == pytest.approx(0.02)
    assert empty.remaining == 0
    bucket.clear(item, "a")
    assert bucket.get_window_stats(item, "a") == (0.0, 100)


def test_it_starts_no_thread(clock: ManualClock) -> None:
    before = threading.active_count()
    _passed_at_once(RateLimiter(FIFTY, clock))
    assert threading.active_count() == before


def test_a_wall_clock_that_jumps_changes_nothing() -> None:
    class Jumping(ManualClock):
        def time(self) -> float:
            raise AssertionError("only monotonic time counts")

    assert _passed_at_once(RateLimiter(FIFTY, Jumping())) == 100


def test_the_library_is_loaded_only_where_a_contract_has_limits() -> None:
    code = (
        "import sys, omnibase_infra.shared.runtime.worker, omnibase_infra.shared.runtime.rate_gate;"
        "print('limits' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
