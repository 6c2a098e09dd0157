"""Consuming from a real broker with the factory's settings."""

from __future__ import annotations

import asyncio
import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, Message, Producer, TopicPartition

from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.kafka.statistics import ClientStatistics
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog, TopicCreator

ORDERS = "onex.evt.order-store.results.v1"
PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


def records(*numbers: int, partition: int | None = None) -> list[OutboundRecord]:
    return [OutboundRecord(topic=ORDERS, value=b"%d" % item, key=b"k", partition=partition) for item in numbers]


def take(consumer: Consumer, count: int, timeout: float = 20) -> list[Message]:
    deadline = time.monotonic() + timeout
    found: list[Message] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages in {timeout} s"
        found += consumer.consume(count - len(found), 0.1)
    return found


def values(messages: list[Message]) -> list[int]:
    assert [message.error() for message in messages] == [None] * len(messages)
    return [int(message.value() or b"") for message in messages]


def from_beginning(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    for partition in partitions:
        partition.offset = OFFSET_BEGINNING
    consumer.incremental_assign(partitions)


@PROTOCOLS
async def test_a_group_continues_behind_what_was_committed_and_nothing_commits_by_itself(
    protocol: str,
    kafka_settings: Settings,
    kafka_topics_created: TopicCreator,
    kafka_producer_pool: ProducerPool,
    kafka_consumer_factory: ConsumerFactory,
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    await kafka_producer_pool.send(records(*range(10)))
    settings = kafka_settings.model_copy(update={"kafka_group_protocol": protocol})

    def consume() -> None:
        first = kafka_consumer_factory(settings=settings)
        first.subscribe([topic], on_assign=from_beginning)
        assert values(take(first, 6)) == [0, 1, 2, 3, 4, 5]
        first.commit(offsets=[TopicPartition(topic, 0, 4)], asynchronous=False)
        kafka_consumer_factory.close(first)
        second = kafka_consumer_factory(settings=settings)
        second.subscribe([topic])
        assert values(take(second, 6)) == [4, 5, 6, 7, 8, 9]

    await asyncio.to_thread(consume)


@PROTOCOLS
async def test_partitions_move_to_a_second_member_one_by_one(
    protocol: str,
    kafka_settings: Settings,
    kafka_topics_created: TopicCreator,
    kafka_consumer_factory: ConsumerFactory,
) -> None:
    (topic,) = kafka_topics_created(ORDERS, partitions=4)
    settings = kafka_settings.model_copy(update={"kafka_group_protocol": protocol})
    revoked: list[int] = []

    def rebalance() -> None:
        members = [kafka_consumer_factory(settings=settings) for _ in range(2)]
        members[0].subscribe([topic], on_assign=from_beginning, on_revoke=lambda _, parts: revoked.append(len(parts)))
        deadline = time.monotonic() + 30
        while len(members[0].assignment()) < 4:
            members[0].consume(10, 0.05)
            assert time.monotonic() < deadline
        members[1].subscribe([topic], on_assign=from_beginning)
        while [len(member.assignment()) for member in members] != [2, 2]:
            for member in members:
                member.consume(10, 0.05)
            assert time.monotonic() < deadline

    await asyncio.to_thread(rebalance)
    # Cooperative: only what moves is taken away.
    assert revoked == [2]


async def test_a_group_without_a_committed_offset_gets_an_error_and_no_jump(
    kafka_topics_created: TopicCreator, kafka_producer_pool: ProducerPool, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    await kafka_producer_pool.send(records(1))

    def consume() -> None:
        consumer = kafka_consumer_factory()
        consumer.subscribe([topic])
        (message,) = take(consumer, 1)
        error = message.error()
        assert error is not None
        assert error.code() == KafkaError._AUTO_OFFSET_RESET

    await asyncio.to_thread(consume)


async def test_a_tail_starts_at_the_end(
    kafka_topics_created: TopicCreator, kafka_producer_pool: ProducerPool, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    await kafka_producer_pool.send(records(1, 2))
    consumer = kafka_consumer_factory(purpose="tail")
    _, end = await asyncio.to_thread(consumer.get_watermark_offsets, TopicPartition(topic, 0), 10)
    consumer.assign([TopicPartition(topic, 0, end)])
    await kafka_producer_pool.send(records(3))
    assert values(await asyncio.to_thread(take, consumer, 1)) == [3]


async def test_a_reader_may_be_assigned_at_the_logical_end(
    kafka_topics_created: TopicCreator, kafka_producer_pool: ProducerPool, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    await kafka_producer_pool.send(records(1, 2))
    consumer = kafka_consumer_factory(purpose="answers")
    consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
    found: list[Message] = []
    number = 3
    while not found:
        await kafka_producer_pool.send(records(number))
        number += 1
        found = await asyncio.to_thread(consumer.consume, 10, 0.1)
    assert min(values(found)) >= 3


async def test_aborted_transactions_are_not_seen(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)

    def produce() -> None:
        producer = Producer(
            {
                "bootstrap.servers": kafka_settings.kafka_bootstrap_servers,
                "transactional.id": kafka_settings.realm.transactional_id("test", "0"),
            }
        )
        producer.init_transactions(30)
        for number, end in ((1, producer.abort_transaction), (2, producer.commit_transaction)):
            producer.begin_transaction()
            producer.produce(topic, b"%d" % number)
            producer.flush(30)
            end(30)

    await asyncio.to_thread(produce)
    assert values(await asyncio.to_thread(kafka_consumer_factory.read, topic)) == [2]


async def test_statistics_report_lag_while_batches_are_consumed(
    kafka_topics_created: TopicCreator, kafka_producer_pool: ProducerPool, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS, partitions=2)
    await kafka_producer_pool.send(records(*range(10), partition=0))
    reports: list[ClientStatistics] = []

    def consume() -> None:
        consumer = kafka_consumer_factory(options=ConsumerOptions(statistics_seconds=0.1), on_statistics=reports.append)
        consumer.subscribe([topic], on_assign=from_beginning)
        take(consumer, 10)
        consumer.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
        deadline = time.monotonic() + 20
        while not reports or reports[-1].lag() != {(topic, 0): 3, (topic, 1): 0}:
            assert time.monotonic() < deadline, reports[-1].lag()
            assert consumer.consume(500, 0.1) == []
        assert reports[-1].connected_brokers() == 1

    await asyncio.to_thread(consume)


async def test_a_record_is_handed_over_within_milliseconds(
    kafka_topics_created: TopicCreator, kafka_producer_pool: ProducerPool, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    await kafka_producer_pool.send(records(0))
    consumer = kafka_consumer_factory(purpose="tail")
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    await asyncio.to_thread(take, consumer, 1)
    latencies = []
    for number in range(1, 41):
        started = time.perf_counter()
        receiving = asyncio.create_task(asyncio.to_thread(take, consumer, 1))
        await kafka_producer_pool.send(records(number))
        await receiving
        latencies.append(time.perf_counter() - started)
    # Far below the budget of a request and its answer; a setting that waits for batches would show.
    assert sorted(latencies)[20] < 0.05


async def test_a_consumer_says_nothing_on_stderr(
    kafka_topics_created: TopicCreator,
    kafka_consumer_factory: ConsumerFactory,
    kafka_log: RecordedLog,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    consumer = kafka_consumer_factory(log=kafka_log, options=ConsumerOptions(overrides={"debug": "cgrp"}))
    consumer.subscribe([topic], on_assign=from_beginning)
    deadline = time.monotonic() + 20
    while not consumer.assignment():
        consumer.consume(1, 0.1)
        assert time.monotonic() < deadline
    kafka_consumer_factory.close(consumer)
    assert {line.event for line in kafka_log} == {"kafka_client_log"}
    assert capfd.readouterr().err == ""
