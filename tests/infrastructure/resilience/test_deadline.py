"""A deadline is one point in time for all that belongs to a piece of work."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.errors import ConfigurationError, DependencyUnavailableError
from omnibase_infra.shared.resilience.deadline import Deadline
from omnibase_infra.shared.testing.manual_clock import ManualClock


@given(st.lists(st.floats(0, 10), max_size=20), st.floats(0.1, 30))
def test_whatever_the_steps_take_together_they_get_no_more_than_the_whole(steps: list[float], total: float) -> None:
    clock = ManualClock()
    deadline = Deadline.after(total, clock)
    for step in steps:
        allowed = deadline.within(step)
        assert 0 <= allowed <= step
        clock.advance(allowed)
    assert clock.monotonic() <= total + 1e-9
    assert deadline.expired == (deadline.remaining == 0)


def test_a_part_ends_sooner_and_never_later() -> None:
    clock = ManualClock()
    deadline = Deadline.after(10, clock)
    assert deadline.sooner(3).remaining == 3
    assert deadline.sooner(60).remaining == 10
    clock.advance(11)
    assert deadline.sooner(3).expired


def test_a_deadline_in_the_past_is_refused() -> None:
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="lies ahead"):
            Deadline.after(seconds)


async def test_what_takes_longer_is_ended_and_named() -> None:
    with pytest.raises(DependencyUnavailableError, match=r"the carrier did not answer within 0\.0\d+ s") as raised:
        async with Deadline.after(0.02).enforced("the carrier did not answer", dependency="carrier"):
            await asyncio.Event().wait()
    assert raised.value.dependency == "carrier"


async def test_time_outs_and_cancellations_of_others_are_not_taken_for_its_own() -> None:
    with pytest.raises(TimeoutError, match="the driver's own"):
        async with Deadline.after(10).enforced("nothing", dependency="carrier"):
            raise TimeoutError("the driver's own")

    async def wait() -> None:
        async with Deadline.after(10).enforced("nothing", dependency="carrier"):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
