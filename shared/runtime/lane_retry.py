"""Attempts of records in their lanes: the contract's number of them, at a rate that the worker's retry budget bounds.

While much fails, waits grow until retries are no more than their share of what succeeds. No attempt is taken away: a
record is parked or dead after as many as its contract says, only later.
"""

from __future__ import annotations

from typing import Final, Self

import backoff

from omnibase_infra.shared.core.worker_spec import RetrySpec
from omnibase_infra.shared.observability.worker_metrics import RetryMetrics
from omnibase_infra.shared.resilience.retry_budget import BudgetOptions, RetryBudget
from omnibase_infra.shared.resilience.retry_policy import (
    IN_LANE_BASE_SECONDS,
    IN_LANE_CAP_SECONDS,
    RetryPolicy,
    Spread,
)

# As `dependency` in the metrics of retries.
IN_LANE: Final = "in-lane"
# A tenth on top of the batches that succeed, ten a second whatever happens, a hundred at once after a quiet time.
IN_LANE_BUDGET: Final = BudgetOptions(ratio=0.1, floor=10.0, burst=100.0)
# Longer waits would hold up a shutdown and the keys behind; `retry.tiers` are for those.
LONGEST_WAIT_SECONDS: Final = 5.0


class LaneRetry(RetryPolicy, frozen=True, kw_only=True):
    """The in-lane attempts of a contract under a budget. A batch that is tried again as a whole is one retry."""

    budget: RetryBudget
    metrics: RetryMetrics

    @classmethod
    def of_contract(cls, spec: RetrySpec, budget: RetryBudget, metrics: RetryMetrics) -> Self:
        """Return the retries of a worker."""
        return cls(
            attempts=max(1, spec.in_lane),
            base=IN_LANE_BASE_SECONDS,
            cap=IN_LANE_CAP_SECONDS,
            jitter=spec.jitter,
            budget=budget,
            metrics=metrics,
        )

    def delay(self, attempt: int, spread: Spread = backoff.full_jitter) -> float:
        """Return the seconds to wait after the failed attempt number `attempt`; takes a retry from the budget."""
        self.metrics.retries.inc()
        # Added, not the larger of both: those that wait for the budget would all come at its time.
        return super().delay(attempt, spread) + self.budget.reserve(LONGEST_WAIT_SECONDS)
