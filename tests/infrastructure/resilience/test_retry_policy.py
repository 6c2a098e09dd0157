"""Schedules of waits, and the bounded loop for connections at start-up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from omnibase_infra.shared.core.errors import (
    BreakerOpenError,
    BusinessError,
    ConfigurationError,
    DependencyUnavailableError,
    RateLimitedError,
    SchemaMissingError,
    TransientError,
)
from omnibase_infra.shared.core.worker_spec import RetrySpec
from omnibase_infra.shared.resilience.retry_policy import (
    RETRY_PRESETS,
    Jitter,
    RetryOptions,
    RetryPolicy,
    retrying,
    retrying_in_thread,
)
from omnibase_infra.shared.resilience.service_kinds import ServiceKind

QUICK = RetryPolicy(attempts=4, base=0.001, cap=0.004)
DOWN = DependencyUnavailableError("no route", dependency="postgres")


def _whole(ceiling: float) -> float:
    return ceiling


def _nothing(_: float) -> float:
    return 0.0


# -- schedules -----------------------------------------------------------------------------------------------------------


def test_waits_double_up_to_the_cap() -> None:
    policy = RetryPolicy(attempts=10, base=0.5, cap=5.0, jitter="none")
    assert [policy.delay(attempt) for attempt in range(1, 8)] == [0.5, 1, 2, 4, 5, 5, 5]


@pytest.mark.parametrize(("jitter", "low", "high"), [("none", 2, 2), ("equal", 1, 2), ("full", 0, 2)])
def test_jitter_moves_a_wait_between_its_bounds(jitter: Jitter, low: float, high: float) -> None:
    policy = RetryPolicy(attempts=5, base=0.5, cap=5.0, jitter=jitter)
    assert policy.delay(3, spread=_nothing) == low
    assert policy.delay(3, spread=_whole) == high


@given(
    base=st.floats(0.001, 10),
    factor=st.floats(1, 1_000),
    attempt=st.integers(1, 10_000),
    jitter=st.sampled_from(get_args(Jitter)),
)
def test_no_wait_is_negative_or_above_the_cap(base: float, factor: float, attempt: int, jitter: Jitter) -> None:
    policy = RetryPolicy(3, base, base * factor, jitter)
    assert 0 <= policy.delay(attempt) <= policy.cap
    assert policy.delay(attempt, spread=_whole) <= policy.delay(attempt + 1, spread=_whole)


def test_attempts_are_counted_from_one_and_include_the_first() -> None:
    policy = RetryPolicy(attempts=3, base=1.0, cap=1.0)
    assert [policy.allows(attempt) for attempt in (1, 2, 3, 4)] == [True, True, False, False]
    assert not RetryPolicy(attempts=1, base=1.0, cap=1.0).allows(1)


@pytest.mark.parametrize(("in_lane", "attempts"), [(3, 3), (1, 1), (0, 1)])
def test_a_contract_gives_attempts_and_jitter(in_lane: int, attempts: int) -> None:
    policy = RetryPolicy.from_spec(RetrySpec(in_lane=in_lane, jitter="equal"))
    assert (policy.attempts, policy.jitter) == (attempts, "equal")
    assert policy.delay(1, spread=_whole) < policy.delay(2, spread=_whole) <= policy.cap <= 1.0


@pytest.mark.parametrize(("attempts", "base", "cap"), [(0, 1, 1), (1, 0, 1), (1, 2, 1), (1, -1, 1)])
def test_a_policy_that_cannot_work_is_refused(attempts: int, base: float, cap: float) -> None:
    with pytest.raises(ConfigurationError, match="a retry policy needs"):
        RetryPolicy(attempts, base, cap)


def test_every_kind_of_service_has_a_preset() -> None:
    assert set(RETRY_PRESETS) == set(get_args(ServiceKind))
    for policy in RETRY_PRESETS.values():
        assert policy.attempts > 1
        assert policy.cap <= policy.total_seconds <= 60


REFUSED = BusinessError("no", code="no")


@pytest.mark.parametrize(
    ("policy", "covered", "not_covered"),
    [
        (
            QUICK,
            [DOWN, TransientError("deadlock", dependency="postgres")],
            [REFUSED, ValueError("a bug"), OSError("x")],
        ),
        (RetryPolicy(2, 1, 1, retry_on=(OSError,)), [OSError("gone"), TimeoutError()], [DOWN, ValueError("a bug")]),
        (RetryPolicy(2, 1, 1, give_up_on=(TransientError,)), [DOWN], [TransientError("no", dependency="postgres")]),
        (RetryPolicy(2, 1, 1, retry_on=(OSError,), give_up_on=(TimeoutError,)), [OSError("gone")], [TimeoutError()]),
        (RetryPolicy(2, 1, 1, retry_on=(BaseException,)), [ValueError("x")], [asyncio.CancelledError(), SystemExit()]),
        (QUICK, [], [BreakerOpenError("open", dependency="postgres", retry_in_seconds=1), RateLimitedError("full")]),
    ],
    ids=["default", "retry_on", "give_up_on", "both", "never a cancellation", "no pointless ones"],
)
def test_error_classes_say_what_is_tried_again(
    policy: RetryPolicy, covered: list[BaseException], not_covered: list[BaseException]
) -> None:
    assert all(policy.covers(error) for error in covered)
    assert not any(policy.covers(error) for error in not_covered)


# -- the loop ------------------------------------------------------------------------------------------------------------


class Attempts:
    """Answers calls with the given outcomes, in order, the last one for ever."""

    def __init__(self, *outcomes: BaseException | str) -> None:
        self._outcomes = list(outcomes)
        self.made = 0

    async def __call__(self) -> str:
        outcome = self._outcomes[min(self.made, len(self._outcomes) - 1)]
        self.made += 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def _retrying(call: Callable[[], Awaitable[str]], total_seconds: float = 30.0) -> str:
    return await retrying(
        call, QUICK, dependency="postgres", total_seconds=total_seconds, options=RetryOptions(spread=_nothing)
    )


async def test_it_returns_the_first_success() -> None:
    call = Attempts(DOWN, TransientError("starting up", dependency="postgres"), "connected")
    assert await _retrying(call) == "connected"
    assert call.made == 3


async def test_when_attempts_are_used_up_the_last_error_is_raised() -> None:
    call = Attempts(DOWN)
    with pytest.raises(DependencyUnavailableError) as raised:
        await _retrying(call)
    assert raised.value is DOWN
    assert call.made == QUICK.attempts


@pytest.mark.parametrize("error", [SchemaMissingError("no table"), ValueError("a bug")])
async def test_an_error_that_more_attempts_cannot_cure_ends_it_at_once(error: Exception) -> None:
    call = Attempts(error)
    with pytest.raises(type(error)) as raised:
        await _retrying(call)
    assert raised.value is error
    assert call.made == 1


async def test_an_attempt_that_hangs_ends_with_the_total_time() -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(DependencyUnavailableError, match=r"postgres could not be reached within 0\.05 s") as raised:
        await _retrying(hang, total_seconds=0.05)
    assert isinstance(raised.value.__cause__, TimeoutError)


async def test_the_total_time_bounds_the_waits_and_names_the_last_error() -> None:
    patient = RetryPolicy(attempts=100, base=60.0, cap=60.0, jitter="none")
    with pytest.raises(DependencyUnavailableError, match="could not be reached") as raised:
        await retrying(Attempts(DOWN), patient, dependency="postgres", total_seconds=0.05)
    assert raised.value.__cause__ is DOWN


async def test_a_time_out_of_the_work_itself_is_not_taken_for_ours() -> None:
    with pytest.raises(TimeoutError, match="the driver's own"):
        await _retrying(Attempts(TimeoutError("the driver's own")))


async def test_it_can_be_cancelled_while_it_waits() -> None:
    patient = RetryPolicy(attempts=100, base=60.0, cap=60.0, jitter="none")
    call = Attempts(DOWN)
    task = asyncio.create_task(retrying(call, patient, dependency="postgres", total_seconds=600))
    while call.made == 0:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.made == 1


async def test_each_retry_is_logged_with_its_reason_and_wait() -> None:
    with capture_logs() as lines:
        await _retrying(Attempts(DOWN, DOWN, "connected"))
    assert [(line["event"], line["attempt"], line["wait_seconds"], line["error"]) for line in lines] == [
        ("connection_retry", 1, 0.0, DOWN),
        ("connection_retry", 2, 0.0, DOWN),
    ]


# -- for clients that block ----------------------------------------------------------------------------------------------


def _blocking(*outcomes: BaseException | str) -> Callable[[], str]:
    left = list(outcomes)

    def call() -> str:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return call


def test_a_blocking_client_is_tried_again_likewise() -> None:
    options = RetryOptions(spread=_nothing)
    assert retrying_in_thread(_blocking(DOWN, DOWN, "yes"), QUICK, dependency="postgres", options=options) == "yes"
    with pytest.raises(DependencyUnavailableError) as raised:
        retrying_in_thread(_blocking(DOWN), QUICK, dependency="postgres", options=options)
    assert raised.value is DOWN
    with pytest.raises(ValueError, match="a bug"):
        retrying_in_thread(_blocking(ValueError("a bug"), "yes"), QUICK, dependency="postgres")


def test_no_blocking_attempt_begins_after_the_total_time_and_no_wait_goes_beyond_it() -> None:
    patient = RetryPolicy(attempts=1000, base=60.0, cap=60.0, jitter="none")
    started = time.monotonic()
    with pytest.raises(DependencyUnavailableError, match="no route"):
        retrying_in_thread(_blocking(DOWN), patient, dependency="postgres", total_seconds=0.05)
    assert 0.05 <= time.monotonic() - started < 5


def test_errors_that_only_their_content_tells_apart_are_told_apart_by_a_function() -> None:
    options = RetryOptions(spread=_nothing, when=lambda error: "busy" in str(error))
    call = _blocking(ValueError("busy"), ValueError("busy"), ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        retrying_in_thread(call, QUICK, dependency="kafka", options=options)
