"""The catalogue of metrics is what operators can rely on."""

from __future__ import annotations

import re

import pytest

from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.observability.metric_definitions import (
    CATALOGUE,
    CounterDefinition,
    GaugeDefinition,
    HistogramDefinition,
    MetricDefinition,
)

BOUNDED_LABELS = {
    "client",
    "worker", "topic", "operation", "decision", "dependency", "code", "partition", "event", "statement", "version", "contract", "python", "fingerprint", "setting", "outcome", "reason",
}  # fmt: skip


def test_names_are_unique() -> None:
    names = [definition.name for definition in CATALOGUE]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("definition", CATALOGUE, ids=lambda definition: definition.name)
def test_each_metric_follows_the_conventions(definition: MetricDefinition) -> None:
    assert re.fullmatch(r"omnibase_[a-z]+(_[a-z]+)*", definition.name)
    assert definition.name.endswith("_total") == (definition.kind == "counter")
    assert definition.meaning.endswith(".")
    assert definition.labels[0] == "worker"
    assert set(definition.labels) <= BOUNDED_LABELS
    if definition.unit == "seconds":
        assert definition.name.endswith("_seconds")
    if definition.unit == "bytes":
        assert definition.name.endswith("_bytes")


@pytest.mark.parametrize(
    "definition", [d for d in CATALOGUE if isinstance(d, HistogramDefinition)], ids=lambda d: d.name
)
def test_buckets_rise(definition: HistogramDefinition) -> None:
    assert list(definition.buckets) == sorted(set(definition.buckets))


@pytest.mark.parametrize(
    ("definition", "name"),
    [(CounterDefinition, "omnibase_x"), (GaugeDefinition, "omnibase_x_total"), (CounterDefinition, "x_total")],
)
def test_a_name_that_breaks_the_conventions_is_refused(definition: type[MetricDefinition], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        definition(name, "Something.", "records")
