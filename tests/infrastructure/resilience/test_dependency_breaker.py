"""The breaker of a dependency: outages open it, one probe at a time closes it, cancellation leaves no trace."""

from __future__ import annotations

import asyncio

import pytest

from omnibase_infra.shared.core.errors import (
    BusinessError,
    ConfigurationError,
    DependencyUnavailableError,
    TransientError,
)
from omnibase_infra.shared.resilience.dependency_breaker import BreakerChange, BreakerPreset, DependencyBreaker
from omnibase_infra.shared.testing.manual_clock import ManualClock

DOWN = DependencyUnavailableError("no route", dependency="postgres")
PRESET = BreakerPreset(fail_max=3, reset_seconds=1.0, cap_seconds=8.0, jitter=0.0, probe_timeout_seconds=60.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> DependencyBreaker:
    return DependencyBreaker("postgres", PRESET, clock=clock)


def _state(breaker: DependencyBreaker) -> str:
    """Read the state afresh: a type checker takes a property that was compared once for settled."""
    return breaker.state


def _fail(breaker: DependencyBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.record_failure(breaker.permit(), DOWN)


def _open(breaker: DependencyBreaker) -> None:
    _fail(breaker, PRESET.fail_max)
    assert _state(breaker) == "open"


def _half_open(breaker: DependencyBreaker, clock: ManualClock) -> None:
    """Leave it half-open with a free gate."""
    _open(breaker)
    clock.advance(breaker.seconds_until_probe)
    breaker.release(breaker.permit())
    assert _state(breaker) == "half-open"


# -- closed --------------------------------------------------------------------------------------------------------------


def test_a_closed_breaker_lets_any_number_through(breaker: DependencyBreaker) -> None:
    permits = [breaker.permit() for _ in range(100)]
    assert all(permit.granted and not permit.probe for permit in permits)
    assert breaker.seconds_until_probe == 0


def test_availability_failures_in_a_row_open_it(breaker: DependencyBreaker) -> None:
    _fail(breaker, 2)
    assert _state(breaker) == "closed"
    _fail(breaker)
    assert _state(breaker) == "open"


def test_a_success_in_between_starts_the_count_again(breaker: DependencyBreaker) -> None:
    _fail(breaker, 2)
    breaker.record_success(breaker.permit())
    _fail(breaker, 2)
    assert _state(breaker) == "closed"


@pytest.mark.parametrize(
    "error",
    [
        TransientError("deadlock", dependency="postgres"),
        BusinessError("twice", code="constraint-violated"),
        DependencyUnavailableError("another one is down", dependency="vault"),
        ValueError("a bug"),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_neither_open_nor_heal(breaker: DependencyBreaker, error: BaseException) -> None:
    _fail(breaker, 2)
    for _ in range(50):
        breaker.record_failure(breaker.permit(), error)
    assert _state(breaker) == "closed"
    _fail(breaker)
    assert _state(breaker) == "open"


def test_the_error_that_trips_it_keeps_its_identity_and_traceback(breaker: DependencyBreaker) -> None:
    error = DependencyUnavailableError("no route", dependency="postgres")
    for _ in range(PRESET.fail_max):
        breaker.record_failure(breaker.permit(), error)
    assert error.__traceback__ is None
    assert error.__context__ is None


# -- open ----------------------------------------------------------------------------------------------------------------


def test_an_open_breaker_lets_nothing_through_and_says_when_to_ask_again(
    breaker: DependencyBreaker, clock: ManualClock
) -> None:
    _open(breaker)
    clock.advance(0.25)
    permit = breaker.permit()
    assert (permit.granted, permit.probe, permit.retry_in) == (False, False, 0.75)
    assert breaker.seconds_until_probe == 0.75
    assert _state(breaker) == "open"


def test_outcomes_of_work_that_began_before_the_trip_are_ignored(
    breaker: DependencyBreaker, clock: ManualClock
) -> None:
    early = [breaker.permit() for _ in range(3)]
    _open(breaker)
    breaker.record_success(early[0])
    assert _state(breaker) == "open"

    clock.advance(1)
    probe = breaker.permit()
    breaker.record_failure(early[1], DOWN)
    breaker.record_success(early[2])
    breaker.release(early[2])
    assert _state(breaker) == "half-open"
    assert not breaker.permit().granted

    breaker.record_success(probe)
    assert _state(breaker) == "closed"


def test_a_refused_permit_has_no_outcome(breaker: DependencyBreaker, clock: ManualClock) -> None:
    _open(breaker)
    refused = breaker.permit()
    breaker.record_success(refused)
    breaker.record_failure(refused, DOWN)
    breaker.release(refused)
    assert _state(breaker) == "open"
    assert breaker.seconds_until_probe == 1.0


# -- half-open -----------------------------------------------------------------------------------------------------------


def test_when_due_exactly_one_probe_is_let_through(breaker: DependencyBreaker, clock: ManualClock) -> None:
    _open(breaker)
    clock.advance(1)
    permits = [breaker.permit() for _ in range(10)]
    assert [permit.granted for permit in permits] == [True] + [False] * 9
    assert permits[0].probe
    assert _state(breaker) == "half-open"


def test_a_probe_that_succeeds_closes_it(breaker: DependencyBreaker, clock: ManualClock) -> None:
    _open(breaker)
    clock.advance(1)
    breaker.record_success(breaker.permit())
    assert _state(breaker) == "closed"
    assert all(breaker.permit().granted for _ in range(10))
    _fail(breaker, 2)
    assert _state(breaker) == "closed"


def test_each_probe_that_fails_makes_the_next_one_wait_longer_up_to_the_cap(
    breaker: DependencyBreaker, clock: ManualClock
) -> None:
    _open(breaker)
    waits = []
    for _ in range(6):
        waits.append(breaker.seconds_until_probe)
        clock.advance(waits[-1])
        _fail(breaker)
        assert _state(breaker) == "open"
    assert waits == [1, 2, 4, 8, 8, 8]


def test_after_a_recovery_the_waits_start_small_again(breaker: DependencyBreaker, clock: ManualClock) -> None:
    _open(breaker)
    for _ in range(4):
        clock.advance(breaker.seconds_until_probe)
        _fail(breaker)
    clock.advance(breaker.seconds_until_probe)
    breaker.record_success(breaker.permit())
    _open(breaker)
    assert breaker.seconds_until_probe == 1


def test_a_long_outage_does_not_overflow(breaker: DependencyBreaker, clock: ManualClock) -> None:
    _open(breaker)
    for _ in range(2_000):
        clock.advance(breaker.seconds_until_probe)
        _fail(breaker)
    assert breaker.seconds_until_probe == PRESET.cap_seconds


def test_a_released_probe_counts_neither_way_and_frees_the_gate(breaker: DependencyBreaker, clock: ManualClock) -> None:
    _open(breaker)
    clock.advance(1)
    probe = breaker.permit()
    breaker.release(probe)
    breaker.release(probe)
    assert _state(breaker) == "half-open"

    second = breaker.permit()
    assert second.granted
    breaker.record_success(probe)
    breaker.record_failure(probe, DOWN)
    breaker.release(probe)
    assert _state(breaker) == "half-open"
    assert not breaker.permit().granted
    breaker.record_success(second)
    assert _state(breaker) == "closed"


@pytest.mark.parametrize("error", [TransientError("deadlock", dependency="postgres"), ValueError("a bug")])
def test_a_probe_that_ends_in_another_error_neither_closes_nor_opens_it(
    breaker: DependencyBreaker, clock: ManualClock, error: Exception
) -> None:
    _half_open(breaker, clock)
    breaker.record_failure(breaker.permit(), error)
    assert _state(breaker) == "half-open"
    assert breaker.permit().granted


def test_a_probe_without_an_outcome_counts_as_failed_in_the_end(breaker: DependencyBreaker, clock: ManualClock) -> None:
    _half_open(breaker, clock)
    lost = breaker.permit()
    clock.advance(59)
    assert breaker.permit().retry_in == 1
    clock.advance(1)
    assert not breaker.permit().granted
    assert _state(breaker) == "open"
    assert breaker.seconds_until_probe == 2

    clock.advance(2)
    probe = breaker.permit()
    assert probe.granted
    breaker.record_success(lost)
    assert _state(breaker) == "half-open"


async def test_a_cancelled_probe_under_asyncio_leaves_the_breaker_half_open(
    breaker: DependencyBreaker, clock: ManualClock
) -> None:
    _open(breaker)
    clock.advance(1)
    started = asyncio.Event()

    async def work() -> None:
        permit = breaker.permit()
        assert permit.granted
        try:
            started.set()
            await asyncio.Event().wait()
        except DependencyUnavailableError as error:
            breaker.record_failure(permit, error)
            raise
        else:
            breaker.record_success(permit)
        finally:
            breaker.release(permit)

    task = asyncio.create_task(work())
    await started.wait()
    assert not breaker.permit().granted
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _state(breaker) == "half-open"
    assert breaker.permit().granted


# -- listeners, jitter, presets --------------------------------------------------------------------------------------------


def test_listeners_see_every_change_once_with_the_state_already_changed(
    breaker: DependencyBreaker, clock: ManualClock
) -> None:
    seen: list[tuple[BreakerChange, str]] = []
    breaker.on_change(lambda change: seen.append((change, breaker.state)))
    _open(breaker)
    clock.advance(1)
    _fail(breaker)
    clock.advance(2)
    breaker.record_success(breaker.permit())

    assert all(change.new == state for change, state in seen)
    assert [(change.old, change.new, change.retry_in, change.code) for change, _ in seen] == [
        ("closed", "open", 1.0, "dependency-unavailable"),
        ("open", "half-open", 0.0, ""),
        ("half-open", "open", 2.0, "dependency-unavailable"),
        ("open", "half-open", 0.0, ""),
        ("half-open", "closed", 0.0, ""),
    ]
    assert {change.dependency for change, _ in seen} == {"postgres"}


def test_a_listener_that_raises_is_heard_and_the_state_is_still_right(breaker: DependencyBreaker) -> None:
    def broken(_: BreakerChange) -> None:
        raise RuntimeError("listener")

    breaker.on_change(broken)
    _fail(breaker, 2)
    with pytest.raises(RuntimeError, match="listener"):
        _fail(breaker)
    assert _state(breaker) == "open"
    assert not breaker.permit().granted


@pytest.mark.parametrize(("random", "wait"), [(0.0, 10.0), (0.5, 9.0), (1.0, 8.0)])
def test_jitter_shortens_the_wait_by_up_to_its_share(clock: ManualClock, random: float, wait: float) -> None:
    preset = BreakerPreset(fail_max=1, reset_seconds=10.0, cap_seconds=10.0, jitter=0.2)
    breaker = DependencyBreaker("postgres", preset, clock=clock, uniform=lambda: random)
    _fail(breaker)
    assert breaker.seconds_until_probe == pytest.approx(wait)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fail_max": 0},
        {"reset_seconds": 0.0},
        {"reset_seconds": 9.0},
        {"growth": 0.5},
        {"jitter": 1.0},
        {"probe_timeout_seconds": 0.0},
    ],
    ids=str,
)
def test_a_preset_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    settings = {"fail_max": 3, "reset_seconds": 1.0, "cap_seconds": 8.0} | wrong
    with pytest.raises(ConfigurationError, match="a breaker needs"):
        BreakerPreset(**settings)  # type: ignore[arg-type]
