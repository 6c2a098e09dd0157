"""What is written to a retry topic is read back as it was meant; what somebody else wrote is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.errors import InvalidEnvelopeError
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.runtime.parked_records import (
    Entry,
    ParkedState,
    marker,
    origin_headers,
    origin_of,
    own_headers,
    parked_record,
    read_entry,
)
from omnibase_infra.shared.runtime.records import Headers, Origin, PartitionWork, Record

SOURCE = TopicName.parse("onex.cmd.shop.requests.v1")
RETRY = TopicName.parse("onex.retry.shop.requests.v1")
OURS = [header.value for header in TransportHeader]
WHY = [(TransportHeader.GROUP.value, "dev.shop.v1"), (TransportHeader.ATTEMPT.value, "2")]

own_names = st.text(min_size=1, max_size=20).filter(lambda name: name not in OURS)
values = st.none() | st.binary(max_size=40)
some_headers = st.lists(st.tuples(own_names, values), max_size=6)
any_headers = st.none() | st.lists(st.tuples(own_names | st.sampled_from(OURS), values), max_size=8)
offsets = st.integers(0, 2**63 - 1)
times = st.integers(0, 4_000_000_000).map(float)
ids = st.text("0123456789abcdef", min_size=1, max_size=32)


def from_source(offset: int, key: bytes | None, value: bytes | None, headers: Headers | None) -> Record:
    return Record(PartitionWork(SOURCE, f"dev.{SOURCE}", 3), offset, 1_700_000_000_123, key, value, headers)


def as_consumed(outbound: OutboundRecord) -> Record:
    """Return what the worker reads back, from the partition it wrote to."""
    assert outbound.partition is not None
    work = PartitionWork(RETRY, f"dev.{RETRY}", outbound.partition, source=SOURCE)
    headers = [(name, value) for name, value in outbound.headers or ()]
    return Record(work, 0, 1_700_000_999_000, outbound.key, outbound.value, headers)


def refusal_of(headers: Headers | None) -> str:
    record = Record(PartitionWork(RETRY, f"dev.{RETRY}", 0, source=SOURCE), 0, 0, b"k", b"{}", headers)
    with pytest.raises(InvalidEnvelopeError) as caught:
        read_entry(record)
    assert "omninode dlq" in str(caught.value.hint)
    return caught.value.message


# -- parked records -------------------------------------------------------------------------------------------------


@given(offsets, values, values, some_headers, times, ids)
def test_a_parked_record_comes_back_with_key_value_and_own_headers_untouched(
    offset: int, key: bytes | None, value: bytes | None, headers: Headers, not_before: float, epoch: str
) -> None:
    record = from_source(offset, key, value, headers)
    outbound = parked_record(str(RETRY), record, WHY, not_before=not_before, written_by=epoch)
    assert (outbound.topic, outbound.key, outbound.value, outbound.partition) == (str(RETRY), key, value, 3)
    entry = read_entry(as_consumed(outbound))
    assert entry == Entry(
        state=None,
        group="dev.shop.v1",
        written_by=epoch,
        origin=Origin(f"dev.{SOURCE}", 3, offset, 1_700_000_000_123),
        attempts=2,
        not_before=not_before,
        first_failed_at="",
        own_headers=headers or None,
    )


@given(offsets, values, any_headers, ids)
def test_headers_of_ours_that_a_record_brings_along_mean_nothing(
    offset: int, value: bytes | None, headers: Headers | None, epoch: str
) -> None:
    """A dead letter sent to the source again by hand has them all, some of which would end the record unseen."""
    record = from_source(offset, b"k", value, headers)
    outbound = parked_record(str(RETRY), record, WHY, not_before=0.0, written_by=epoch)
    entry = read_entry(as_consumed(outbound))
    assert (entry.state, entry.group, entry.written_by) == (None, "dev.shop.v1", epoch)
    assert entry.identity == (offset, "")
    assert entry.own_headers == (own_headers(headers) or None)
    names = [name for name, _ in outbound.headers or () if name in OURS]
    assert len(names) == len(set(names))


@given(offsets, some_headers, times, times)
def test_a_record_parked_again_and_again_keeps_its_first_place_and_gains_no_headers(
    offset: int, headers: Headers, first: float, second: float
) -> None:
    record = from_source(offset, b"k", b"{}", headers)
    parked = as_consumed(parked_record(str(RETRY), record, WHY, not_before=first, written_by="a"))
    entry = read_entry(parked)
    parked.origin, parked.headers = entry.origin, entry.own_headers
    again = parked_record(str(RETRY), parked, WHY, not_before=second, written_by="b")
    assert read_entry(as_consumed(again)).origin == entry.origin == origin_of(record)
    assert len(again.headers or ()) == len(headers) + 4 + len(WHY) + 2


def test_a_redriven_record_is_its_groups_and_known_by_its_redrive() -> None:
    headers: Headers = [
        (TransportHeader.ORIGINAL_OFFSET.value, b"7"),
        (TransportHeader.GROUP.value, b"dev.shop.v1"),
        (TransportHeader.REDRIVE_GROUP.value, b"dev.shop.v2"),
        (TransportHeader.REDRIVE_ID.value, b"0190"),
    ]
    entry = read_entry(as_consumed(OutboundRecord(str(RETRY), b"{}", b"k", headers, partition=3)))
    assert (entry.group, entry.identity, entry.written_by) == ("dev.shop.v2", (7, "0190"), "")
    assert (entry.attempts, entry.not_before) == (0, 0.0)


# -- markers --------------------------------------------------------------------------------------------------------


@given(offsets, values, st.sampled_from(ParkedState), st.integers(0, 1000), times, ids)
def test_a_marker_says_of_which_record_what_became_and_nothing_else(
    offset: int, key: bytes | None, state: ParkedState, attempts: int, not_before: float, epoch: str
) -> None:
    record = from_source(offset, key, b"{}", [("own", b"1")])
    record.first_failed_at = "2026-01-01T00:00:00.000000Z"
    sign = marker(
        str(RETRY), record, state, group="dev.shop.v1", written_by=epoch, attempts=attempts, not_before=not_before
    )
    assert (sign.value, sign.key, sign.partition) == (None, key, 3)
    entry = read_entry(as_consumed(sign))
    assert (entry.state, entry.identity, entry.group, entry.written_by) == (state, (offset, ""), "dev.shop.v1", epoch)
    assert entry.own_headers is None
    if state is ParkedState.RETRY:
        assert (entry.attempts, entry.not_before) == (attempts, not_before)
        assert entry.first_failed_at == record.first_failed_at
    else:
        assert (entry.attempts, entry.not_before, entry.first_failed_at) == (0, 0.0, "")


@pytest.mark.parametrize("state", ParkedState)
def test_a_marker_about_a_redriven_record_names_its_redrive(state: ParkedState) -> None:
    record = from_source(900, b"k", b"{}", None)
    record.origin = Origin(f"dev.{SOURCE}", 3, 12, 0, redrive_id="0190")
    assert read_entry(as_consumed(marker(str(RETRY), record, state, group="g", written_by="e"))).identity == (
        12,
        "0190",
    )


def test_headers_of_a_place_can_be_read_as_that_place() -> None:
    origin = Origin("dev.onex.cmd.shop.requests.v1", 5, 42, 1_700_000_000_000)
    headers: Headers = [(name, value.encode()) for name, value in origin_headers(origin)]
    headers.append((TransportHeader.GROUP.value, b"g"))
    record = Record(PartitionWork(RETRY, f"dev.{RETRY}", 5, source=SOURCE), 0, 0, None, b"{}", headers)
    assert read_entry(record).origin == origin


# -- garbage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "place"),
    [
        (None, "onex-"),
        ([("content-type", b"application/json")], "onex-"),
        ([(TransportHeader.GROUP.value, b"g")], "onex-original-offset"),
        ([(TransportHeader.ORIGINAL_OFFSET.value, b"1")], "onex-group"),
        ([(TransportHeader.GROUP.value, b"g"), (TransportHeader.ORIGINAL_OFFSET.value, b"one")], "one"),
        ([(TransportHeader.GROUP.value, b"g"), (TransportHeader.ORIGINAL_OFFSET.value, None)], "onex-original-offset"),
        ([(TransportHeader.GROUP.value, b"g"), (TransportHeader.ORIGINAL_OFFSET.value, b"\xff\xfe")], "onex-"),
    ],
)
def test_what_lacks_the_headers_of_an_entry_is_refused_and_the_header_named(
    headers: Headers | None, place: str
) -> None:
    assert place in refusal_of(headers)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (TransportHeader.PARKED_STATE, b"finished"),
        (TransportHeader.NOT_BEFORE, b"tomorrow"),
        (TransportHeader.NOT_BEFORE, b"2026-01-01T00:00:00"),
        (TransportHeader.ATTEMPT, b"many"),
        (TransportHeader.ORIGINAL_PARTITION, b"p1"),
        (TransportHeader.ORIGINAL_TIMESTAMP, b""),
    ],
)
def test_a_header_that_cannot_be_read_is_refused_and_named_with_its_value(
    header: TransportHeader, value: bytes
) -> None:
    good: Headers = [(TransportHeader.GROUP.value, b"g"), (TransportHeader.ORIGINAL_OFFSET.value, b"1")]
    message = refusal_of([*good, (header.value, value)])
    assert header.value in message
    assert value.decode() in message


@given(any_headers, values)
def test_whatever_lies_in_a_retry_topic_is_an_entry_or_refused(headers: Headers | None, value: bytes | None) -> None:
    record = Record(PartitionWork(RETRY, f"dev.{RETRY}", 0, source=SOURCE), 0, 0, b"k", value, headers)
    try:
        entry = read_entry(record)
    except InvalidEnvelopeError:
        return
    assert entry.group
    assert isinstance(entry.origin.offset, int)
