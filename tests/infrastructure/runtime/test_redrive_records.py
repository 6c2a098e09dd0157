"""What goes to the retry topics, in which order, and what never does."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.runtime.dead_letter_audit import place_runs
from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterSnapshot
from omnibase_infra.shared.runtime.dead_letter_resolutions import Resolutions
from omnibase_infra.shared.runtime.dead_letter_view import DeadLetter, Headers, OriginalPlace, Place, parse_dead_letter
from omnibase_infra.shared.runtime.redrive_records import RedriveRecords, own_headers
from omnibase_infra.shared.runtime.redrive_selection import (
    SelectedDeadLetter,
    batches,
    in_key_order,
    make_selection,
)
from omnibase_infra.shared.testing.dead_letter_load import dead_command
from omnibase_infra.shared.testing.sample_fleet import billing, order_store

REALM = Realm("test", "unit")
SPEC = order_store()
RETRIES = {TopicName.parse(f"onex.retry.order-store.{name}.v1"): 3 for name in ("requests", "control")}
RECORDS = RedriveRecords(SPEC, REALM, RETRIES)

ours = st.sampled_from(sorted(TransportHeader))
names = st.text(max_size=12).filter(lambda name: name not in set(TransportHeader))
own_header_lists: st.SearchStrategy[Headers] = st.lists(
    st.tuples(names, st.none() | st.binary(max_size=12)), max_size=6
)


def letter(number: int, offset: int = 0, **where: object) -> DeadLetter:
    record = dead_command(SPEC, REALM, number, **where)
    return parse_dead_letter(Place(0, offset), 0, record.key, record.value, record.headers)


def place_of(number: int, offset: int, key: bytes | None, size: int = 0) -> DeadLetter:
    original = OriginalPlace("topic", 0, number)
    return DeadLetter(place=Place(0, offset), timestamp_ms=0, key=key, size=size, original=original)


def snapshot_of(*letters: DeadLetter) -> DeadLetterSnapshot:
    return DeadLetterSnapshot(letters, Resolutions())


@given(own_header_lists, st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=20), st.integers(0, 2))
def test_key_value_and_own_headers_go_back_as_they_were(
    own: Headers, key: bytes | None, value: bytes | None, partition: int
) -> None:
    dead = letter(5, partition=partition)
    headers: Headers = [*own, *dead_command(SPEC, REALM, 5, partition=partition).headers[1:]]

    record = RECORDS.redriven(dead, key, value, headers, "run-1")

    assert (record.topic, record.partition) == ("onex.retry.order-store.requests.v1", partition)
    assert (record.key, record.value) == (key, value)
    written = list(record.headers or ())
    assert written[: len(own)] == list(own)
    added = dict(written[len(own) :])
    assert (added["onex-redrive-id"], added["onex-attempt"]) == (b"run-1", b"0")
    assert added["onex-redrive-group"] == added["onex-group"] == b"test-unit.omnibase-infra.order-store.consume.v1"
    assert not {"onex-not-before", "onex-parked-by", "onex-parked-state", "onex-error-code"} & added.keys()


def test_no_header_of_an_earlier_attempt_comes_along() -> None:
    dead = letter(5, redrive_id="run-1")
    earlier: Headers = [("own", b"1"), *((str(name), b"old") for name in TransportHeader)]

    record = RECORDS.redriven(dead, b"k", b"v", earlier, "run-2")

    assert b"old" not in [value for _, value in record.headers or ()]
    assert [value for name, value in record.headers or () if name == "onex-redrive-id"] == [b"run-2"]


@given(own_header_lists, st.lists(st.tuples(ours, st.binary(max_size=4)), max_size=6))
def test_own_headers_are_those_that_no_worker_writes(own: Headers, transport: Headers) -> None:
    assert own_headers([*transport, *own, *transport]) == list(own)


def test_each_source_has_its_own_retry_topic() -> None:
    record = RECORDS.redriven(letter(1, topic="onex.cmd.order-store.control.v1"), b"k", b"v", [], "run-1")

    assert record.topic == "onex.retry.order-store.control.v1"


@pytest.mark.parametrize(
    ("dead", "reason"),
    [
        (letter(1, topic="onex.cmd.billing.requests.v1"), "is no topic that order-store reads"),
        (letter(1, partition=3), "has 3 partitions, none for"),
        (DeadLetter(place=Place(0, 0), timestamp_ms=0, key=None, size=0), "no worker wrote it"),
    ],
)
def test_what_cannot_go_back_says_why(dead: DeadLetter, reason: str) -> None:
    assert reason in RECORDS.refusal(dead)
    assert RECORDS.released(dead, b"k") is None


def test_dead_letters_of_another_group_are_not_ours_to_run() -> None:
    other = RedriveRecords(order_store(version="2.0.0"), REALM, RETRIES)

    assert "given up by the group test-unit.omnibase-infra.order-store.consume.v1" in other.refusal(letter(1))
    assert RECORDS.refusal(letter(1)) == ""


def test_events_of_others_go_back_to_the_readers_own_retry_topic_only() -> None:
    spec = billing()
    retries = dict.fromkeys(spec.retry_topics.values(), 4)
    record = dead_command(order_store(), REALM, 1)
    headers = [(n, v) for n, v in record.headers if n not in ("onex-original-topic", "onex-group")]
    headers += [
        ("onex-original-topic", b"test-unit.onex.evt.shop.orders.v1"),
        ("onex-group", b"test-unit.omnibase-infra.billing.consume.v1"),
    ]
    dead = parse_dead_letter(Place(0, 0), 0, b"k", b"v", headers)

    redriven = RedriveRecords(spec, REALM, retries).redriven(dead, b"k", b"v", headers, "run-1")

    assert redriven.topic == "onex.retry.billing.evt-shop-orders.v1"


def test_a_released_marker_names_the_attempt_that_was_given_up() -> None:
    marker = RECORDS.released(letter(9, partition=1, redrive_id="run-1"), b"key-9")

    assert marker is not None
    assert (marker.key, marker.value, marker.partition) == (b"key-9", None, 1)
    headers = dict(marker.headers or ())
    assert headers["onex-parked-state"] == b"released"
    assert (headers["onex-original-offset"], headers["onex-redrive-id"]) == (b"9", b"run-1")


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([None, b"a", b"b", b"c"])), max_size=30))
def test_of_each_key_the_order_of_its_records_is_kept_and_nothing_else_moves(
    found: list[tuple[int, bytes | None]],
) -> None:
    letters = [place_of(number, offset, key) for offset, (number, key) in enumerate(found)]

    ordered = in_key_order(letters)

    assert sorted(ordered, key=lambda one: one.place) == letters
    by_key: dict[bytes | None, list[DeadLetter]] = defaultdict(list)
    for one in ordered:
        by_key[one.key].append(one)
    for key, of_key in by_key.items():
        if key is not None:
            numbers = [one.original.offset for one in of_key if one.original]
            assert numbers == sorted(numbers)
    if all(numbers == sorted(numbers) for numbers in ([n for n, k in found if k == key] for key in (b"a", b"b", b"c"))):
        assert ordered == letters


def test_a_failure_that_was_written_twice_is_chosen_once_with_its_repeats() -> None:
    first, other, again = letter(1, 0), letter(2, 1), letter(1, 2)

    selection = make_selection(snapshot_of(first, other, again), [first, other], RECORDS.refusal)

    assert selection.chosen == (SelectedDeadLetter(first, (again,)), SelectedDeadLetter(other))
    assert selection.count == 3


def test_a_limit_counts_failures_and_refused_ones_are_told_apart() -> None:
    letters = [letter(number, number) for number in range(5)]
    foreign = letter(9, 9, topic="onex.cmd.billing.requests.v1")

    selection = make_selection(snapshot_of(*letters, foreign), [foreign, *letters], RECORDS.refusal, limit=2)

    assert [item.letter for item in selection.chosen] == letters[:2]
    assert [item.letter for item in selection.refused] == [foreign]


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 10), st.integers(0, 100))
def test_batches_hold_so_many_records_and_bytes_at_most_but_one_at_least(
    sizes: list[int], records: int, most_bytes: int
) -> None:
    chosen = [SelectedDeadLetter(place_of(n, n, None, size)) for n, size in enumerate(sizes)]

    found = list(batches(chosen, records, most_bytes))

    assert [item for batch in found for item in batch] == chosen
    for batch in found:
        assert 1 <= len(batch) <= records
        assert len(batch) == 1 or sum(item.letter.size for item in batch) <= most_bytes


@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 40))))
def test_runs_of_places_name_every_place_once(places: set[tuple[int, int]]) -> None:
    found = set()
    for run in place_runs(Place(*place) for place in places):
        partition, _, offsets = run.partition("/")
        first, _, last = offsets.partition("-")
        found |= {(int(partition), offset) for offset in range(int(first), int(last or first) + 1)}

    assert found == places
