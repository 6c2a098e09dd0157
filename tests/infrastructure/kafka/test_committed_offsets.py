"""A committed offset is not said while a transaction may still change it."""

from __future__ import annotations

import asyncio
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.committed_offsets import committed_offset
from omnibase_infra.shared.kafka.transaction_client import transaction_config
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog, TopicCreator

TOPIC = "onex.cmd.order-store.requests.v1"
SECONDS = 30.0


def join(consumer: Consumer, topic: str) -> None:
    consumer.subscribe([topic])
    deadline = time.monotonic() + SECONDS
    while not consumer.assignment():
        assert time.monotonic() < deadline
        consumer.poll(0.05)


async def test_it_waits_for_the_end_of_a_transaction_that_a_dead_process_left_open(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(TOPIC)
    consumer = kafka_consumer_factory()
    await asyncio.to_thread(join, consumer, topic)
    group = kafka_settings.realm.group("test-reader", 1)
    identity = kafka_settings.realm.transactional_id("test-reader", "one")
    producer = Producer(transaction_config(kafka_settings, transactional_id=identity, client_id="test"))

    def leave_open() -> None:
        consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
        producer.init_transactions(SECONDS)
        producer.begin_transaction()
        metadata = consumer.consumer_group_metadata()
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, 7, "mark")], metadata, SECONDS)

    await asyncio.to_thread(leave_open)

    def read() -> TopicPartition:
        return committed_offset(
            kafka_settings, group, TopicPartition(topic, 0), client_id="test-look", log=RecordedLog()
        )

    reading = asyncio.create_task(asyncio.to_thread(read))
    await asyncio.wait([reading], timeout=2)
    assert not reading.done()
    await asyncio.to_thread(producer.commit_transaction, SECONDS)
    found = await reading
    assert (found.offset, found.metadata) == (7, "mark")


def test_a_coordinator_that_is_away_is_an_outage(kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnibase_infra.shared.kafka.committed_offsets.TIMEOUT_SECONDS", 0.5)
    settings = kafka_settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    with pytest.raises(DependencyUnavailableError, match="did not say its offsets"):
        committed_offset(settings, "test.group", TopicPartition("t", 0), client_id="test-look", log=RecordedLog())
