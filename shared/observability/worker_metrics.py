"""The metrics of one worker, bound once for its contract, so that the hot path looks nothing up."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from prometheus_client import Counter, Gauge

from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.batch_histogram import HistogramChild
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry

RebalanceEvent = Literal["assigned", "revoked", "lost"]
BreakerState = Literal["closed", "half-open", "open"]
KafkaClient = Literal["consumer", "producer"]
RateDecision = Literal["wait", "park", "refuse"]
GivenUp = Literal["attempts", "time", "budget"]
BREAKER_STATE_VALUES: Final[Mapping[BreakerState, int]] = MappingProxyType({"closed": 0, "half-open": 1, "open": 2})


class OperationMetrics:
    """Counters and histograms of one operation."""

    __slots__ = (
        "answers",
        "batch_records",
        "completed",
        "end_to_end_seconds",
        "failed",
        "handler_seconds",
        "inbox_hits",
        "retried",
    )

    def __init__(self, registry: MetricsRegistry, worker: str, operation: str) -> None:
        labels = {"worker": worker, "operation": operation}
        self.completed: Final[Counter] = registry.counter(metric.RECORDS_COMPLETED, **labels)
        self.failed: Final[Counter] = registry.counter(metric.RECORDS_FAILED, **labels)
        self.retried: Final[Counter] = registry.counter(metric.RECORDS_RETRIED, **labels)
        self.answers: Final[Counter] = registry.counter(metric.ANSWERS_PRODUCED, **labels)
        self.inbox_hits: Final[Counter] = registry.counter(metric.INBOX_HITS, **labels)
        self.handler_seconds: Final[HistogramChild] = registry.histogram(metric.HANDLER_SECONDS, **labels)
        self.end_to_end_seconds: Final[HistogramChild] = registry.histogram(metric.END_TO_END_SECONDS, **labels)
        self.batch_records: Final[HistogramChild] = registry.histogram(metric.BATCH_RECORDS, **labels)


class TopicMetrics:
    """Counters of one topic that is read; the label is the logical name."""

    __slots__ = ("consumed", "dead", "finished", "ignored", "parked")

    def __init__(self, registry: MetricsRegistry, worker: str, topic: str) -> None:
        labels = {"worker": worker, "topic": topic}
        self.consumed: Final[Counter] = registry.counter(metric.RECORDS_CONSUMED, **labels)
        self.finished: Final[Counter] = registry.counter(metric.RECORDS_FINISHED, **labels)
        self.dead: Final[Counter] = registry.counter(metric.RECORDS_DEAD, **labels)
        self.ignored: Final[Counter] = registry.counter(metric.RECORDS_IGNORED, **labels)
        self.parked: Final[Counter] = registry.counter(metric.RECORDS_PARKED, **labels)


class OutputMetrics:
    """Counters of one topic that is written; the label is the logical name."""

    __slots__ = ("delivery_errors", "produced")

    def __init__(self, registry: MetricsRegistry, worker: str, topic: str) -> None:
        labels = {"worker": worker, "topic": topic}
        self.produced: Final[Counter] = registry.counter(metric.PRODUCED_RECORDS, **labels)
        self.delivery_errors: Final[Counter] = registry.counter(metric.DELIVERY_ERRORS, **labels)


class DependencyMetrics:
    """Breaker and pool of one dependency. The pool's gauges appear once `pool` is first read."""

    def __init__(self, registry: MetricsRegistry, worker: str, dependency: str) -> None:
        self._registry = registry
        self._labels = {"worker": worker, "dependency": dependency}
        self._pool: PoolMetrics | None = None
        self.breaker_trips: Final[Counter] = registry.counter(metric.BREAKER_TRIPS, **self._labels)
        self._breaker_state: Final[Gauge] = registry.gauge(metric.BREAKER_STATE, **self._labels)

    def breaker_changed(self, state: BreakerState) -> None:
        """Show a breaker's new state; opening counts as a trip."""
        self._breaker_state.set(BREAKER_STATE_VALUES[state])
        if state == "open":
            self.breaker_trips.inc()

    @property
    def pool(self) -> PoolMetrics:
        """Return the gauges of the dependency's connection pool."""
        if self._pool is None:
            self._pool = PoolMetrics(self._registry, self._labels)
        return self._pool


