"""Attempts in lanes: as many as the contract says, at a rate that stays a share of what succeeds."""

from __future__ import annotations

import pytest

from omnibase_infra.shared.core.worker_spec import RetrySpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import RetryMetrics
from omnibase_infra.shared.resilience.retry_budget import BudgetOptions, RetryBudget
from omnibase_infra.shared.runtime.dependencies import DependencyGate
from omnibase_infra.shared.runtime.lane_retry import IN_LANE, LONGEST_WAIT_SECONDS, LaneRetry
from omnibase_infra.shared.testing.manual_clock import ManualClock


class Worker:
    """The retries of a worker and the gate that its batches pass."""

    def __init__(self, spec: RetrySpec, options: BudgetOptions) -> None:
        self.clock = ManualClock()
        self.registry = MetricsRegistry(process_metrics=False)
        metrics = RetryMetrics(self.registry, "shop", IN_LANE)
        self.budget = RetryBudget(options, clock=self.clock, metrics=metrics)
        self.retry = LaneRetry.of_contract(spec, self.budget, metrics)
        self.gate = DependencyGate([], lambda: None, self.budget)

    def batches_succeed(self, count: int) -> None:
        for _ in range(count):
            passage = self.gate.enter()
            assert passage is not None
            passage.succeeded()


SPEC = RetrySpec(in_lane=3, jitter="none")
TIGHT = BudgetOptions(ratio=0.1, floor=1.0, burst=2)


def test_attempts_and_waits_are_the_contracts_while_the_budget_lasts() -> None:
    worker = Worker(SPEC, TIGHT)
    assert [worker.retry.allows(attempt) for attempt in (1, 2, 3)] == [True, True, False]
    assert [worker.retry.delay(1), worker.retry.delay(2)] == [0.05, 0.1]


def test_beyond_the_budget_retries_wait_one_after_another_and_never_longer_than_the_longest() -> None:
    worker = Worker(SPEC, TIGHT)
    waits = [worker.retry.delay(1) - 0.05 for _ in range(20)]
    assert waits[:6] == pytest.approx([0, 0, 1, 2, 3, 4])
    assert max(waits) == pytest.approx(LONGEST_WAIT_SECONDS)
    page = worker.registry.exposition().decode()
    assert 'omnibase_retries_total{dependency="in-lane",worker="shop"} 20.0' in page
    assert 'omnibase_retry_budget_exhausted_total{dependency="in-lane",worker="shop"} 18.0' in page


def test_batches_that_succeed_let_a_tenth_of_them_be_tried_again_at_once() -> None:
    worker = Worker(SPEC, BudgetOptions(ratio=0.1, floor=1.0, burst=10))
    while worker.budget.left >= 1:
        worker.budget.spend()
    worker.batches_succeed(55)
    assert [worker.retry.delay(1) for _ in range(5)] == [0.05] * 5
    assert worker.retry.delay(1) > 0.05
