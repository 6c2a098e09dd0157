"""One page of metrics for several processes: what counts is added up, states are taken as their declaration says.

Each process keeps its own page, so that the hot path shares nothing; pages meet only when somebody reads them.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from omnibase_infra.shared.observability.metric_definitions import (
    BUILD_INFO,
    CATALOGUE,
    PROCESSES,
    Across,
    GaugeDefinition,
    MetricDefinition,
)

# What the Prometheus client says of the process itself.
_PROCESS_GAUGES: Final[Mapping[str, Across]] = {
    "process_start_time_seconds": "min",
    "process_max_fds": "min",
}
_Key = tuple[str, tuple[tuple[str, str], ...]]


def merged_page(
    pages: Iterable[str], catalogue: Iterable[MetricDefinition] = CATALOGUE, *, openmetrics: bool = False
) -> bytes:
    """Return the page of all processes together, in Prometheus' text format or as OpenMetrics.

    Counters and histograms are summed, gauges by `across` of their definition, gauges that the catalogue does not have
    are summed. `omnibase_processes` says how many there were of each worker.

    Args:
        pages: one of each process, text format.
        catalogue: says how gauges are taken together.
        openmetrics: the format of the result; exemplars belong to single processes and are left out.

    Raises:
        ValueError: a page is none.
    """
    rules = dict(_PROCESS_GAUGES)
    rules.update({one.name: one.across for one in catalogue if isinstance(one, GaugeDefinition)})
    families: dict[str, Metric] = {}
    values: dict[_Key, float] = {}
    processes: Tally[str] = Tally()
    for page in pages:
        workers = set()
        for family in text_string_to_metric_families(page):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            rule = rules.get(family.name, "sum") if family.type == "gauge" else "sum"
            for sample in family.samples:
                if sample.name == BUILD_INFO.name:
                    workers.add(sample.labels.get("worker", ""))
                _take(
                    values,
                    families[family.name],
                    (sample.name, tuple(sorted(sample.labels.items()))),
                    sample.value,
                    rule,
                )
        processes.update(workers)
    registry = CollectorRegistry()
    registry.register(_Merged(families, values, processes))
    if openmetrics:
        page_of_all: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return page_of_all
    return generate_latest(registry)


def _take(values: dict[_Key, float], family: Metric, key: _Key, value: float, rule: Across) -> None:
    before = values.get(key)
    if before is None:
        values[key] = value
        family.add_sample(key[0], dict(key[1]), value)
    elif rule == "sum":
        values[key] = before + value
    else:
        values[key] = max(before, value) if rule == "max" else min(before, value)


class _Merged(Collector):
    """The merged families, as the exposition asks for them."""

    def __init__(
        self, families: Mapping[str, Metric], values: Mapping[_Key, float], processes: Mapping[str, int]
    ) -> None:
        self._families = families
        self._values = values
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        """Yield each family with its values, in the order in which they were first seen."""
        for family in self._families.values():
            merged = Metric(family.name, family.documentation, family.type)
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                merged.add_sample(sample.name, sample.labels, self._values[key])
            yield merged
        count = GaugeMetricFamily(PROCESSES.name, PROCESSES.meaning, labels=PROCESSES.labels)
        for worker, processes in sorted(self._processes.items()):
            count.add_metric([worker], processes)
        yield count