class RetryMetrics:
    """Retries of what is called, and their budget. What is left of a budget appears once `budget_left` is first read."""

    __slots__ = ("_labels", "_registry", "budget_exhausted", "given_up", "retries")

    def __init__(self, registry: MetricsRegistry, worker: str, dependency: str) -> None:
        labels = {"worker": worker, "dependency": dependency}
        reasons: tuple[GivenUp, ...] = ("attempts", "time", "budget")
        self._registry, self._labels = registry, labels
        self.retries: Final[Counter] = registry.counter(metric.RETRIES, **labels)
        self.budget_exhausted: Final[Counter] = registry.counter(metric.RETRY_BUDGET_EXHAUSTED, **labels)
        self.given_up: Final[Mapping[GivenUp, Counter]] = {
            reason: registry.counter(metric.RETRIES_GIVEN_UP, **labels, reason=reason) for reason in reasons
        }

    @property
    def budget_left(self) -> Gauge:
        """Return the gauge of what is left; retries without a budget have none."""
        return self._registry.gauge(metric.RETRY_BUDGET_LEFT, **self._labels)


class ThrottleMetrics:
    """Calls out that were beyond a program's own limit."""

    __slots__ = ("refused", "waited")

    def __init__(self, registry: MetricsRegistry, worker: str, dependency: str) -> None:
        labels = {"worker": worker, "dependency": dependency}
        self.waited: Final[Counter] = registry.counter(metric.THROTTLED, **labels, decision="wait")
        self.refused: Final[Counter] = registry.counter(metric.THROTTLED, **labels, decision="refuse")


class PoolMetrics:
    """Gauges of a connection pool; set them, or give them a function to read at each scrape."""

    __slots__ = ("connections", "idle", "in_use", "waiting")

    def __init__(self, registry: MetricsRegistry, labels: Mapping[str, str]) -> None:
        self.connections: Final[Gauge] = registry.gauge(metric.POOL_CONNECTIONS, **labels)
        self.in_use: Final[Gauge] = registry.gauge(metric.POOL_IN_USE, **labels)
        self.idle: Final[Gauge] = registry.gauge(metric.POOL_IDLE, **labels)
        self.waiting: Final[Gauge] = registry.gauge(metric.POOL_WAITING, **labels)


