"""What was done about dead letters: who counts as settled, and when that may be forgotten."""

from __future__ import annotations

import msgspec
import pytest

from omnibase_infra.shared.core.errors import CorruptLogError
from omnibase_infra.shared.core.naming import Realm, resolutions_topic
from omnibase_infra.shared.runtime.dead_letter_resolutions import Resolution, Resolutions, resolution_record
from omnibase_infra.shared.runtime.dead_letter_view import DeadLetter, Place, parse_dead_letter
from omnibase_infra.shared.testing.dead_letter_load import DeadLetterRecord, dead_command
from omnibase_infra.shared.testing.sample_fleet import order_store

REALM = Realm("test", "unit")
SPEC = order_store()
TOPIC = resolutions_topic(SPEC.worker, 1)


def letter(number: int, offset: int, timestamp_ms: int = 0, redrive_id: str = "") -> DeadLetter:
    record = dead_command(SPEC, REALM, number, redrive_id=redrive_id)
    return parse_dead_letter(Place(0, offset), timestamp_ms, record.key, record.value, record.headers)


def resolution_of(one: DeadLetter) -> Resolution:
    return Resolution.of(one, "redriven", redrive_id="run-1", by="ann", at="2026-01-31T12:00:00Z")


def after(*settled: DeadLetter, forgotten: tuple[Place, ...] = ()) -> Resolutions:
    found = Resolutions()
    for one in settled:
        record = resolution_record(TOPIC, one.place, resolution_of(one))
        found.take(record.key, record.value, "here")
    for place in forgotten:
        tombstone = resolution_record(TOPIC, place, None)
        found.take(tombstone.key, tombstone.value, "here")
    found.settle()
    return found


def test_a_resolution_is_keyed_by_the_place_of_its_dead_letter() -> None:
    record = resolution_record(TOPIC, Place(0, 17), resolution_of(letter(1, 17)))

    assert (record.topic, record.key, record.partition) == ("onex.dlq.order-store.resolutions.v1", b"0/17", 0)
    content = msgspec.json.decode(record.value or b"")
    assert (content["action"], content["redrive_id"], content["by"]) == ("redriven", "run-1", "ann")
    assert "reason" not in content


def test_a_settled_dead_letter_is_known_and_others_are_open() -> None:
    found = after(letter(1, 10))

    assert found.state(letter(1, 10)) == "redriven"
    assert found.state(letter(2, 11)) == "open"
    assert len(found) == 1


def test_a_second_dead_letter_of_the_same_failure_is_settled_too() -> None:
    assert after(letter(1, 10)).state(letter(1, 25)) == "redriven"


def test_a_redrive_that_failed_is_another_failure() -> None:
    found = after(letter(1, 10))

    assert found.state(letter(1, 25, redrive_id="run-1")) == "open"


def test_another_dead_letter_at_the_same_place_of_a_new_topic_is_open() -> None:
    """The topic was deleted and made anew, and its offsets began again."""
    assert after(letter(1, 10, timestamp_ms=5)).state(letter(2, 10, timestamp_ms=6)) == "open"


def test_a_dead_letter_that_does_not_say_where_it_came_from_is_known_by_its_place_alone() -> None:
    nameless = DeadLetterRecord(b"k", b"{}", [])
    one = parse_dead_letter(Place(0, 3), 5, nameless.key, nameless.value, nameless.headers)
    other = parse_dead_letter(Place(0, 4), 5, nameless.key, nameless.value, nameless.headers)

    found = after(one)

    assert (found.state(one), found.state(other)) == ("redriven", "open")


def test_a_forgotten_resolution_opens_its_dead_letter() -> None:
    assert after(letter(1, 10), forgotten=(Place(0, 10), Place(0, 99))).state(letter(1, 10)) == "open"


def test_only_resolutions_of_what_is_gone_are_obsolete() -> None:
    repeated = letter(3, 12)
    found = after(letter(1, 10), letter(2, 20), repeated)

    # 10 is gone; 20 is still there; 12 is gone, but a second dead letter of the same failure is not.
    assert list(found.obsolete([letter(2, 20), letter(3, 30)], {0: 15})) == [Place(0, 10)]
    assert list(found.obsolete([], {})) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [(None, b"{}"), (b"", b"{}"), (b"x/1", b"{}"), (b"\xff", b"{}"), (b"0/1", b""), (b"0/1", b"{}"), (b"0/1", b"1")],
)
def test_anything_else_in_the_topic_is_an_error_that_says_where(key: bytes | None, value: bytes) -> None:
    with pytest.raises(CorruptLogError, match=r"topic.*@5 is no resolution of a dead letter"):
        Resolutions().take(key, value, "topic[0]@5")


def test_fields_of_a_newer_version_are_ignored() -> None:
    found = Resolutions()
    content = msgspec.json.decode(msgspec.json.encode(resolution_of(letter(1, 0))))
    found.take(b"0/0", msgspec.json.encode(content | {"ticket": "OPS-7"}), "here")
    found.settle()

    assert found.state(letter(1, 0)) == "redriven"
