"""Transactions on a real broker: all or nothing, zombies and doubles kept out, certainty after every time-out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from omnibase_infra.shared.core.errors import ClusterRefusedError, DependencyUnavailableError, TopicNotDeclaredError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.outbound_topics import OutboundTopics
from omnibase_infra.shared.kafka.transaction_client import (
    ATTEMPT_SECONDS,
    ClientSpentError,
    TransactionClient,
    transaction_config,
)
from omnibase_infra.shared.kafka.transaction_errors import (
    OutputsRefusedError,
    ProducerFencedError,
    TransactionAbortedError,
    TransactionUnknownError,
)
from omnibase_infra.shared.kafka.transactional_producer import TransactionalProducer, WasCommitted
from omnibase_infra.shared.local_services import KafkaService
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog, TopicCreator

ORDERS = "onex.evt.order-store.results.v1"
INPUTS = "onex.cmd.order-store.requests.v1"
SECONDS = 30.0


def record(number: int, value: bytes | None = None) -> OutboundRecord:
    return OutboundRecord(topic=ORDERS, value=value or b"%d" % number, key=b"k")


@asynccontextmanager
async def producing(
    settings: Settings,
    member: str = "one",
    *,
    make_client: Callable[..., TransactionClient] = TransactionClient,
    log: RecordedLog | None = None,
) -> AsyncIterator[TransactionalProducer]:
    identity = settings.realm.transactional_id("order-store", member)
    config = transaction_config(settings, transactional_id=identity, client_id=f"test-{member}")
    topics = OutboundTopics(settings.realm, {ORDERS, INPUTS})
    producer = TransactionalProducer(config, topics, log=RecordedLog() if log is None else log, make_client=make_client)
    producer.start()
    try:
        yield producer
    finally:
        await producer.close(SECONDS)


async def done(future: Future[None]) -> None:
    await asyncio.wait_for(asyncio.wrap_future(future), SECONDS)


def committed(consumer: Consumer, topic: str, partition: int = 0) -> int:
    (answer,) = consumer.committed([TopicPartition(topic, partition)], timeout=SECONDS)
    return answer.offset


def joined(consumer: Consumer, topic: str) -> Consumer:
    """Return the consumer when the group has given it partitions."""
    consumer.subscribe([topic])
    wait_for_partitions(consumer, 1)
    return consumer


def wait_for_partitions(consumer: Consumer, least: int, *others: Consumer) -> None:
    deadline = time.monotonic() + SECONDS
    while len(consumer.assignment()) < least:
        assert time.monotonic() < deadline, "the group gave no partitions"
        for one in (consumer, *others):
            one.poll(0.05)


async def test_records_and_offsets_become_visible_together(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    outputs, inputs = kafka_topics_created(ORDERS, INPUTS)
    consumer = await asyncio.to_thread(joined, kafka_consumer_factory(), inputs)
    async with producing(kafka_settings) as producer:
        for position in (3, 7):
            group = consumer.consumer_group_metadata()
            await done(producer.submit([record(position)], [TopicPartition(inputs, 0, position, "note")], group))
        await producer.send([record(8), record(9)])
        (answer,) = await asyncio.to_thread(consumer.committed, [TopicPartition(inputs, 0)], SECONDS)
        assert (answer.offset, answer.metadata) == (7, "note")
        found = await asyncio.to_thread(kafka_consumer_factory.read, outputs)
    assert [(message.key(), message.value()) for message in found] == [(b"k", b"%d" % n) for n in (3, 7, 8, 9)]


async def test_headers_partitions_and_tombstones_go_out_as_they_are(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS, partitions=3)
    async with producing(kafka_settings) as producer:
        await producer.send([OutboundRecord(ORDERS, None, b"k", (("a", b"1"), ("b", None)), 2)])
    (message,) = await asyncio.to_thread(kafka_consumer_factory.read, topic)
    assert (message.partition(), message.value(), message.key()) == (2, None, b"k")
    assert message.headers() == [("a", b"1"), ("b", None)]


async def test_nothing_of_a_transaction_with_a_refused_record_is_visible_and_the_next_one_works(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    outputs, inputs = kafka_topics_created(ORDERS, INPUTS, config={"max.message.bytes": "2000"})
    consumer = await asyncio.to_thread(joined, kafka_consumer_factory(), inputs)
    batch = [record(0), record(1, random.randbytes(1500)), record(2), record(3, random.randbytes(9000))]
    async with producing(kafka_settings) as producer:

        def submit(alone: Sequence[int]) -> Future[None]:
            offsets = [TopicPartition(inputs, 0, 4)]
            return producer.submit(batch, offsets, consumer.consumer_group_metadata(), alone=alone)

        # Which of the records of one request is to blame is not said; the suspects are asked about one by one.
        with pytest.raises(OutputsRefusedError) as together:
            await done(submit(()))
        assert not together.value.alone
        assert 3 in together.value.errors
        with pytest.raises(OutputsRefusedError) as apart:
            await done(submit(tuple(together.value.errors)))
        assert (list(apart.value.errors), apart.value.alone) == ([3], True)
        assert await asyncio.to_thread(committed, consumer, inputs) < 0
        assert await asyncio.to_thread(kafka_consumer_factory.read, outputs) == []
        await producer.send([record(5)])
    assert [message.value() for message in await asyncio.to_thread(kafka_consumer_factory.read, outputs)] == [b"5"]


async def test_a_record_that_the_client_itself_refuses_is_named_and_the_next_transaction_works(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    async with producing(kafka_settings) as producer:
        with pytest.raises(OutputsRefusedError) as refused:
            await producer.send([record(0), record(1, b"x" * 3 * 1024 * 1024)])
        assert (list(refused.value.errors), refused.value.alone) == ([1], True)
        await producer.send([record(2)])
    assert [message.value() for message in await asyncio.to_thread(kafka_consumer_factory.read, topic)] == [b"2"]


async def test_a_topic_outside_the_contract_is_refused_before_anything_is_sent(kafka_settings: Settings) -> None:
    async with producing(kafka_settings) as producer:
        with pytest.raises(TopicNotDeclaredError, match=r"onex\.evt\.other\.things\.v1"):
            await producer.send([OutboundRecord("onex.evt.other.things.v1", b"x")])


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_zombie_whose_partitions_moved_commits_nothing(
    protocol: str, kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    outputs, inputs = kafka_topics_created(ORDERS, INPUTS, partitions=2)
    settings = kafka_settings.model_copy(update={"kafka_group_protocol": protocol})
    zombie = await asyncio.to_thread(joined, kafka_consumer_factory(settings=settings), inputs)
    await asyncio.to_thread(wait_for_partitions, zombie, 2)
    before = zombie.consumer_group_metadata()
    other = kafka_consumer_factory(settings=settings)
    other.subscribe([inputs])
    await asyncio.to_thread(wait_for_partitions, other, 1, zombie)
    async with producing(kafka_settings) as producer, producing(kafka_settings, "two") as successor:
        with pytest.raises(TransactionAbortedError) as aborted:
            await done(producer.submit([record(1)], [TopicPartition(inputs, 0, 1)], before))
        assert aborted.value.group_moved, str(aborted.value)
        assert await asyncio.to_thread(committed, other, inputs) < 0
        mine = other.assignment()[0].partition
        await done(successor.submit([record(2)], [TopicPartition(inputs, mine, 2)], other.consumer_group_metadata()))
        assert await asyncio.to_thread(committed, other, inputs, mine) == 2
    assert [message.value() for message in await asyncio.to_thread(kafka_consumer_factory.read, outputs)] == [b"2"]


async def test_of_two_processes_with_one_transactional_id_the_older_is_fenced_and_says_so(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    async with producing(kafka_settings, "same") as older:
        await older.send([record(1)])
        async with producing(kafka_settings, "same") as newer:
            await newer.send([record(2)])
            for number in (3, 4):
                with pytest.raises(ProducerFencedError, match="another process has opened") as fenced:
                    await older.send([record(number)])
                assert kafka_settings.realm.transactional_id("order-store", "same") in str(fenced.value)
            await newer.send([record(5)])
    found = [message.value() for message in await asyncio.to_thread(kafka_consumer_factory.read, topic)]
    assert found == [b"1", b"2", b"5"]


async def test_what_a_dead_process_left_open_is_aborted_when_its_successor_starts(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_consumer_factory: ConsumerFactory
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    config = transaction_config(
        kafka_settings,
        transactional_id=kafka_settings.realm.transactional_id("order-store", "same"),
        client_id="dead",
        transaction_seconds=60,
    )

    def die_in_a_transaction() -> Producer:
        dead = Producer(config)
        dead.init_transactions(SECONDS)
        dead.begin_transaction()
        dead.produce(topic, b"never")
        dead.flush(SECONDS)
        return dead

    dead = await asyncio.to_thread(die_in_a_transaction)
    began = time.monotonic()
    async with producing(kafka_settings, "same") as producer:
        await producer.send([record(1)])
        found = await asyncio.to_thread(kafka_consumer_factory.read, topic)
    assert [message.value() for message in found] == [b"1"]
    assert time.monotonic() - began < 20
    del dead


@pytest.mark.parametrize("with_offsets", [False, True])
async def test_brokers_that_are_away_abort_the_transaction_and_the_next_one_goes_through_when_they_are_back(
    kafka_own_broker: tuple[KafkaService, Settings], with_offsets: bool
) -> None:
    service, settings = kafka_own_broker
    topics, consumers = TopicCreator(settings), ConsumerFactory(settings)
    topic, inputs = topics(ORDERS, INPUTS)
    consumer = await asyncio.to_thread(joined, consumers(), inputs)
    offsets = [TopicPartition(inputs, 0, 1)] if with_offsets else []
    log = RecordedLog()
    async with producing(settings, log=log) as producer:
        await producer.send([record(1)])
        await asyncio.to_thread(service.stop)
        waiting = producer.submit([record(2)], offsets, consumer.consumer_group_metadata())
        await asyncio.sleep(ATTEMPT_SECONDS + 2)
        assert not waiting.done()
        await asyncio.to_thread(service.start)
        with pytest.raises(TransactionAbortedError):
            await asyncio.wait_for(asyncio.wrap_future(waiting), 60)
        await producer.send([record(3)])
    assert [line for line in log if line.event == "kafka_producer_replaced"]
    found = [message.value() for message in await asyncio.to_thread(consumers.read, topic)]
    await asyncio.to_thread(consumers.close_all)
    assert found == [b"1", b"3"]


async def test_it_closes_in_bounded_time_when_no_broker_was_ever_there(kafka_settings: Settings) -> None:
    settings = kafka_settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    async with producing(settings) as producer:
        future = producer.submit([record(1)])
        began = time.monotonic()
        await producer.close(SECONDS)
        assert time.monotonic() - began < 10
        with pytest.raises(TransactionAbortedError, match="the producer was closed"):
            await done(future)
        with pytest.raises(TransactionAbortedError, match="the producer was closed"):
            await done(producer.submit([record(2)]))


class LostAnswer(TransactionClient):
    """A client that does not hear what became of its first commit: it asked for it, or died just before."""

    commits_first = True
    deaf = True

    def commit(self) -> None:
        if type(self).deaf:
            type(self).deaf = False
            if self.commits_first:
                super().commit()
            raise ClientSpentError("commit_transaction: timed out", maybe_committed=True)
        super().commit()


@pytest.mark.parametrize("commits_first", [True, False])
async def test_a_commit_whose_answer_is_lost_counts_as_what_the_groups_offsets_say(
    commits_first: bool,
    kafka_settings: Settings,
    kafka_topics_created: TopicCreator,
    kafka_consumer_factory: ConsumerFactory,
) -> None:
    outputs, inputs = kafka_topics_created(ORDERS, INPUTS)
    consumer = await asyncio.to_thread(joined, kafka_consumer_factory(), inputs)
    client = type("Client", (LostAnswer,), {"commits_first": commits_first, "deaf": True})
    asked: list[int] = []

    def was_committed() -> bool:
        asked.append(committed(consumer, inputs))
        if len(asked) == 1:
            raise DependencyUnavailableError("the coordinator is not there", dependency="kafka")
        return asked[-1] == 9

    async with producing(kafka_settings, make_client=client) as producer:

        def submit() -> Future[None]:
            group = consumer.consumer_group_metadata()
            return producer.submit([record(1)], [TopicPartition(inputs, 0, 9)], group, was_committed=was_committed)

        if commits_first:
            await done(submit())
        else:
            with pytest.raises(TransactionAbortedError):
                await done(submit())
            await done(submit())
    assert len(asked) == 2
    found = await asyncio.to_thread(kafka_consumer_factory.read, outputs)
    assert [message.value() for message in found] == [b"1"]


@pytest.mark.parametrize("was_committed", [None, "refuses"])
async def test_a_commit_nobody_can_tell_about_is_called_unknown_and_the_producer_goes_on(
    was_committed: str | None, kafka_settings: Settings, kafka_topics_created: TopicCreator
) -> None:
    kafka_topics_created(ORDERS)

    def refuse() -> bool:
        raise TransactionUnknownError("no position moved")

    ask: WasCommitted | None = refuse if was_committed else None
    client: Any = type("Client", (LostAnswer,), {"commits_first": False, "deaf": True})
    async with producing(kafka_settings, make_client=client) as producer:
        with pytest.raises(TransactionUnknownError):
            await done(producer.submit([record(1)], was_committed=ask))
        await producer.send([record(2)])


class Forbidden(TransactionClient):
    """A client whose user may not use its transactional id."""

    def open(self, seconds: float) -> None:
        def refuse(_: float) -> None:
            raise KafkaException(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=True))

        self._call("init_transactions", refuse)


async def test_a_user_who_may_not_use_the_transactional_id_is_told_so_and_not_tried_again(
    kafka_settings: Settings,
) -> None:
    async with producing(kafka_settings, make_client=Forbidden) as producer:
        for _ in range(2):
            with pytest.raises(ClusterRefusedError, match="do not let this user run transactions"):
                await asyncio.wait_for(producer.send([record(1)]), 10)


class Broken(TransactionClient):
    """A client with a fault of ours."""

    def begin(self) -> None:
        raise RuntimeError("a fault of ours")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_fault_of_ours_leaves_nobody_waiting(kafka_settings: Settings) -> None:
    async with producing(kafka_settings, make_client=Broken) as producer:
        with pytest.raises(RuntimeError, match="a fault of ours"):
            await asyncio.wait_for(producer.send([record(1)]), 10)
        with pytest.raises(TransactionUnknownError, match="ended"):
            await asyncio.wait_for(producer.send([record(2)]), 10)