class WorkerMetrics:
    """Everything a worker counts. Children may be used from the event loop and the consumer thread alike.

    Attributes:
        operations / topics / outputs / dependencies: by the names of the contract; topics are logical and
            include the worker's retry topics.
    """

    def __init__(self, registry: MetricsRegistry, spec: WorkerSpec) -> None:
        worker = spec.worker
        self._registry = registry
        self._worker = worker
        self._refused: dict[str, Counter] = {}
        self._lag: dict[tuple[str, int], Gauge] = {}
        read = dict.fromkeys((*spec.subscribe, *(str(topic) for topic in spec.retry_topics.values())))

        self.operations: Final[Mapping[str, OperationMetrics]] = {
            operation.name: OperationMetrics(registry, worker, operation.name) for operation in spec.operations
        }
        self.topics: Final[Mapping[str, TopicMetrics]] = {
            topic: TopicMetrics(registry, worker, topic) for topic in read
        }
        self.outputs: Final[Mapping[str, OutputMetrics]] = {
            topic: OutputMetrics(registry, worker, topic) for topic in sorted(spec.writable_topics())
        }
        self.dependencies: Final[Mapping[str, DependencyMetrics]] = {
            name: DependencyMetrics(registry, worker, name) for name in dict.fromkeys(("kafka", *spec.dependencies))
        }

        # By operation; only where the contract has limits.
        decisions: tuple[RateDecision, ...] = ("wait", "park", "refuse")
        self.rate_limited: Final[Mapping[str, Mapping[RateDecision, Counter]]] = {
            operation.name: {
                decision: registry.counter(
                    metric.RATE_LIMITED, worker=worker, operation=operation.name, decision=decision
                )
                for decision in decisions
            }
            for operation in (spec.operations if spec.rate_limits else ())
        }

        self.in_flight_records: Final = registry.gauge(metric.IN_FLIGHT_RECORDS, worker=worker)
        self.in_flight_bytes: Final = registry.gauge(metric.IN_FLIGHT_BYTES, worker=worker)
        self.parked_records: Final = registry.gauge(metric.PARKED_RECORDS, worker=worker)
        self.parked_keys: Final = registry.gauge(metric.PARKED_KEYS, worker=worker)
        self.paused_partitions: Final = registry.gauge(metric.PAUSED_PARTITIONS, worker=worker)
        self.event_loop_lag_seconds: Final = registry.histogram(metric.EVENT_LOOP_LAG_SECONDS, worker=worker)
        self.event_loop_blocks: Final = registry.counter(metric.EVENT_LOOP_BLOCKS, worker=worker)

        self.assigned_partitions: Final = registry.gauge(metric.ASSIGNED_PARTITIONS, worker=worker)
        self.commits: Final = registry.counter(metric.COMMITS, worker=worker)
        self.commit_failures: Final = registry.counter(metric.COMMIT_FAILURES, worker=worker)
        self.commit_age_seconds: Final = registry.gauge(metric.COMMIT_AGE_SECONDS, worker=worker)
        self.rebalance_seconds: Final = registry.histogram(metric.REBALANCE_SECONDS, worker=worker)
        events: tuple[RebalanceEvent, ...] = ("assigned", "revoked", "lost")
        self.rebalances: Final[Mapping[RebalanceEvent, Counter]] = {
            event: registry.counter(metric.REBALANCES, worker=worker, event=event) for event in events
        }
        clients: tuple[KafkaClient, ...] = ("consumer", "producer")
        self.connected_brokers: Final[Mapping[KafkaClient, Gauge]] = {
            client: registry.gauge(metric.KAFKA_CONNECTED_BROKERS, worker=worker, client=client) for client in clients
        }
        self.client_errors: Final[Mapping[KafkaClient, Counter]] = {
            client: registry.counter(metric.KAFKA_CLIENT_ERRORS, worker=worker, client=client) for client in clients
        }
        self.producer_queue_records: Final = registry.gauge(metric.PRODUCER_QUEUE_RECORDS, worker=worker)

        registry.gauge(
            metric.BUILD_INFO,
            worker=worker,
            version=spec.version,
            contract=spec.contract_sha256[:12],
            python=platform.python_version(),
        ).set(1)

    def retries(self, dependency: str) -> RetryMetrics:
        """Return the metrics of retries and their budget; looking them up is not cheap."""
        return RetryMetrics(self._registry, self._worker, dependency)

    def refused(self, code: str) -> Counter:
        """Return the counter of records refused with this error code (few: one per error class)."""
        counter = self._refused.get(code)
        if counter is None:
            counter = self._refused[code] = self._registry.counter(
                metric.RECORDS_REFUSED, worker=self._worker, code=code
            )
        return counter

    def lag(self, topic: str, partition: int) -> Gauge:
        """Return the lag gauge of a partition."""
        gauge = self._lag.get((topic, partition))
        if gauge is None:
            gauge = self._lag[topic, partition] = self._registry.gauge(
                metric.LAG_RECORDS, worker=self._worker, topic=topic, partition=str(partition)
            )
        return gauge

    def forget_lag(self, topic: str, partition: int) -> None:
        """Drop the lag of a partition that moved away: a stale value would keep an autoscaler busy."""
        if self._lag.pop((topic, partition), None) is not None:
            self._registry.forget(metric.LAG_RECORDS, worker=self._worker, topic=topic, partition=str(partition))
