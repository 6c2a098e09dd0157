"""The page of every metric there is passes `promtool check metrics`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from omnibase_infra.shared.observability import metric_definitions
from omnibase_infra.shared.observability.metric_definitions import (
    CATALOGUE,
    CounterDefinition,
    GaugeDefinition,
    HistogramDefinition,
    MetricDefinition,
)
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.testing.exposition_rules import exposition_problems

ROOT = Path(__file__).resolve().parents[3]


def everything() -> MetricsRegistry:
    """Return a registry that shows every metric there is."""
    registry = MetricsRegistry()
    for definition in CATALOGUE:
        show(registry, definition)
    return registry


def show(registry: MetricsRegistry, definition: MetricDefinition) -> None:
    labels = dict.fromkeys(definition.labels, "x")
    if isinstance(definition, CounterDefinition):
        registry.counter(definition, **labels).inc()
    elif isinstance(definition, GaugeDefinition):
        registry.gauge(definition, **labels).set(1)
    elif isinstance(definition, HistogramDefinition):
        registry.histogram(definition, **labels).observe(1)


def test_the_page_of_every_metric_there_is_has_no_problem() -> None:
    assert exposition_problems(everything().exposition().decode()) == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("# HELP a_total X.\n# TYPE a_total gauge\na_total 1\n", "only they, end in _total"),
        ("# TYPE a gauge\na 1\n", "no help text"),
        ("# HELP a_days X.\n# TYPE a_days gauge\na_days 1\n", "use seconds instead of days"),
        ("# HELP a_ms X.\n# TYPE a_ms gauge\na_ms 1\n", "the abbreviation ms"),
        ("# HELP a_gauge X.\n# TYPE a_gauge gauge\na_gauge 1\n", "its type gauge"),
        ('# HELP a X.\n# TYPE a gauge\na{Up="1"} 1\n', "a label Up"),
        ("# HELP a X.\n# TYPE a gauge\na 1\na 1\n", "shown 2 times"),
    ],
)
def test_a_problem_is_found(page: str, said: str) -> None:
    assert any(said in problem for problem in exposition_problems(page))


def test_the_openmetrics_page_is_one() -> None:
    page = everything().exposition(openmetrics=True).decode()
    names = {family.name for family in parse_openmetrics(page)}  # type: ignore[no-untyped-call]
    assert {one.name.removesuffix("_total") for one in CATALOGUE} <= names


def test_every_declared_metric_is_used() -> None:
    names = [name for name, value in vars(metric_definitions).items() if isinstance(value, MetricDefinition)]
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "shared").rglob("*.py")
        if path.name != "metric_definitions.py" and "testing" not in path.parts
    )
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []
