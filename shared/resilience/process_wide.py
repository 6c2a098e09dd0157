"""What belongs to a process and not to one of its callers: a breaker and a retry budget for each service it calls.

Two callers with a budget each would add twice the load; two breakers would send two probes.
"""

from __future__ import annotations

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import DependencyMetrics, RetryMetrics, ThrottleMetrics
from omnibase_infra.shared.resilience.circuit_breaker_factory import CircuitBreakerFactory
from omnibase_infra.shared.resilience.dependency_breaker import BreakerPreset, DependencyBreaker
from omnibase_infra.shared.resilience.retry_budget import BudgetOptions, RetryBudget


class ProcessResilience:
    """Breakers and budgets by service, made when first asked for. Event loop; budgets may be used from any thread.

    Args:
        budget: of each service.
        clock: for tests.
    """

    def __init__(self, budget: BudgetOptions | None = None, *, clock: Clock | None = None) -> None:
        self._options = budget
        self._clock = clock or SystemClock()
        self._registry: MetricsRegistry | None = None
        self._worker = ""
        self._breakers: dict[str, DependencyBreaker] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._retry_metrics: dict[str, RetryMetrics] = {}

    def show_in(self, registry: MetricsRegistry, worker: str) -> None:
        """Let metrics follow all there is and will be. Call it once, at the start of the process."""
        self._registry, self._worker = registry, worker
        for service, breaker in self._breakers.items():
            self._follow(service, breaker)
        for service, budget in self._budgets.items():
            self._show_budget(service, budget)

    def breaker(self, service: str, preset: BreakerPreset | None = None) -> DependencyBreaker:
        """Return the breaker of a service. `preset` counts for whoever asks first; default: that of its kind."""
        breaker = self._breakers.get(service)
        if breaker is None:
            breaker = self._breakers[service] = CircuitBreakerFactory(clock=self._clock).create(service, preset)
            self._follow(service, breaker)
        return breaker

    def budget(self, service: str) -> RetryBudget:
        """Return the retry budget of a service."""
        budget = self._budgets.get(service)
        if budget is None:
            budget = self._budgets[service] = RetryBudget(self._options, clock=self._clock)
            self._show_budget(service, budget)
        return budget

    def retry_metrics(self, service: str) -> RetryMetrics | None:
        """Return what counts the retries of a service; None where no metrics are kept."""
        if self._registry is None:
            return None
        if service not in self._retry_metrics:
            self._retry_metrics[service] = RetryMetrics(self._registry, self._worker, service)
        return self._retry_metrics[service]

    def throttle_metrics(self, service: str) -> ThrottleMetrics | None:
        """Return what counts the calls beyond a limit; None where no metrics are kept."""
        return None if self._registry is None else ThrottleMetrics(self._registry, self._worker, service)

    def _follow(self, service: str, breaker: DependencyBreaker) -> None:
        if self._registry is None:
            return
        metrics = DependencyMetrics(self._registry, self._worker, service)
        metrics.breaker_changed(breaker.state)
        breaker.on_change(lambda change: metrics.breaker_changed(change.new))

    def _show_budget(self, service: str, budget: RetryBudget) -> None:
        metrics = self.retry_metrics(service)
        if metrics is not None:
            budget.show(metrics)


_PROCESS = ProcessResilience()


def process_resilience() -> ProcessResilience:
    """Return what belongs to this process."""
    return _PROCESS
