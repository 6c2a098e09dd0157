"""How many retries a process may add to its calls: a share of them and a little, so that an outage is not multiplied.

Three attempts each turn a server that is slow into one that gets three times its load. A budget lets through a tenth
more than there are calls, and so many per second that a quiet process may still try again.
"""

from __future__ import annotations

from threading import Lock

import msgspec

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.observability.worker_metrics import RetryMetrics


class BudgetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a budget fills.

    Attributes:
        ratio: retries that each call adds; 0.1 is a tenth on top.
        floor: retries per second that are added whether there are calls or not.
        burst: retries it holds at most, and holds at the start.
    """

    ratio: float = 0.1
    floor: float = 1.0
    burst: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1 or self.floor < 0 or self.burst < 1:
            raise ConfigurationError("a retry budget needs 0 <= ratio <= 1, floor >= 0 per second and burst >= 1")


class RetryBudget:
    """A token bucket of retries. In any time at most `ratio * calls + floor * seconds + burst` of them. Any thread.

    Args:
        options: how it fills.
        clock: for tests; default: the machine's.
        metrics: show what is left, and count what was refused.
    """

    def __init__(
        self,
        options: BudgetOptions | None = None,
        *,
        clock: Clock | None = None,
        metrics: RetryMetrics | None = None,
    ) -> None:
        self._options = options or BudgetOptions()
        self._clock = clock or SystemClock()
        self._lock = Lock()
        self._tokens = self._options.burst
        self._filled_at = self._clock.monotonic()
        self._metrics: RetryMetrics | None = None
        if metrics is not None:
            self.show(metrics)

    def show(self, metrics: RetryMetrics) -> None:
        """Let metrics follow it; what is left is read at each scrape."""
        self._metrics = metrics
        metrics.budget_left.set_function(lambda: self.left)

    @property
    def left(self) -> float:
        """Return how many retries would be let through now; below 0 where some were reserved ahead."""
        with self._lock:
            self._fill()
            return self._tokens

    def called(self, count: int = 1) -> None:
        """Note calls that are no retries; they add to the budget."""
        with self._lock:
            self._tokens = min(self._options.burst, self._tokens + self._options.ratio * count)

    def spend(self) -> bool:
        """Take a retry and return true, or return false where none is left."""
        with self._lock:
            self._fill()
            if self._tokens >= 1:
                self._tokens -= 1
                return True
        self._note_exhausted()
        return False

    def reserve(self, longest: float) -> float:
        """Take a retry, ahead where none is left, and return the seconds it is to wait for that: `longest` at most.

        For what must be tried again and can only be made to wait. Who waits `longest` may be beyond the budget.
        """
        with self._lock:
            self._fill()
            floor, left = self._options.floor, self._tokens - 1
            if left >= 0:
                self._tokens = left
                return 0.0
            if floor:
                self._tokens = max(left, -longest * floor)
        wait = min(longest, -left / floor) if floor else longest
        self._note_exhausted()
        return wait

    def _fill(self) -> None:
        now = self._clock.monotonic()
        elapsed, self._filled_at = now - self._filled_at, now
        self._tokens = min(self._options.burst, self._tokens + self._options.floor * elapsed)

    def _note_exhausted(self) -> None:
        if self._metrics is not None:
            self._metrics.budget_exhausted.inc()
