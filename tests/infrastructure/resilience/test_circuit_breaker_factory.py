"""Breakers come with settings for their kind, and their changes are seen in metrics and logs."""

from __future__ import annotations

from typing import get_args

import pytest
from structlog.testing import capture_logs

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import DependencyMetrics
from omnibase_infra.shared.resilience.circuit_breaker_factory import BREAKER_PRESETS, CircuitBreakerFactory
from omnibase_infra.shared.resilience.dependency_breaker import BreakerPreset, DependencyBreaker
from omnibase_infra.shared.resilience.service_kinds import ServiceKind, service_kind
from omnibase_infra.shared.testing.manual_clock import ManualClock


def _state(breaker: DependencyBreaker) -> str:
    """Read the state afresh: a type checker takes a property that was compared once for settled."""
    return breaker.state


def _fail(breaker: DependencyBreaker, times: int) -> None:
    error = DependencyUnavailableError("no route", dependency=breaker.dependency)
    for _ in range(times):
        breaker.record_failure(breaker.permit(), error)


def test_every_kind_of_service_has_a_preset() -> None:
    assert set(BREAKER_PRESETS) == set(get_args(ServiceKind))


@pytest.mark.parametrize(
    ("dependency", "kind"),
    [
        ("postgres", "database"),
        ("kafka", "kafka"),
        ("openbao", "vault"),
        ("consul", "consul"),
        ("ntfy", "external_service"),
    ],
)
def test_the_preset_follows_from_the_dependency(dependency: str, kind: ServiceKind) -> None:
    assert service_kind(dependency) == kind
    breaker = CircuitBreakerFactory().create(dependency)
    _fail(breaker, BREAKER_PRESETS[kind].fail_max - 1)
    assert _state(breaker) == "closed"
    _fail(breaker, 1)
    assert _state(breaker) == "open"
    assert 0 < breaker.seconds_until_probe <= BREAKER_PRESETS[kind].reset_seconds


def test_changes_are_counted_and_logged() -> None:
    registry = MetricsRegistry(process_metrics=False)
    clock = ManualClock()
    factory = CircuitBreakerFactory(
        {"postgres": DependencyMetrics(registry, "order-store", "postgres")}, clock=clock, uniform=lambda: 0.0
    )
    breaker = factory.create("postgres", BreakerPreset(fail_max=1, reset_seconds=1.0, cap_seconds=2.0))
    assert b'omnibase_breaker_state{dependency="postgres",worker="order-store"} 0.0' in registry.exposition()

    with capture_logs() as lines:
        _fail(breaker, 1)
        assert b'omnibase_breaker_state{dependency="postgres",worker="order-store"} 2.0' in registry.exposition()
        clock.advance(1)
        breaker.record_success(breaker.permit())

    assert b'omnibase_breaker_trips_total{dependency="postgres",worker="order-store"} 1.0' in registry.exposition()
    assert b'omnibase_breaker_state{dependency="postgres",worker="order-store"} 0.0' in registry.exposition()
    assert [(line["log_level"], line["was"], line["state"], line["retry_in_seconds"]) for line in lines] == [
        ("warning", "closed", "open", 1.0),
        ("info", "open", "half-open", 0.0),
        ("info", "half-open", "closed", 0.0),
    ]
    assert {(line["event"], line["dependency"]) for line in lines} == {("breaker_changed", "postgres")}
    assert lines[0]["code"] == "dependency-unavailable"


def test_a_dependency_without_metrics_still_has_a_breaker() -> None:
    breaker = CircuitBreakerFactory({}).create("consul")
    _fail(breaker, 3)
    assert _state(breaker) == "open"
