"""Dead letters as people look at them: read from headers, grouped, filtered, shown without secrets."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS, TransportHeader
from omnibase_infra.shared.core.limits import DecodeLimits
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.runtime.dead_letter_filter import DeadLetterFilter, grouped
from omnibase_infra.shared.runtime.dead_letter_view import (
    DeadLetter,
    Headers,
    OriginalPlace,
    Place,
    parse_dead_letter,
    readable,
)
from omnibase_infra.shared.testing.dead_letter_load import SIX_FAILURES, dead_command
from omnibase_infra.shared.testing.sample_fleet import order_store

REALM = Realm("test", "unit")
SPEC = order_store()
INSERT = "onex.cmd.order-store.insert-order.v1"
header_lists = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(list(TransportHeader)), st.text(max_size=8)), st.none() | st.binary(max_size=24)
    ),
    max_size=16,
)


def letter(number: int = 7, *, offset: int = 0, timestamp_ms: int = 0, **where: object) -> DeadLetter:
    record = dead_command(SPEC, REALM, number, **where)
    return parse_dead_letter(Place(0, offset), timestamp_ms, record.key, record.value, record.headers)


def test_the_headers_say_where_a_dead_letter_came_from_and_why_it_is_here() -> None:
    found = letter(7, offset=3, timestamp_ms=1_700_000_000_000, partition=2, failure=SIX_FAILURES[4])

    assert (found.place, found.timestamp_ms, found.key) == (Place(0, 3), 1_700_000_000_000, b"key-7")
    assert found.original == OriginalPlace("test-unit.onex.cmd.order-store.requests.v1", 2, 7, 1_780_000_000_007)
    assert str(found.original) == "test-unit.onex.cmd.order-store.requests.v1[2]@7"
    assert (found.worker, found.group) == ("order-store", "test-unit.omnibase-infra.order-store.consume.v1")
    assert (found.code, found.error_type, found.attempts) == ("forbidden", "ForbiddenError", 3)
    assert found.message == "the tenant '7' is not the realm's"
    assert found.event_type == INSERT
    assert len(found.fingerprint) == 16


def test_of_a_header_that_came_twice_ours_counts_which_is_the_last() -> None:
    record = dead_command(SPEC, REALM, 1)
    headers: Headers = [("onex-error-code", b"of-the-producer"), *record.headers]

    assert parse_dead_letter(Place(0, 0), 0, None, b"", headers).code == "internal-error"


def test_the_type_of_a_binary_mode_message_is_in_its_header() -> None:
    assert parse_dead_letter(Place(0, 0), 0, None, b"\xff", [("ce_type", b"a.b")]).event_type == "a.b"


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff", b"[1]", b'{"type": 3}', b"[" * 100_000, b'"\xff"'])
def test_a_value_without_a_type_has_none(value: bytes | None) -> None:
    assert parse_dead_letter(Place(0, 0), 0, None, value, []).event_type == ""


@given(header_lists, st.none() | st.binary(max_size=64))
def test_whatever_lies_in_the_topic_can_be_read_and_shown(headers: Headers, value: bytes | None) -> None:
    found = parse_dead_letter(Place(0, 0), 0, None, value, headers)

    whole = readable(found, value, headers, DecodeLimits())
    assert msgspec.json.encode(whole)
    assert whole.envelope is not None or whole.problem


def test_numbers_that_are_none_leave_the_origin_unknown() -> None:
    for name in ("onex-original-partition", "onex-original-offset"):
        for wrong in (b"", b"-1", b"1e3", "٣".encode(), b"9" * 30):
            headers = [(key, wrong if key == name else value) for key, value in dead_command(SPEC, REALM, 1).headers]
            assert parse_dead_letter(Place(0, 0), 0, None, b"", headers).original is None


@pytest.mark.parametrize(("text", "place"), [("17", Place(0, 17)), ("0/17", Place(0, 17)), ("2/0", Place(2, 0))])
def test_a_place_is_an_offset_with_or_without_its_partition(text: str, place: Place) -> None:
    assert Place.parse(text) == place
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize("text", ["", "/", "1/", "/1", "a", "-1", "1/2/3", "1.5"])
def test_anything_else_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="is no place, expected OFFSET or PARTITION/OFFSET"):
        Place.parse(text)


def test_secrets_are_masked_in_payload_envelope_and_headers() -> None:
    payload = {"user": "ann", "password": "hunter2", "nested": [{"api_key": "k", "note": "token=abc"}]}
    record = dead_command(SPEC, REALM, 1, payload)
    headers: Headers = [("x-api-key", b"secret"), *record.headers]

    whole = readable(letter(1), record.value, headers, DecodeLimits())

    assert whole.payload == {"user": "ann", "password": "***", "nested": [{"api_key": "***", "note": "token=***"}]}
    assert dict(whole.headers)["x-api-key"] == "***"
    assert whole.envelope is not None
    assert "data" not in whole.envelope
    assert "hunter2" not in str(whole)


def test_what_is_no_envelope_is_shown_as_what_it_is() -> None:
    json = readable(letter(), b'{"password": "x", "a": 1}', STRUCTURED_HEADERS, DecodeLimits())
    assert (json.envelope, json.payload) == (None, {"password": "***", "a": 1})
    assert "not a CloudEvents 1.0 envelope" in json.problem
    bytes_ = readable(letter(), b"password=hunter2 \xff\x00", [], DecodeLimits())
    assert bytes_.text is not None
    assert "hunter2" not in bytes_.text
    assert readable(letter(), None, [], DecodeLimits()).text is None


def test_what_is_nested_too_deep_to_be_walked_is_shown_as_text() -> None:
    deep = b"[" * 900 + b"]" * 900

    whole = readable(letter(), deep, STRUCTURED_HEADERS, DecodeLimits())

    assert whole.text == deep.decode()
    assert "nested 900 levels deep" in whole.problem


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(codes=("forbidden", "internal-error")), True),
        (DeadLetterFilter(codes=("forbidden",)), False),
        (DeadLetterFilter(keys=(b"key-7",)), True),
        (DeadLetterFilter(keys=(b"key-8",)), False),
        (DeadLetterFilter(types=(INSERT,)), True),
        (DeadLetterFilter(types=("insert-*",)), True),
        (DeadLetterFilter(types=("onex.cmd.*",)), True),
        (DeadLetterFilter(types=("insert",)), False),
        (DeadLetterFilter(since_ms=1000), True),
        (DeadLetterFilter(since_ms=1001), False),
        (DeadLetterFilter(until_ms=1000), False),
        (DeadLetterFilter(until_ms=1001), True),
        (DeadLetterFilter(places=(Place(0, 3), Place(0, 5))), True),
        (DeadLetterFilter(places=(Place(1, 5),)), False),
        (DeadLetterFilter(codes=("internal-error",), keys=(b"key-8",)), False),
    ],
)
def test_every_condition_that_is_set_has_to_fit(wanted: DeadLetterFilter, passes: bool) -> None:
    assert wanted.passes(letter(7, offset=5, timestamp_ms=1000), "open") is passes


def test_a_fingerprint_may_be_given_by_its_first_digits() -> None:
    found = letter()

    assert DeadLetterFilter(fingerprints=(found.fingerprint[:4],)).passes(found, "open")
    assert not DeadLetterFilter(fingerprints=("zz",)).passes(found, "open")


def test_resolved_ones_are_meant_only_when_asked_for() -> None:
    assert not DeadLetterFilter().passes(letter(), "redriven")
    assert DeadLetterFilter(resolved=True).passes(letter(), "discarded")


def test_a_filter_tells_what_is_set_and_nothing_else() -> None:
    assert DeadLetterFilter().described() == {}
    wanted = DeadLetterFilter(codes=("a",), keys=(b"\xff",), since_ms=0, places=(Place(0, 1),), resolved=True)
    assert wanted.described() == {
        "code": ["a"],
        "key": ["\\xff"],
        "since": "1970-01-01T00:00:00.000000Z",
        "offset": ["0/1"],
        "all": True,
    }


def test_failures_that_differ_in_ids_and_numbers_are_one_group() -> None:
    letters = [letter(n, offset=n, timestamp_ms=n, failure=SIX_FAILURES[n % 6]) for n in range(60)]

    groups = grouped((one, "redriven" if one.place.offset < 6 else "open") for one in letters)

    assert [(group.count, group.open, group.redriven) for group in groups] == [(10, 9, 1)] * 6
    first = next(group for group in groups if group.error_type == "KeyError")
    assert (first.first_ms, first.last_ms, first.message) == (0, 54, "no entry for '54'")
    assert first.examples == [Place(0, 42), Place(0, 48), Place(0, 54)]


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["open", "redriven", "discarded"])), max_size=40))
def test_every_dead_letter_is_in_one_group_and_the_largest_comes_first(kinds: list[tuple[int, str]]) -> None:
    letters = [(letter(n, offset=n, failure=SIX_FAILURES[kind]), state) for n, (kind, state) in enumerate(kinds)]

    groups = grouped(letters)  # type: ignore[arg-type]  # states are drawn as text

    assert sum(group.count for group in groups) == len(kinds)
    assert [group.count for group in groups] == sorted((group.count for group in groups), reverse=True)
