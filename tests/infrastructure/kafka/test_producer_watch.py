"""A producer that finds no way back to brokers that answer others is replaced; an outage is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec
import pytest

from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.pooled_producer import PooledProducer
from omnibase_infra.shared.kafka.producer_config import ProducerOptions
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.kafka.producer_watch import REASON, ProducerWatch
from omnibase_infra.shared.testing.fleet import eventually
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog, TopicCreator, read_topic
from omnibase_infra.shared.testing.tcp_proxy import TcpProxy

ORDERS = "onex.evt.order-store.results.v1"
LOOK = 0.01


class Producer(msgspec.Struct, eq=False):
    """What a watch looks at, as the test says."""

    usable: bool = True
    connected_brokers: int | None = 0
    queued: int = 1
    waiting: int = 0
    failed: list[str] = msgspec.field(default_factory=list)

    def fail(self, reason: str) -> None:
        self.failed.append(reason)
        self.usable = False


class Brokers:
    """Answers whether brokers answer, as the test says, and counts how often it was asked."""

    def __init__(self, answer: Callable[[int], bool]) -> None:
        self.asked = 0
        self._answer = answer

    async def __call__(self) -> bool:
        self.asked += 1
        return self._answer(self.asked)


async def watched(producer: Producer, brokers: Brokers, until: Callable[[], object], *, cut_off: float = 0.0) -> None:
    watch = ProducerWatch(brokers, cut_off_seconds=cut_off, look_seconds=LOOK)
    task = asyncio.create_task(watch.run(lambda: [cast("PooledProducer", producer)]))
    try:
        await eventually(until, "the watch has done it", 5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_producer_cut_off_from_brokers_that_answer_is_given_up_after_a_second_look() -> None:
    producer, brokers = Producer(), Brokers(lambda _: True)
    await watched(producer, brokers, lambda: producer.failed)
    assert producer.failed == [REASON]
    assert brokers.asked == 2


async def test_in_an_outage_it_is_left_alone() -> None:
    producer, brokers = Producer(), Brokers(lambda _: False)
    await watched(producer, brokers, lambda: brokers.asked > 5)
    assert not producer.failed


async def test_brokers_that_answer_once_and_then_not_are_an_outage() -> None:
    producer, brokers = Producer(), Brokers(lambda asked: bool(asked % 2))
    await watched(producer, brokers, lambda: brokers.asked > 6)
    assert not producer.failed


@pytest.mark.parametrize(
    "producer",
    [Producer(connected_brokers=1), Producer(connected_brokers=None), Producer(queued=0), Producer(usable=False)],
    ids=["connected", "not known yet", "nothing to send", "has failed before"],
)
async def test_nobody_is_asked_about_a_producer_that_is_not_cut_off(producer: Producer) -> None:
    brokers, looks = Brokers(lambda _: True), 0

    def looked() -> list[PooledProducer]:
        nonlocal looks
        looks += 1
        return [cast("PooledProducer", producer)]

    task = asyncio.create_task(ProducerWatch(brokers, cut_off_seconds=0, look_seconds=LOOK).run(looked))
    await eventually(lambda: looks > 5, "it has looked", 5)
    task.cancel()
    assert (brokers.asked, producer.failed) == (0, [])


async def test_one_that_finds_back_between_two_looks_is_kept() -> None:
    producer = Producer()

    def answer(asked: int) -> bool:
        producer.connected_brokers = 1
        return True

    brokers = Brokers(answer)
    await watched(producer, brokers, lambda: brokers.asked)
    assert not producer.failed


async def test_senders_that_wait_for_room_count_as_work() -> None:
    producer, brokers = Producer(queued=0, waiting=1), Brokers(lambda _: True)
    await watched(producer, brokers, lambda: producer.failed)


async def test_the_pool_tells_the_senders_and_goes_on_with_a_new_producer(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    host, _, port = str(kafka_settings.kafka_bootstrap_servers).rpartition(":")
    with TcpProxy(int(port), host=host) as proxy:
        # The pool's producers know only this way to the brokers, and it is shut; whoever else asks has another one.
        proxy.cut()
        options = ProducerOptions(
            cut_off_seconds=0.5,
            statistics_seconds=0.5,
            overrides={"bootstrap.servers": f"{host}:{proxy.port}"},
        )
        log = RecordedLog()
        async with ProducerPool(kafka_settings, client_id="test", log=log, options=options) as pool:
            with pytest.raises(DeliveryError) as caught:
                async with asyncio.timeout(60):
                    await pool.send([OutboundRecord(ORDERS, b"1", b"k"), OutboundRecord(ORDERS, b"2", b"k")])
            assert set(caught.value.errors) == {0, 1}
            assert all(REASON in reason for reason in caught.value.errors.values())
            assert "kafka_producer_fatal" in {line.event for line in log}
            proxy.restore()
            async with asyncio.timeout(60):
                await pool.send([OutboundRecord(ORDERS, b"3", b"k")])
    found = read_topic(kafka_consumer_factory(purpose="replay"), topic)
    assert [message.value() for message in found] == [b"3"]
