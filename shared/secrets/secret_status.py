"""What people are told of the secrets of a process: metrics and log lines by setting, never a value."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Literal

from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.core.secret_references import SecretReference
from omnibase_infra.shared.core.settings import variable
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger

Outcome = Literal["renewed", "replaced", "failed"]


class SecretStatus:
    """Counts and logs how each secret is looked after."""

    def __init__(self, worker: str, registry: MetricsRegistry, references: Mapping[str, SecretReference]) -> None:
        self._worker = worker
        self._registry = registry
        self._references = references

    def renewed(self, names: Iterable[str], outcome: Outcome, seconds: float | None = None) -> None:
        """Note that secrets are good, for so many seconds more; None for no end."""
        for name in names:
            self._count(name, outcome)
            self.lasts(name, seconds)
        if seconds is not None:
            settings = [variable(name) for name in names]
            get_logger().debug(LogEvent.SECRET_RENEWED, settings=settings, outcome=outcome, seconds=seconds)

    def lasts(self, name: str, seconds: float | None) -> None:
        """Note how long a secret is good for."""
        if seconds is not None:
            gauge = self._registry.gauge(metric.SECRET_EXPIRY, worker=self._worker, setting=variable(name))
            gauge.set(time.time() + seconds)

    def failed(self, name: str) -> None:
        """Count a failure that is logged elsewhere."""
        self._count(name, "failed")

    def renewal_failed(self, names: Iterable[str], error: OmnibaseError, seconds_left: float | None = None) -> None:
        """Log a failure and how long the value lasts: a warning while it does, an error once it has ended."""
        log = get_logger()
        tell = log.error if seconds_left is not None and seconds_left <= 0 else log.warning
        left = None if seconds_left is None else round(seconds_left, 1)
        for name in names:
            self._count(name, "failed")
            tell(
                LogEvent.SECRET_RENEWAL_FAILED,
                setting=variable(name),
                reference=str(self._references[name]) if name in self._references else None,
                error=error.message,
                seconds_left=left,
            )

    def _count(self, name: str, outcome: Outcome) -> None:
        labels = {"worker": self._worker, "setting": variable(name), "outcome": outcome}
        self._registry.counter(metric.SECRET_RENEWALS, **labels).inc()
