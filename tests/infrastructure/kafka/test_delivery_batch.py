"""A batch counts reports in one thread, is told its end in another, and knows which records failed."""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaError, Message

from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.kafka.delivery_batch import DeliveryBatch

TIMED_OUT = KafkaError(KafkaError._MSG_TIMED_OUT, "timed out")


def batch_of(*records: OutboundRecord) -> tuple[DeliveryBatch, list[DeliveryBatch]]:
    handed_over: list[DeliveryBatch] = []
    topics = [f"test.{record.topic}" for record in records]
    return DeliveryBatch(records, topics, handed_over.append, asyncio.get_running_loop()), handed_over


def record(value: bytes, key: bytes | None = b"k", partition: int | None = None, topic: str = "t") -> OutboundRecord:
    return OutboundRecord(topic=topic, value=value, key=key, partition=partition)


def report(value: bytes, key: bytes | None = b"k", partition: int = 0, topic: str = "test.t") -> Message:
    return Message(topic=topic, partition=partition, key=key, value=value)


async def test_the_last_report_after_the_seal_hands_over_once() -> None:
    batch, handed_over = batch_of(record(b"1"), record(b"2"))
    batch.seal()
    batch(None, report(b"1"))
    assert handed_over == []
    batch(None, report(b"2"))
    assert handed_over == [batch]
    batch.settle()
    assert await batch.confirmation == {}


async def test_reports_before_the_seal_are_not_the_end() -> None:
    batch, handed_over = batch_of(record(b"1"), record(b"2"))
    batch(None, report(b"1"))
    batch(None, report(b"2"))
    assert not batch.confirmation.done()
    batch.seal()
    assert (await batch.confirmation, handed_over) == ({}, [])


async def test_refused_records_are_not_waited_for() -> None:
    batch, _ = batch_of(record(b"1"), record(b"2"))
    batch.refuse(1, "too large")
    batch(None, report(b"1"))
    batch.seal()
    assert await batch.confirmation == {1: "too large"}


async def test_failed_records_are_found_by_topic_key_and_value() -> None:
    records = [record(b"1"), record(b"1", b"other"), record(b"1", topic="u"), record(b"2"), record(b"2", None)]
    batch, _ = batch_of(*records)
    for error, message in [
        (None, report(b"1")),
        (TIMED_OUT, report(b"1", b"other")),
        (TIMED_OUT, report(b"1", topic="test.u")),
        (None, report(b"2")),
        (TIMED_OUT, report(b"2", None)),
    ]:
        batch(error, message)
    batch.seal()
    assert await batch.confirmation == {1: "timed out", 2: "timed out", 4: "timed out"}


async def test_equal_records_of_two_partitions_are_told_apart_by_the_partition_they_were_sent_to() -> None:
    batch, _ = batch_of(record(b"1", partition=0), record(b"1", partition=1))
    batch(TIMED_OUT, report(b"1", partition=1))
    batch(None, report(b"1", partition=0))
    batch.seal()
    assert await batch.confirmation == {1: "timed out"}


async def test_equal_records_stand_for_one_another() -> None:
    batch, _ = batch_of(record(b"1"), record(b"1"), record(b"1"))
    for error in (TIMED_OUT, None, TIMED_OUT):
        batch(error, report(b"1"))
    batch.seal()
    assert await batch.confirmation == {0: "timed out", 1: "timed out"}


async def test_a_report_that_fits_no_record_fails_the_whole_batch() -> None:
    batch, _ = batch_of(record(b"1"), record(b"2"))
    batch(None, report(b"1"))
    batch(TIMED_OUT, report(b"unknown"))
    batch.seal()
    assert await batch.confirmation == {0: "timed out", 1: "timed out"}


async def test_giving_up_fails_what_is_not_confirmed_and_keeps_known_reasons() -> None:
    batch, _ = batch_of(record(b"1"), record(b"2"), record(b"3"))
    batch.refuse(2, "too large")
    batch(TIMED_OUT, report(b"1"))
    assert batch.outstanding == 1
    assert batch.give_up("closed") == 1
    assert await batch.confirmation == {0: "timed out", 1: "closed", 2: "too large"}
    assert batch.give_up("again") == 0


async def test_late_reports_of_a_cancelled_or_abandoned_batch_change_nothing() -> None:
    batch, _ = batch_of(record(b"1"))
    batch.seal()
    batch.confirmation.cancel()
    batch(None, report(b"1"))
    batch.settle()
    assert batch.give_up("closed") == 0
    assert batch.confirmation.cancelled()
