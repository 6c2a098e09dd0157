"""Dead letters carry the original bytes, say why, group alike failures, and stop a worker that makes too many."""

from __future__ import annotations

import pytest

from omnibase_infra.shared.core.errors import UndecodableError
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import DeadLetterSpec, WorkerSpec
from omnibase_infra.shared.runtime.dead_letters import (
    DeadLetterLimit,
    DeadLetters,
    TooManyDeadLettersError,
    fingerprint,
)
from omnibase_infra.shared.runtime.records import PartitionWork, Record

TOPIC = TopicName("cmd", "order-store", "requests", 1)
SPEC = WorkerSpec(
    generation=1,
    node="order_store",
    worker="order-store",
    class_name="NodeOrderStoreEffect",
    version="1.0.0",
    contract_sha256="0" * 64,
    description="",
    node_type="effect",
    subscribe=(str(TOPIC),),
    publish=("onex.evt.order-store.results.v1",),
)


def make_record(value: bytes | None) -> Record:
    work = PartitionWork(TOPIC, "dev." + str(TOPIC), 3)
    return Record(work, 41, 1_700_000_000_000, b"\xffkey", value, [("theirs", b"1"), ("empty", None)])


def test_value_key_and_foreign_headers_are_untouched_and_ours_say_where_and_why() -> None:
    letters = DeadLetters(SPEC, "dev.omnibase-infra.order-store.consume.v1")
    record = make_record(b"\xff\x00 not json")
    error = UndecodableError("not JSON in UTF-8: password=hunter2 at byte 0")
    outbound = letters.outbound(record, letters.output(record, error, 1_800_000_000.0))
    assert (outbound.value, outbound.key) == (b"\xff\x00 not json", b"\xffkey")
    assert outbound.topic == "onex.dlq.order-store.dead-letters.v1"
    headers = list(outbound.headers or ())
    assert headers[:2] == [("theirs", b"1"), ("empty", None)]
    ours = dict(headers[2:])
    assert ours[TransportHeader.ORIGINAL_TOPIC] == b"dev.onex.cmd.order-store.requests.v1"
    assert ours[TransportHeader.ORIGINAL_PARTITION] == b"3"
    assert ours[TransportHeader.ORIGINAL_OFFSET] == b"41"
    assert ours[TransportHeader.ERROR_CODE] == b"undecodable"
    assert b"hunter2" not in ours[TransportHeader.ERROR_MESSAGE]  # type: ignore[operator]


def test_a_dead_letter_sent_to_its_source_again_and_dead_again_has_each_of_our_headers_once() -> None:
    letters = DeadLetters(SPEC, "g")
    record = make_record(b"{}")
    first = letters.outbound(record, letters.output(record, UndecodableError("once"), 1_700_000_000.0))
    again = Record(record.work, 99, 1_700_000_001_000, record.key, record.value, list(first.headers or ()))
    second = letters.outbound(again, letters.output(again, UndecodableError("twice"), 1_700_000_002.0))
    names = [name for name, _ in second.headers or ()]
    assert sorted(names) == sorted(name for name, _ in first.headers or ())
    assert len(names) == len(set(names))
    assert dict(second.headers or ())[TransportHeader.ORIGINAL_OFFSET] == b"99"


def test_the_dead_letter_of_a_message_that_came_twice_is_the_first_ones() -> None:
    letters = DeadLetters(SPEC, "g")
    first = make_record(b"{}")
    repeat = Record(first.work, 99, first.timestamp_ms, first.key, first.value, first.headers)
    stored = letters.output(first, UndecodableError("once"), 1_700_000_000.0)
    assert letters.is_of(first, stored)
    assert not letters.is_of(repeat, stored)


def test_a_null_value_stays_null() -> None:
    letters = DeadLetters(SPEC, "g")
    record = make_record(None)
    assert letters.outbound(record, letters.output(record, UndecodableError("empty"), 0.0)).value is None


def test_failures_that_differ_in_ids_and_numbers_share_a_fingerprint() -> None:
    one = fingerprint("w", "c", "E", "row 17 of 01a20c55-cf2a-7461-a6e3-e3545b920e7d: 'x' is bad")
    two = fingerprint("w", "c", "E", "row 9 of 11120c55-cf2a-7461-a6e3-e3545b920e7d: 'yy' is bad")
    assert one == two
    assert one != fingerprint("w", "c", "E", "something else")


def test_the_consecutive_limit_counts_only_an_unbroken_run() -> None:
    limit = DeadLetterLimit(DeadLetterSpec(consecutive=3, ratio=1.0, window=1000))
    limit.died()
    limit.died()
    limit.finished(1)
    limit.died()
    limit.died()
    with pytest.raises(TooManyDeadLettersError, match="3 dead letters in a row"):
        limit.died()


def test_the_ratio_limit_looks_at_the_last_window_only() -> None:
    limit = DeadLetterLimit(DeadLetterSpec(consecutive=100, ratio=0.2, window=10))
    for _ in range(50):
        limit.finished(4)
        limit.died()
    limit.finished(1)
    with pytest.raises(TooManyDeadLettersError, match="3 of the last 10 records"):
        limit.died()
