"""What `/info` and `/metrics` say of the Kafka clients, from what these report."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from confluent_kafka import KafkaError

from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.kafka.producer_counters import ProducerCounters, ProducerHealth
from omnibase_infra.shared.kafka.statistics import (
    BrokerStatistics,
    ClientStatistics,
    PartitionStatistics,
    TopicStatistics,
)
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.kafka_health import KafkaHealth
from omnibase_infra.shared.runtime.records import PartitionWork
from omnibase_infra.shared.testing.sample_fleet import order_store

REALM = Realm("dev")
SPEC = order_store()
SOURCE = TopicName.parse(SPEC.subscribe[0])
RESULTS = TopicName.parse(SPEC.publish[0])


class Producer:
    """Stands for the pool: what it counted, and what waits in it."""

    def __init__(self) -> None:
        self.counters = ProducerCounters()

    def health(self) -> ProducerHealth:
        return self.counters.health(queued=3, capacity=10, waiting_sends=1, connected_brokers=2)


@pytest.fixture
def registry() -> MetricsRegistry:
    return MetricsRegistry()


@pytest.fixture
def producer() -> Producer:
    return Producer()


@pytest.fixture
def health(registry: MetricsRegistry, producer: Producer) -> KafkaHealth:
    topics: Mapping[str, TopicName] = {SOURCE.physical(REALM): SOURCE}
    return KafkaHealth(WorkerMetrics(registry, SPEC), REALM, topics, producer.health)


def value(registry: MetricsRegistry, name: str, **labels: str) -> float:
    """Return a sample's value from the page."""
    wanted = {f'{key}="{text}"' for key, text in ({"worker": SPEC.worker} | labels).items()}
    for line in registry.exposition().decode().splitlines():
        if line.startswith(f"{name}{{") and wanted <= set(line[len(name) + 1 : line.rindex("}")].split(",")):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"{name} {labels} is not on the page")


def test_offsets_and_lag_of_a_partition_are_those_of_the_last_report(
    health: KafkaHealth, registry: MetricsRegistry
) -> None:
    work = PartitionWork(SOURCE, SOURCE.physical(REALM), 1, start=0)
    assert health.describe_partition(work)["lag"] is None
    partition = PartitionStatistics(
        partition=1, fetch_state="active", app_offset=7, committed_offset=5, ls_offset=9, consumer_lag=4
    )
    topics = {SOURCE.physical(REALM): TopicStatistics(partitions={"1": partition})}
    health.took(ClientStatistics(brokers={"one": BrokerStatistics(nodeid=1, state="UP")}, topics=topics))

    shown = health.describe_partition(work)
    assert {name: shown[name] for name in ("position", "committed", "end", "lag")} == {
        "position": 7,
        "committed": 5,
        "end": 9,
        "lag": 4,
    }
    assert value(registry, "omnibase_lag_records", topic=str(SOURCE), partition="1") == 4
    assert value(registry, "omnibase_kafka_connected_brokers", client="consumer") == 1


def test_the_last_error_of_each_client_is_shown_with_its_age_and_without_secrets(
    health: KafkaHealth, producer: Producer, registry: MetricsRegistry
) -> None:
    health.failed(KafkaError(KafkaError._AUTHENTICATION, "sasl.password=hunter2 is refused"))
    producer.counters.note_error("the broker is away")
    health.show()

    clients = health.describe()
    assert "is refused" in clients["consumer"]["last_error"]
    assert "hunter2" not in clients["consumer"]["last_error"]
    assert clients["producer"]["last_error"] == "the broker is away"
    assert all(0 <= one["last_error_age_seconds"] < 60 for one in clients.values())
    for client in ("consumer", "producer"):
        assert value(registry, "omnibase_kafka_client_errors_total", client=client) == 1


def test_what_the_producer_confirmed_and_what_failed_is_counted_once_by_topic(
    health: KafkaHealth, producer: Producer, registry: MetricsRegistry
) -> None:
    topic, other = RESULTS.physical(REALM), SPEC.dead_letter_topic.physical(REALM)
    producer.counters.count([topic, other, topic], {1: "too large"})
    health.show()
    producer.counters.count([topic], {})
    health.show()
    health.show()

    assert value(registry, "omnibase_produced_records_total", topic=str(RESULTS)) == 3
    assert value(registry, "omnibase_produced_records_total", topic=str(SPEC.dead_letter_topic)) == 0
    assert value(registry, "omnibase_delivery_errors_total", topic=str(SPEC.dead_letter_topic)) == 1
    assert value(registry, "omnibase_producer_queue_records") == 3
    assert value(registry, "omnibase_kafka_connected_brokers", client="producer") == 2
