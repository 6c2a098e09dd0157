"""A worker's metrics are bound from its spec, and every one of them is on the page."""

from __future__ import annotations

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from omnibase_infra.shared.core.worker_spec import OperationSpec, RateLimitSpec, WorkerSpec
from omnibase_infra.shared.observability.metric_definitions import CATALOGUE
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import BreakerState, WorkerMetrics

COMMANDS = "onex.cmd.order-store.execute.v1"
RETRIES = "onex.retry.order-store.execute.v1"
ANSWERS = "onex.evt.order-store.executed.v1"
DEAD_LETTERS = "onex.dlq.order-store.dead-letters.v1"

SPEC = WorkerSpec(
    generation=1,
    node="order_store",
    worker="order-store",
    class_name="OrderStore",
    version="1.2.0",
    contract_sha256="0123456789abcdef" * 4,
    description="Stores orders.",
    node_type="effect",
    subscribe=(COMMANDS,),
    publish=(ANSWERS,),
    dependencies=("postgres",),
    operations=(OperationSpec(name="execute", topic=COMMANDS, event_type=COMMANDS, answer_topic=ANSWERS),),
    rate_limits=(RateLimitSpec(per="client", count=50, seconds=1, burst=100),),
)


@pytest.fixture
def registry() -> MetricsRegistry:
    return MetricsRegistry(process_metrics=False)


@pytest.fixture
def metrics(registry: MetricsRegistry) -> WorkerMetrics:
    return WorkerMetrics(registry, SPEC)


def _samples(registry: MetricsRegistry) -> list[Sample]:
    families = text_string_to_metric_families(registry.exposition().decode())
    return [sample for family in families for sample in family.samples]


def _value(registry: MetricsRegistry, name: str, **labels: str) -> float:
    (sample,) = (
        sample for sample in _samples(registry) if sample.name == name and labels.items() <= sample.labels.items()
    )
    return sample.value


def test_operations_topics_and_dependencies_come_from_the_contract(metrics: WorkerMetrics) -> None:
    assert list(metrics.operations) == ["execute"]
    assert list(metrics.topics) == [COMMANDS, RETRIES]
    assert set(metrics.outputs) == {ANSWERS, DEAD_LETTERS, RETRIES}
    assert list(metrics.dependencies) == ["kafka", "postgres"]


def test_what_a_worker_shows_is_declared(registry: MetricsRegistry, metrics: WorkerMetrics) -> None:
    metrics.refused("undecodable").inc()
    metrics.lag(COMMANDS, 3).set(12)
    metrics.dependencies["postgres"].pool.in_use.set(1)

    shown = {line.split()[2] for line in registry.exposition().decode().splitlines() if line.startswith("# TYPE")}
    assert shown <= {definition.name for definition in CATALOGUE}
    assert {"omnibase_records_consumed_total", "omnibase_lag_records", "omnibase_pool_in_use_connections"} <= shown


def test_a_worker_without_rate_limits_does_not_show_them(registry: MetricsRegistry) -> None:
    metrics = WorkerMetrics(registry, structs.replace(SPEC, rate_limits=()))

    assert metrics.rate_limited == {}
    assert "omnibase_rate_limited" not in registry.exposition().decode()


def test_the_page_starts_with_zeros_so_that_rates_see_the_first_event(
    registry: MetricsRegistry, metrics: WorkerMetrics
) -> None:
    assert _value(registry, "omnibase_records_dead_total", topic=COMMANDS) == 0
    assert _value(registry, "omnibase_rebalances_total", event="lost") == 0


def test_what_is_counted_is_shown_with_its_labels(registry: MetricsRegistry, metrics: WorkerMetrics) -> None:
    metrics.topics[COMMANDS].consumed.inc(500)
    metrics.operations["execute"].completed.inc(499)
    metrics.operations["execute"].end_to_end_seconds.observe_many([0.002, 0.02, 20.0])
    metrics.outputs[ANSWERS].produced.inc(499)
    metrics.refused("forbidden").inc()

    assert _value(registry, "omnibase_records_consumed_total", topic=COMMANDS, worker="order-store") == 500
    assert _value(registry, "omnibase_records_completed_total", operation="execute") == 499
    assert _value(registry, "omnibase_end_to_end_seconds_count", operation="execute") == 3
    assert _value(registry, "omnibase_end_to_end_seconds_bucket", operation="execute", le="0.025") == 2
    assert _value(registry, "omnibase_produced_records_total", topic=ANSWERS) == 499
    assert _value(registry, "omnibase_records_refused_total", code="forbidden") == 1


def test_build_info_says_what_runs(registry: MetricsRegistry, metrics: WorkerMetrics) -> None:
    assert _value(registry, "omnibase_build_info", version="1.2.0", contract="0123456789ab") == 1


def test_an_opening_breaker_is_a_trip(registry: MetricsRegistry, metrics: WorkerMetrics) -> None:
    states: list[tuple[BreakerState, int]] = [
        ("open", 2), ("half-open", 1), ("open", 2), ("half-open", 1), ("closed", 0),
    ]  # fmt: skip
    for state, shown in states:
        metrics.dependencies["postgres"].breaker_changed(state)
        assert _value(registry, "omnibase_breaker_state", dependency="postgres") == shown
    assert _value(registry, "omnibase_breaker_trips_total", dependency="postgres") == 2


def test_the_lag_of_a_partition_that_moved_away_is_gone(registry: MetricsRegistry, metrics: WorkerMetrics) -> None:
    metrics.lag(COMMANDS, 0).set(5)
    metrics.lag(COMMANDS, 1).set(6)
    metrics.forget_lag(COMMANDS, 0)
    metrics.forget_lag(COMMANDS, 7)
    assert [sample.value for sample in _samples(registry) if sample.name == "omnibase_lag_records"] == [6]

    metrics.lag(COMMANDS, 0).set(1)
    assert _value(registry, "omnibase_lag_records", partition="0") == 1


def test_a_worker_without_a_pool_shows_no_pool(registry: MetricsRegistry, metrics: WorkerMetrics) -> None:
    assert b"omnibase_pool_connections" not in registry.exposition()
