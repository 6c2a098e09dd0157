"""Partitions and their ends, asked of brokers that answer and of one that does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from confluent_kafka import KafkaError

from omnibase_infra.shared.client import partitions
from omnibase_infra.shared.client.partitions import end_positions, ends_reading, partition_numbers
from omnibase_infra.shared.core.errors import DependencyUnavailableError, TopicMissingError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, TopicCreator

TOPIC = "onex.evt.price-quoter.results.v1"


@pytest.fixture
def unreachable(
    kafka_consumer_factory: ConsumerFactory, kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A consumer whose broker is not there."""
    monkeypatch.setattr(partitions, "REQUEST_SECONDS", 0.3)
    settings = kafka_settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    return kafka_consumer_factory(purpose="answers", settings=settings)


async def test_an_end_is_the_offset_of_the_next_record(
    kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory, kafka_producer_pool: ProducerPool
) -> None:
    (topic,) = await asyncio.to_thread(kafka_topics_created, TOPIC, partitions=3)
    await kafka_producer_pool.send([OutboundRecord(TOPIC, b"a", partition=1), OutboundRecord(TOPIC, b"b", partition=1)])
    consumer = kafka_consumer_factory(purpose="answers")
    assert partition_numbers(consumer, topic) == [0, 1, 2]
    positions = end_positions(consumer, topic, [0, 1, 2])
    assert [(one.partition, one.offset) for one in positions] == [(0, 0), (1, 2), (2, 0)]


def test_a_missing_topic_is_named_with_what_to_do(kafka_consumer_factory: ConsumerFactory, realm: Any) -> None:
    with pytest.raises(TopicMissingError, match=rf"{realm}\.{TOPIC} does not exist.*omninode topics apply"):
        partition_numbers(kafka_consumer_factory(purpose="answers"), f"{realm}.{TOPIC}")


def test_without_a_broker_the_error_says_what_was_asked(unreachable: Any) -> None:
    with pytest.raises(DependencyUnavailableError, match=r"the partitions of some-topic within 0\.3 s"):
        partition_numbers(unreachable, "some-topic")
    with pytest.raises(DependencyUnavailableError, match=r"the end offsets of some-topic within 0\.3 s"):
        end_positions(unreachable, "some-topic", [0])


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        (KafkaError._TRANSPORT, False),
        (KafkaError._ALL_BROKERS_DOWN, False),
        (KafkaError.NOT_LEADER_FOR_PARTITION, False),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, True),
        (KafkaError._AUTO_OFFSET_RESET, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, True),
    ],
)
def test_only_what_waiting_cannot_mend_ends_reading(code: int, ends: bool) -> None:
    assert ends_reading(KafkaError(code)) is ends
