"""The process's metrics, by definition only, and their exposition for `/metrics`.

Built on prometheus_client with a registry of its own: importing a library that touches the default registry
changes nothing here, and two workers in one test process do not mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final, TypeVar

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_1_0
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.observability.batch_histogram import BatchHistogram, HistogramChild
from omnibase_infra.shared.observability.metric_definitions import (
    CATALOGUE,
    CounterDefinition,
    GaugeDefinition,
    HistogramDefinition,
    MetricDefinition,
)

EXPOSITION_CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS_CONTENT_TYPE: Final = OPENMETRICS_1_0

F = TypeVar("F", Counter, Gauge, BatchHistogram)


class MetricsRegistry:
    """Hands out metric children, which are cheap to use from any thread; looking one up is not: keep it.

    Args:
        catalogue: what may be registered; a kit adds its own definitions to `CATALOGUE`.
        process_metrics: whether `/metrics` also shows `process_*` (CPU, memory, file descriptors).

    Raises:
        ConfigurationError: two definitions share a name.
    """

    def __init__(self, catalogue: Iterable[MetricDefinition] = CATALOGUE, *, process_metrics: bool = True) -> None:
        # A `_created` gauge beside every counter doubles the page and answers nobody's question.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._lock = Lock()
        self._catalogue: dict[str, MetricDefinition] = {}
        self._families: dict[str, Counter | Gauge | BatchHistogram] = {}
        for definition in catalogue:
            if definition.name in self._catalogue:
                raise ConfigurationError(f"metric {definition.name!r} is declared twice")
            self._catalogue[definition.name] = definition
        if process_metrics:
            ProcessCollector(registry=self._registry)

    @property
    def definitions(self) -> tuple[MetricDefinition, ...]:
        """Return what may be registered, in the order of the catalogue."""
        return tuple(self._catalogue.values())

    def counter(self, definition: CounterDefinition, **labels: str) -> Counter:
        """Return the counter of these labels, made on first use.

        Raises:
            ConfigurationError: not in the catalogue, or the labels are not the declared ones.
        """
        values = self._label_values(definition, labels)
        family = self._family(
            definition,
            Counter,
            lambda: Counter(definition.name, definition.meaning, definition.labels, registry=self._registry),
        )
        return family.labels(*values) if values else family

    def gauge(self, definition: GaugeDefinition, **labels: str) -> Gauge:
        """Return the gauge of these labels, made on first use.

        Raises:
            ConfigurationError: not in the catalogue, or the labels are not the declared ones.
        """
        values = self._label_values(definition, labels)
        family = self._family(
            definition,
            Gauge,
            lambda: Gauge(definition.name, definition.meaning, definition.labels, registry=self._registry),
        )
        return family.labels(*values) if values else family

    def histogram(self, definition: HistogramDefinition, **labels: str) -> HistogramChild:
        """Return the histogram of these labels, made on first use.

        Raises:
            ConfigurationError: not in the catalogue, or the labels are not the declared ones.
        """
        values = self._label_values(definition, labels)
        return self._family(definition, BatchHistogram, lambda: self._new_histogram(definition)).labels(*values)

    def _family(self, definition: MetricDefinition, kind: type[F], make: Callable[[], F]) -> F:
        """Return the family of a definition, made once whichever thread asks first."""
        with self._lock:
            family = self._families.get(definition.name)
            if family is None:
                family = self._families[definition.name] = make()
        assert isinstance(family, kind)
        return family

    def _new_histogram(self, definition: HistogramDefinition) -> BatchHistogram:
        family = BatchHistogram(definition)
        self._registry.register(family)
        return family

    def forget(self, definition: GaugeDefinition, **labels: str) -> None:
        """Drop a gauge's child, for example the lag of a partition that moved away; unknown ones are fine.

        Raises:
            ConfigurationError: not in the catalogue, or the labels are not the declared ones.
        """
        values = self._label_values(definition, labels)
        family = self._families.get(definition.name)
        if isinstance(family, Gauge):
            family.remove(*values)

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """Return the Prometheus text page, or the OpenMetrics one, which has exemplars.

        Takes milliseconds to tens of them: call it from a thread.
        """
        if openmetrics:
            page: bytes = generate_openmetrics(self._registry)  # type: ignore[no-untyped-call]
            return page
        return generate_latest(self._registry)

    def declare(self, *definitions: MetricDefinition) -> None:
        """Let metrics of a node's own be registered; what is declared already, and equal, stays as it is.

        For code of node authors, which gets the registry from the container. Names begin with `omnibase_` and the
        node's name; labels are few and bounded, the first is `worker`.

        Raises:
            ConfigurationError: another metric has one of the names; nothing was declared.
        """
        with self._lock:
            for definition in definitions:
                if self._catalogue.get(definition.name, definition) != definition:
                    raise ConfigurationError(
                        f"metric {definition.name!r} is declared twice, with different meanings",
                        hint="begin the names of a node's own metrics with omnibase_ and the node's name",
                    )
            self._catalogue.update({definition.name: definition for definition in definitions})

    def _label_values(self, definition: MetricDefinition, labels: dict[str, str]) -> tuple[str, ...]:
        if self._catalogue.get(definition.name) != definition:
            raise ConfigurationError(
                f"metric {definition.name!r} is not in this registry's catalogue",
                hint="declare it in shared/observability/metric_definitions.py, or by `declare`",
            )
        if set(labels) != set(definition.labels):
            raise ConfigurationError(
                f"metric {definition.name!r} has the labels {', '.join(definition.labels)}, not {', '.join(labels)}"
            )
        return tuple(labels[name] for name in definition.labels)
