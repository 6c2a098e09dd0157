"""However calls fail, retries stay a share of them: a budget never lets an outage be multiplied."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.errors import ConfigurationError, DependencyUnavailableError
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import RetryMetrics
from omnibase_infra.shared.resilience.retry_budget import BudgetOptions, RetryBudget
from omnibase_infra.shared.resilience.retry_policy import RetryOptions, RetryPolicy, retrying
from omnibase_infra.shared.testing.manual_clock import ManualClock

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 50)),
        st.tuples(st.just("retry"), st.integers(1, 20)),
        st.tuples(st.just("wait"), st.integers(0, 20)),
    ),
    max_size=60,
)
OPTIONS = st.builds(
    BudgetOptions,
    ratio=st.sampled_from((0.0, 0.1, 0.5)),
    floor=st.sampled_from((0.0, 0.5, 2.0)),
    burst=st.integers(1, 9),
)


@given(OPTIONS, STEPS)
def test_retries_are_never_more_than_their_share_the_floor_and_the_burst(
    options: BudgetOptions, steps: list[tuple[str, int]]
) -> None:
    clock = ManualClock()
    budget = RetryBudget(options, clock=clock)
    calls = retries = 0
    for step, count in steps:
        if step == "call":
            budget.called(count)
            calls += count
        elif step == "wait":
            clock.advance(count)
        else:
            retries += sum(budget.spend() for _ in range(count))
        allowed = options.ratio * calls + options.floor * clock.monotonic() + options.burst
        assert retries <= allowed + 1e-6
        assert budget.left <= options.burst


@given(OPTIONS, st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_who_must_retry_waits_its_turn_and_never_longer_than_the_longest(
    options: BudgetOptions, gaps: list[int]
) -> None:
    clock = ManualClock()
    budget = RetryBudget(options, clock=clock)
    starts: list[float] = []
    for gap in gaps:
        clock.advance(gap)
        wait = budget.reserve(5.0)
        assert 0 <= wait <= 5.0
        if wait < 5.0:  # who waits the longest may be beyond the budget, and says so in the metrics
            starts.append(clock.monotonic() + wait)
    for start in starts:
        made = sum(other <= start for other in starts)
        assert made <= options.floor * start + options.burst + 1e-6


def test_a_quiet_process_gets_its_retries_back() -> None:
    clock = ManualClock()
    budget = RetryBudget(BudgetOptions(floor=2.0, burst=4), clock=clock)
    assert [budget.spend() for _ in range(5)] == [True] * 4 + [False]
    clock.advance(1)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    clock.advance(3600)
    assert budget.left == 4


def test_threads_share_it() -> None:
    budget = RetryBudget(BudgetOptions(floor=0.0, burst=500))
    got: list[int] = []

    def spend() -> None:
        got.append(sum(budget.spend() for _ in range(300)))

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(got) == 500


async def test_during_an_outage_a_thousand_calls_make_a_tenth_more_attempts_and_not_four_times_as_many() -> None:
    clock = ManualClock()
    registry = MetricsRegistry(process_metrics=False)
    metrics = RetryMetrics(registry, "shop", "carrier")
    budget = RetryBudget(BudgetOptions(ratio=0.1, floor=1.0, burst=10), clock=clock, metrics=metrics)
    policy = RetryPolicy(attempts=4, base=0.001, cap=0.001)
    options = RetryOptions(budget=budget, metrics=metrics, spread=lambda _: 0.0)
    attempts = 0

    async def call() -> None:
        nonlocal attempts
        attempts += 1
        raise DependencyUnavailableError("down", dependency="carrier")

    for _ in range(1000):
        with pytest.raises(DependencyUnavailableError, match="down"):
            await retrying(call, policy, dependency="carrier", options=options)
    assert 1100 <= attempts <= 1000 + 0.1 * 1000 + 10
    page = registry.exposition().decode()
    assert f'omnibase_retries_total{{dependency="carrier",worker="shop"}} {attempts - 1000}.0' in page
    assert 'omnibase_retry_budget_left{dependency="carrier",worker="shop"} 0.' in page
    given_up = metrics.given_up["budget"]._value.get() + metrics.given_up["attempts"]._value.get()
    assert given_up == 1000
    assert metrics.budget_exhausted._value.get() == metrics.given_up["budget"]._value.get() > 890


@pytest.mark.parametrize("options", [{"ratio": 1.1}, {"ratio": -0.1}, {"floor": -1.0}, {"burst": 0.5}])
def test_a_budget_that_cannot_work_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="a retry budget needs"):
        BudgetOptions(**options)
