"""What `/info` and `/metrics` say of a worker's Kafka clients: connections, offsets, lag, and the last thing that went wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError

from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.redaction import redact_text
from omnibase_infra.shared.kafka.producer_counters import ProducerHealth
from omnibase_infra.shared.kafka.statistics import ClientStatistics, PartitionStatistics, TopicStatistics
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.records import PartitionWork


class KafkaHealth:
    """Collects what the clients report. The consumer thread reports, the event loop and a scrape ask."""

    def __init__(
        self,
        metrics: WorkerMetrics,
        realm: Realm,
        topics: Mapping[str, TopicName],
        producer: Callable[[], ProducerHealth] | None = None,
    ) -> None:
        """Args:
        metrics: of the worker.
        realm: of its topics.
        topics: that it subscribes to, by their names on the cluster.
        producer: the state of what outputs go through; None where there is nothing to ask.
        """
        self._metrics = metrics
        self._topics = topics
        self._producer = producer
        self._outputs = {TopicName.parse(topic).physical(realm): one for topic, one in metrics.outputs.items()}
        self._statistics = ClientStatistics()
        self._last_error: tuple[str, float] | None = None
        self._shown: Counter[tuple[str, str]] = Counter()

    def took(self, statistics: ClientStatistics) -> None:
        """Take the consumer's report. Consumer thread."""
        self._statistics = statistics
        self._metrics.connected_brokers["consumer"].set(statistics.connected_brokers())
        for (physical, number), lag in statistics.lag().items():
            if (topic := self._topics.get(physical)) is not None:
                self._metrics.lag(str(topic), number).set(lag)

    def failed(self, error: KafkaError) -> None:
        """Take an error of the consumer as a whole. Consumer thread."""
        self._last_error = (redact_text(error.str()), time.monotonic())
        self._metrics.client_errors["consumer"].inc()

    def describe(self) -> dict[str, Any]:
        """Return the state of the clients."""
        text, when = self._last_error or ("", None)
        clients: dict[str, Any] = {
            "consumer": {
                "connected_brokers": self._statistics.connected_brokers(),
                "fetched_records": self._statistics.fetched()[0],
                "last_error": text,
                "last_error_age_seconds": None if when is None else round(time.monotonic() - when, 3),
            }
        }
        if self._producer is not None:
            clients["producer"] = _described(self._producer())
        return clients

    def describe_partition(self, work: PartitionWork) -> dict[str, Any]:
        """Return what there is to say of a partition: its work, and its offsets as of the last report, None if unknown."""
        topic = self._statistics.topics.get(work.physical, TopicStatistics())
        known = topic.partitions.get(str(work.partition), PartitionStatistics())
        return work.describe() | {
            "position": _offset(known.app_offset),
            "committed": _offset(known.committed_offset),
            "end": _offset(known.ls_offset),
            "lag": known.lag,
        }

    def show(self) -> None:
        """Bring the producer's metrics up to now. One call at a time."""
        if self._producer is None:
            return
        health = self._producer()
        self._metrics.producer_queue_records.set(health.queued)
        self._metrics.connected_brokers["producer"].set(health.connected_brokers or 0)
        self._metrics.client_errors["producer"].inc(self._news("errors", "", health.errors))
        for topic, output in self._outputs.items():
            output.produced.inc(self._news("produced", topic, health.confirmed_by_topic.get(topic, 0)))
            output.delivery_errors.inc(self._news("failed", topic, health.failed_by_topic.get(topic, 0)))

    def _news(self, what: str, topic: str, total: int) -> int:
        """Return how much a total has grown since it was last shown."""
        news = total - self._shown[what, topic]
        self._shown[what, topic] = total
        return news


def _described(health: ProducerHealth) -> Mapping[str, Any]:
    return {
        "connected_brokers": health.connected_brokers,
        "queued": health.queued,
        "waiting_sends": health.waiting_sends,
        "confirmed": health.confirmed,
        "failed": health.failed,
        "last_confirmed_age_seconds": _rounded(health.last_confirmed_age_seconds),
        "last_error": redact_text(health.last_error),
        "last_error_age_seconds": _rounded(health.last_error_age_seconds),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _offset(value: int) -> int | None:
    return value if value >= 0 else None
