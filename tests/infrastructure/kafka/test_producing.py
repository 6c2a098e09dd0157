"""Producing to a real broker: order, confirmation, back-pressure, failures, shutdown."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from itertools import islice, pairwise

import pytest
import uvloop
from aiokafka.partitioner import DefaultPartitioner  # type: ignore[import-untyped]
from confluent_kafka import Message

from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.producer_config import ProducerOptions
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.kafka.statistics import ClientStatistics
from omnibase_infra.shared.local_services import KafkaService
from omnibase_infra.shared.testing.kafka_fixtures import (
    ConsumerFactory,
    KafkaServer,
    RecordedLog,
    TopicCreator,
)

ORDERS = "onex.evt.order-store.results.v1"
AUDITS = "onex.evt.order-store.audits.v1"


def record(number: int, key: bytes | None = b"k", topic: str = ORDERS, partition: int | None = None) -> OutboundRecord:
    return OutboundRecord(topic=topic, value=b"%d" % number, key=key, partition=partition)


def values_by_key(messages: list[Message]) -> dict[bytes | None, list[int]]:
    found: defaultdict[bytes | None, list[int]] = defaultdict(list)
    for message in messages:
        found[message.key()].append(int(message.value() or b""))
    return dict(found)


def never_goes_back(numbers: list[int]) -> bool:
    return all(earlier < later for earlier, later in pairwise(numbers))


async def test_confirmed_records_are_in_the_log_with_key_value_headers_and_partition(
    kafka_producer_pool: ProducerPool, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS, partitions=3)
    others = (("onex-attempt", b"2"), ("onex-empty", b""), ("onex-null", None))
    await kafka_producer_pool.send(
        [
            OutboundRecord(topic=ORDERS, value=b"a", key=b"k", partition=2, headers=STRUCTURED_HEADERS),
            OutboundRecord(topic=ORDERS, value=b"\x00\xff", key=b"\x00", partition=2, headers=others),
            OutboundRecord(topic=ORDERS, value=b"", key=None, partition=2),
            OutboundRecord(topic=ORDERS, value=b"b", key=b"", partition=0),
        ]
    )
    messages = await asyncio.to_thread(kafka_consumer_factory.read, topic)
    found = [(m.partition(), m.key(), m.value(), m.headers()) for m in messages]
    assert found == [
        (0, b"", b"b", None),
        (2, b"k", b"a", [("content-type", b"application/cloudevents+json")]),
        (2, b"\x00", b"\x00\xff", list(others)),
        (2, None, b"", None),
    ]
    health = kafka_producer_pool.health()
    assert (health.confirmed, health.failed, health.queued, health.last_error) == (4, 0, 0, "")
    assert health.last_confirmed_age_seconds is not None


async def test_keys_go_where_java_clients_send_them(
    kafka_producer_pool: ProducerPool, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS, partitions=7)
    await kafka_producer_pool.send([record(number, b"key-%d" % number) for number in range(100)])
    partitions = list(range(7))
    for message in await asyncio.to_thread(kafka_consumer_factory.read, topic):
        assert message.partition() == DefaultPartitioner()(message.key(), partitions, partitions)


async def test_records_of_a_key_keep_the_order_of_the_calls(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    topics = kafka_topics_created(ORDERS, AUDITS, partitions=4)
    async with ProducerPool(
        kafka_settings, client_id="test", log=RecordedLog(), options=ProducerOptions(size=3)
    ) as pool:
        numbers = iter(range(40_000))
        calls = []
        while batch := [
            record(number, b"key-%d" % random.randrange(20), random.choice((ORDERS, AUDITS)))
            for number in islice(numbers, random.choice((1, 7, 500, 1300)))
        ]:
            calls.append(asyncio.create_task(pool.send(batch)))
        await asyncio.gather(*calls)
        assert pool.health().confirmed == 40_000
    count = 0
    for topic in topics:
        by_key = values_by_key(await asyncio.to_thread(kafka_consumer_factory.read, topic))
        assert len(by_key) == 20
        assert all(never_goes_back(sequence) for sequence in by_key.values())
        count += sum(map(len, by_key.values()))
    assert count == 40_000


async def test_a_full_queue_makes_senders_wait_in_order_and_drops_nothing(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS, partitions=2)
    options = ProducerOptions(queue_records=50)
    async with ProducerPool(kafka_settings, client_id="test", log=RecordedLog(), options=options) as pool:
        calls = [
            asyncio.create_task(pool.send([record(start + offset, b"key-%d" % (offset % 3)) for offset in range(300)]))
            for start in range(0, 6_000, 300)
        ]
        most_waiting = 0
        while not all(call.done() for call in calls):
            health = pool.health()
            # Reports that were not served yet count as queued as well.
            assert health.queued <= 2 * health.capacity == 100
            most_waiting = max(most_waiting, health.waiting_sends)
            await asyncio.sleep(0.001)
        await asyncio.gather(*calls)
    assert most_waiting == 1
    by_key = values_by_key(await asyncio.to_thread(kafka_consumer_factory.read, topic))
    assert sum(map(len, by_key.values())) == 6_000
    assert all(never_goes_back(sequence) for sequence in by_key.values())


async def test_a_queue_full_of_bytes_makes_senders_wait_as_well(
    kafka_settings: Settings, kafka_topics_created: TopicCreator
) -> None:
    kafka_topics_created(ORDERS)
    options = ProducerOptions(queue_kilobytes=1024)
    async with ProducerPool(kafka_settings, client_id="test", log=RecordedLog(), options=options) as pool:
        big = OutboundRecord(topic=ORDERS, value=random.randbytes(200_000), key=b"k")
        await pool.send([big] * 60)
        assert pool.health().confirmed == 60


async def test_the_event_loop_stays_responsive_during_a_huge_send(
    kafka_producer_pool: ProducerPool, kafka_topics_created: TopicCreator
) -> None:
    kafka_topics_created(ORDERS, partitions=4)
    batch = [record(number, b"key-%d" % (number % 50)) for number in range(60_000)]
    sending = asyncio.create_task(kafka_producer_pool.send(batch))
    turns = 0
    while not sending.done():
        await asyncio.sleep(0)
        turns += 1
    await sending
    assert turns >= 60_000 / 500


async def test_cancelling_the_wait_recalls_nothing_and_leaves_nothing_behind(
    kafka_settings: Settings,
    kafka_topics_created: TopicCreator,
    kafka_consumer_factory: ConsumerFactory,
    kafka_log: RecordedLog,
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    options = ProducerOptions(linger_ms=200, queue_records=100)
    async with ProducerPool(kafka_settings, client_id="test", log=kafka_log, options=options) as pool:
        confirmed = asyncio.create_task(pool.send([record(number) for number in range(50)]))
        blocked = asyncio.create_task(pool.send([record(number) for number in range(50, 250)]))
        queued = asyncio.create_task(pool.send([record(number) for number in range(250, 260)]))
        while not pool.health().waiting_sends:
            await asyncio.sleep(0)
        confirmed.cancel()
        blocked.cancel()
        await asyncio.wait([confirmed, blocked, queued])
        assert (confirmed.cancelled(), blocked.cancelled(), queued.exception()) == (True, True, None)
        assert pool.health().waiting_sends == 0
        await pool.send([record(260)])
        assert await pool.flush(10) == 0
    (numbers,) = values_by_key(await asyncio.to_thread(kafka_consumer_factory.read, topic)).values()
    assert never_goes_back(numbers)
    # What the cancelled senders had handed over is there, what they had not is not, and the others are whole.
    assert numbers == [*range(100), *range(250, 261)]
    assert "kafka_producer_callback_failed" not in {line.event for line in kafka_log}


async def test_records_too_large_for_the_client_fail_by_index_and_the_others_are_sent(
    kafka_producer_pool: ProducerPool, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    large = OutboundRecord(topic=ORDERS, value=bytes(2_000_000), key=b"k")
    with pytest.raises(DeliveryError, match=r"1 of 3 records were not confirmed: onex\.evt\.order-store") as caught:
        await kafka_producer_pool.send([record(0), large, record(2)])
    assert list(caught.value.errors) == [1]
    assert "too large" in caught.value.errors[1].lower()
    assert values_by_key(await asyncio.to_thread(kafka_consumer_factory.read, topic)) == {b"k": [0, 2]}
    health = kafka_producer_pool.health()
    assert (health.confirmed, health.failed) == (2, 1)


async def test_records_the_broker_refuses_fail_by_index(
    kafka_producer_pool: ProducerPool, kafka_topics_created: TopicCreator
) -> None:
    kafka_topics_created(ORDERS, partitions=2, config={"max.message.bytes": "1000"})
    large = OutboundRecord(topic=ORDERS, value=random.randbytes(3_000), key=b"k", partition=1)
    with pytest.raises(DeliveryError) as caught:
        await kafka_producer_pool.send([record(0, partition=0), large, record(2, partition=0)])
    assert list(caught.value.errors) == [1]
    assert "too large" in caught.value.errors[1].lower()
    # The broker's refusal of one partition's batch does not stop the producer.
    await kafka_producer_pool.send([record(3, partition=1)])


async def test_an_unknown_topic_fails_by_index_and_is_not_created(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    kafka_topics_created(ORDERS)
    options = ProducerOptions(overrides={"topic.metadata.propagation.max.ms": 200})
    async with ProducerPool(kafka_settings, client_id="test", log=RecordedLog(), options=options) as pool:
        with pytest.raises(DeliveryError) as caught:
            await pool.send([record(0), record(1, topic=AUDITS), record(2)])
    assert list(caught.value.errors) == [1]
    assert "Unknown topic" in caught.value.errors[1]
    everything = kafka_consumer_factory(purpose="tail").list_topics(timeout=10).topics
    assert f"{kafka_settings.realm}.{AUDITS}" not in everything


async def test_an_unknown_partition_fails_by_index(
    kafka_producer_pool: ProducerPool, kafka_topics_created: TopicCreator
) -> None:
    kafka_topics_created(ORDERS, partitions=2)
    with pytest.raises(DeliveryError) as caught:
        await kafka_producer_pool.send([record(0), record(1, partition=5)])
    assert list(caught.value.errors) == [1]
    assert "Unknown partition" in caught.value.errors[1]


async def test_two_realms_never_see_each_other(
    kafka_container: KafkaServer, realm: Realm, kafka_topics_created: TopicCreator, kafka_producer_pool: ProducerPool
) -> None:
    (here,) = kafka_topics_created(ORDERS)
    other = kafka_container.settings(Realm("test", f"{realm.tenant}-b"))
    there_created, readers = TopicCreator(other), ConsumerFactory(other)
    try:
        (there,) = there_created(ORDERS)
        async with ProducerPool(other, client_id="test", log=RecordedLog()) as other_pool:
            await asyncio.gather(kafka_producer_pool.send([record(1)]), other_pool.send([record(2)]))
        found = {name: await asyncio.to_thread(readers.read, name) for name in (here, there)}
        assert {name: values_by_key(messages) for name, messages in found.items()} == {
            here: {b"k": [1]},
            there: {b"k": [2]},
        }
    finally:
        there_created.delete_all()


async def test_a_producer_that_failed_fatally_is_replaced(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_log: RecordedLog
) -> None:
    kafka_topics_created(ORDERS, config={"max.message.bytes": "1000"})
    kafka_topics_created(AUDITS)
    # With this property a refused batch is a gap, and a gap is fatal to an idempotent producer.
    options = ProducerOptions(linger_ms=50, overrides={"enable.gapless.guarantee": True})
    async with ProducerPool(kafka_settings, client_id="test", log=kafka_log, options=options) as pool:
        await pool.send([record(0)])
        large = OutboundRecord(topic=ORDERS, value=random.randbytes(3_000), key=b"k")
        fatal = asyncio.create_task(pool.send([large]))
        pending = asyncio.create_task(pool.send([record(number, topic=AUDITS) for number in range(2_000)]))
        with pytest.raises(DeliveryError):
            await fatal
        await asyncio.wait([pending])
        assert pending.exception() is None or isinstance(pending.exception(), DeliveryError)
        deadline = time.monotonic() + 10
        while "kafka_producer_fatal" not in {line.event for line in kafka_log}:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await pool.send([record(1), record(2, topic=AUDITS)])


async def test_closing_sends_what_was_handed_over(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    options = ProducerOptions(linger_ms=300, queue_records=200)
    pool = ProducerPool(kafka_settings, client_id="test", log=RecordedLog(), options=options)
    calls = [asyncio.create_task(pool.send([record(start + n) for n in range(100)])) for start in range(0, 500, 100)]
    await asyncio.sleep(0)
    await pool.close(20)
    await asyncio.gather(*calls)
    assert values_by_key(await asyncio.to_thread(kafka_consumer_factory.read, topic)) == {b"k": list(range(500))}


def test_it_runs_on_uvloop(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)

    async def main() -> None:
        async with ProducerPool(kafka_settings, client_id="test", log=RecordedLog()) as pool:
            await asyncio.gather(*(pool.send([record(number)]) for number in range(50)))

    uvloop.run(main())
    assert values_by_key(kafka_consumer_factory.read(topic)) == {b"k": list(range(50))}


async def test_statistics_tell_how_many_brokers_are_connected(
    kafka_settings: Settings, kafka_topics_created: TopicCreator
) -> None:
    kafka_topics_created(ORDERS)
    reports: list[ClientStatistics] = []
    async with ProducerPool(
        kafka_settings,
        client_id="test",
        log=RecordedLog(),
        options=ProducerOptions(statistics_seconds=0.05),
        on_statistics=reports.append,
    ) as pool:
        assert pool.health().connected_brokers is None
        await pool.send([record(0)])
        deadline = time.monotonic() + 10
        while pool.health().connected_brokers != 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    assert reports[-1].msg_max == 50_000


async def test_closing_with_a_stopped_broker_is_bounded(
    kafka_own_broker: tuple[KafkaService, Settings], capfd: pytest.CaptureFixture[str]
) -> None:
    broker, settings = kafka_own_broker
    TopicCreator(settings)(ORDERS)
    log = RecordedLog()
    pool = ProducerPool(settings, client_id="test", log=log)
    await pool.send([record(0)])
    await asyncio.to_thread(broker.kill)
    calls = [asyncio.create_task(pool.send([record(number)] * 10)) for number in range(5)]
    await asyncio.sleep(0.3)
    assert not any(call.done() for call in calls)
    started = time.monotonic()
    await pool.close(0.5)
    assert time.monotonic() - started < 6
    for call in calls:
        with pytest.raises(DeliveryError, match="10 of 10 records were not confirmed"):
            await call
    gave_up = [line.fields["queued"] for line in log if line.event == "kafka_producer_gave_up"]
    assert gave_up
    assert gave_up[0] >= 50
    assert "rdkafka" not in "".join(capfd.readouterr())


@pytest.mark.demanding
async def test_a_broker_that_is_killed_and_comes_back_loses_and_reorders_nothing(
    kafka_own_broker: tuple[KafkaService, Settings],
) -> None:
    broker, settings = kafka_own_broker
    (topic,) = TopicCreator(settings)(ORDERS, partitions=3)
    async with ProducerPool(settings, client_id="test", log=RecordedLog()) as pool:
        finished = asyncio.Event()
        sent = 0

        async def lane(lane_number: int) -> None:
            nonlocal sent
            number = 0
            while not finished.is_set():
                await pool.send([record(number + offset, b"key-%d" % lane_number) for offset in range(20)])
                number += 20
                sent += 20
                await asyncio.sleep(0.002)

        lanes = [asyncio.create_task(lane(number)) for number in range(8)]
        while sent < 2_000:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(broker.kill)
        before = sent
        await asyncio.to_thread(broker.start)
        deadline = time.monotonic() + 60
        while sent < before + 2_000:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        finished.set()
        await asyncio.gather(*lanes)
    readers = ConsumerFactory(settings)
    by_key = values_by_key(await asyncio.to_thread(readers.read, topic))
    assert {key: numbers == list(range(len(numbers))) for key, numbers in by_key.items()} == dict.fromkeys(by_key, True)
    assert sum(map(len, by_key.values())) == sent
