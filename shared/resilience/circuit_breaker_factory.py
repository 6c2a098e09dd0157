"""Circuit breakers with the settings that suit each kind of dependency, wired to metrics and logs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import DependencyMetrics
from omnibase_infra.shared.resilience.dependency_breaker import BreakerChange, BreakerPreset, DependencyBreaker
from omnibase_infra.shared.resilience.service_kinds import ServiceKind, service_kind

# A probe is one record of real work, so probing early is cheap; the cap keeps a recovered dependency from idling long.
BREAKER_PRESETS: Final[Mapping[ServiceKind, BreakerPreset]] = MappingProxyType(
    {
        "database": BreakerPreset(fail_max=5, reset_seconds=1.0, cap_seconds=15.0),
        "kafka": BreakerPreset(fail_max=5, reset_seconds=2.0, cap_seconds=30.0),
        "external_service": BreakerPreset(fail_max=5, reset_seconds=5.0, cap_seconds=60.0),
        "vault": BreakerPreset(fail_max=3, reset_seconds=5.0, cap_seconds=60.0),
        "consul": BreakerPreset(fail_max=3, reset_seconds=2.0, cap_seconds=30.0),
    }
)


class CircuitBreakerFactory:
    """Makes the breakers of one worker.

    Args:
        metrics: by dependency name, usually `WorkerMetrics.dependencies`; others are not counted.
        clock: for tests.
        uniform: source of jitter in [0, 1).
    """

    def __init__(
        self,
        metrics: Mapping[str, DependencyMetrics] | None = None,
        *,
        clock: Clock | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._metrics = metrics or {}
        self._clock = clock or SystemClock()
        self._uniform = uniform

    def create(self, dependency: str, preset: BreakerPreset | None = None) -> DependencyBreaker:
        """Return a closed breaker; its changes are logged and counted.

        Args:
            dependency: as the contract names it, for example `postgres`.
            preset: default: the one of the dependency's kind.
        """
        breaker = DependencyBreaker(
            dependency,
            preset or BREAKER_PRESETS[service_kind(dependency)],
            clock=self._clock,
            uniform=self._uniform,
        )
        if (metrics := self._metrics.get(dependency)) is not None:
            metrics.breaker_changed("closed")
            breaker.on_change(lambda change: metrics.breaker_changed(change.new))
        breaker.on_change(_log_change)
        return breaker


def _log_change(change: BreakerChange) -> None:
    log = get_logger().warning if change.new == "open" else get_logger().info
    log(
        LogEvent.BREAKER_CHANGED,
        dependency=change.dependency,
        state=change.new,
        was=change.old,
        retry_in_seconds=round(change.retry_in, 3),
        code=change.code,
    )
