"""A snapshot holds one finite value per metric of ours, added up over labels."""

from __future__ import annotations

from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.metrics_snapshot import snapshot_of


def test_values_are_added_up_over_labels_and_buckets_left_out() -> None:
    page = (
        b"# HELP omnibase_x_total What.\n# TYPE omnibase_x_total counter\n"
        b'omnibase_x_total{worker="a",kind="b } c"} 2.0\nomnibase_x_total{worker="a",kind="d"} 3\n'
        b'omnibase_y_bucket{le="+Inf"} 4\nomnibase_y_sum 1.5\nomnibase_y_count 4\nomnibase_y_created 17e8\n'
        b'omnibase_z NaN\npython_info{version="3"} 1\nprocess_open_fds 12\n'
    )
    found = snapshot_of(page, "a", "2026-01-01T00:00:00Z")
    assert (found.service, found.taken_at) == ("a", "2026-01-01T00:00:00Z")
    assert found.values == {
        "omnibase_x_total": 5.0,
        "omnibase_y_count": 4.0,
        "omnibase_y_sum": 1.5,
        "process_open_fds": 12.0,
    }


def test_a_real_page_has_what_was_counted() -> None:
    registry = MetricsRegistry(process_metrics=False)
    registry.counter(metric.COMMITS, worker="w").inc(3)
    registry.counter(metric.COMMITS, worker="v").inc(4)
    values = snapshot_of(registry.exposition(), "w", "").values
    name = metric.COMMITS.name
    assert values.get(name, values.get(f"{name}_total")) == 7.0
