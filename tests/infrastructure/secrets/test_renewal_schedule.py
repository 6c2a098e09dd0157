"""When secrets are looked after: before they end, apart from one another, and sooner the less time is left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.secrets.renewal_schedule import is_running_out, refresh_delay, renewal_delay, retry_delay

chances = st.floats(0, 1, exclude_max=True)


@given(st.floats(1, 1e7), chances)
def test_a_lease_is_renewed_with_a_third_of_its_time_left(seconds: float, chance: float) -> None:
    assert 0.5 * seconds < renewal_delay(seconds, chance) <= seconds * 2 / 3


@given(st.floats(1, 1e6), chances)
def test_what_has_no_end_is_read_again_on_the_interval_give_or_take_a_tenth(seconds: float, chance: float) -> None:
    assert 0.9 * seconds <= refresh_delay(seconds, chance) <= 1.1 * seconds + 1e-6


@given(st.integers(1, 10_000), st.none() | st.floats(-100, 1e6), chances)
def test_a_failure_is_tried_again_soon_and_never_at_once(failures: int, left: float | None, chance: float) -> None:
    delay = retry_delay(failures, left, chance)
    assert 0.5 <= delay <= 30
    if left is not None:
        assert delay <= max(1, left / 4)


def test_a_lease_near_its_longest_time_is_replaced() -> None:
    assert is_running_out(10, 60)
    assert not is_running_out(55, 60)
