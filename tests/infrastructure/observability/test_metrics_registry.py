"""The registry hands out what is declared, and nothing else."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.metric_definitions import CATALOGUE, CounterDefinition, GaugeDefinition
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry

STRAY = CounterDefinition("omnibase_strays_total", "Not in the catalogue.", "events")


@pytest.fixture
def registry() -> MetricsRegistry:
    return MetricsRegistry(process_metrics=False)


def test_a_metric_outside_the_catalogue_is_refused(registry: MetricsRegistry) -> None:
    with pytest.raises(ConfigurationError, match=r"omnibase_strays_total.*not in this registry's catalogue"):
        registry.counter(STRAY, worker="w")


def test_a_kit_can_declare_its_own(registry: MetricsRegistry) -> None:
    wider = MetricsRegistry((*CATALOGUE, STRAY), process_metrics=False)
    wider.counter(STRAY, worker="w").inc(2)
    assert b'omnibase_strays_total{worker="w"} 2.0' in wider.exposition()


def test_a_node_declares_its_own_and_may_do_so_again(registry: MetricsRegistry) -> None:
    registry.declare(STRAY)
    registry.declare(STRAY, metric.COMMITS)
    registry.counter(STRAY, worker="w").inc()
    assert b'omnibase_strays_total{worker="w"} 1.0' in registry.exposition()


def test_a_name_with_another_meaning_is_refused_and_nothing_is_declared(registry: MetricsRegistry) -> None:
    with pytest.raises(ConfigurationError, match=r"omnibase_commits_total.*declared twice"):
        registry.declare(STRAY, CounterDefinition(metric.COMMITS.name, "Something else.", "events"))
    with pytest.raises(ConfigurationError, match="not in this registry's catalogue"):
        registry.counter(STRAY, worker="w")


def test_a_definition_that_differs_from_the_catalogue_is_refused(registry: MetricsRegistry) -> None:
    other = CounterDefinition(metric.COMMITS.name, "Something else.", "events")
    with pytest.raises(ConfigurationError, match=r"omnibase_commits_total"):
        registry.counter(other, worker="w")


def test_a_name_declared_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="declared twice"):
        MetricsRegistry((STRAY, CounterDefinition(STRAY.name, "Again.", "events")))


@pytest.mark.parametrize("labels", [{}, {"worker": "w", "key": "k"}, {"wrker": "w"}])
def test_other_labels_than_declared_are_refused(registry: MetricsRegistry, labels: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="has the labels worker"):
        registry.counter(metric.COMMITS, **labels)


def test_children_are_shared(registry: MetricsRegistry) -> None:
    assert registry.counter(metric.COMMITS, worker="w") is registry.counter(metric.COMMITS, worker="w")
    assert registry.gauge(metric.IN_FLIGHT_BYTES, worker="w") is registry.gauge(metric.IN_FLIGHT_BYTES, worker="w")
    assert registry.histogram(metric.REBALANCE_SECONDS, worker="w") is registry.histogram(
        metric.REBALANCE_SECONDS, worker="w"
    )


def test_registries_do_not_mix(registry: MetricsRegistry) -> None:
    other = MetricsRegistry(process_metrics=False)
    registry.counter(metric.COMMITS, worker="w").inc()
    assert other.exposition() == b""
    assert "omnibase_commits" not in {family.name for family in REGISTRY.collect()}


def test_a_forgotten_gauge_leaves_the_page(registry: MetricsRegistry) -> None:
    labels = {"worker": "w", "topic": "t", "partition": "0"}
    registry.gauge(metric.LAG_RECORDS, **labels).set(7)
    assert b"} 7.0" in registry.exposition()
    registry.forget(metric.LAG_RECORDS, **labels)
    registry.forget(metric.LAG_RECORDS, **labels)
    assert b"} 7.0" not in registry.exposition()


def test_a_metric_without_labels_works() -> None:
    plain = GaugeDefinition("omnibase_plain", "No labels.", "records", ())
    registry = MetricsRegistry((plain,), process_metrics=False)
    registry.gauge(plain).set(3)
    assert b"omnibase_plain 3.0" in registry.exposition()


def test_the_page_shows_the_process_unless_told_otherwise() -> None:
    page = MetricsRegistry().exposition().decode()
    names = {family.name for family in text_string_to_metric_families(page)}
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= names


def test_label_values_are_escaped(registry: MetricsRegistry) -> None:
    registry.counter(metric.COMMITS, worker='a"\n\\b').inc()
    (family,) = text_string_to_metric_families(registry.exposition().decode())
    assert family.samples[0].labels == {"worker": 'a"\n\\b'}
