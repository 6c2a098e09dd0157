"""Records of a followed topic, shown to people and to programs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from omnibase_infra.shared.cli.record_view import SHOWN_CHARACTERS, record_json, record_lines
from omnibase_infra.shared.client.tail import TailedRecord
from omnibase_infra.shared.core.envelope import Envelope


def record(envelope: Envelope | None, **changes: Any) -> TailedRecord:
    fields: dict[str, Any] = {
        "topic": "onex.evt.postgres-adapter.results.v1",
        "partition": 2,
        "offset": 17,
        "timestamp_ms": 1_769_860_800_123,
        "key": b"order-1",
        "value": b"",
        "envelope": envelope,
    }
    return TailedRecord(**(fields | changes))


def test_an_answer_is_shown_with_when_what_where_and_whose(make_answer: Callable[..., Envelope]) -> None:
    answer = make_answer({"row_count": 1})
    first, second, third = record_lines(record(answer))
    assert first.startswith("2026-01-31T12:00:00.123Z  onex.evt.postgres-adapter.execute-statement-completed.v1")
    assert "key=order-1  onex.evt.postgres-adapter.results.v1[2]@17" in first
    assert f"id={answer.id}  correlation=conversation-1  cause={answer.causationid}" in second
    assert third == '  {"row_count":1}'


def test_a_dead_letter_is_shown_with_its_reason_and_where_it_came_from() -> None:
    headers = {
        "content-type": "application/cloudevents+json",
        "onex-original-topic": "test.onex.cmd.a.requests.v1",
        "onex-original-partition": "3",
        "onex-original-offset": "99",
        "onex-attempt": "4",
        "onex-error-code": "undecodable",
        "onex-error-message": "not JSON",
    }
    dead = record(
        None,
        value=b"\x1b[31m\xff",
        problem="not JSON",
        headers=tuple((name, value.encode()) for name, value in headers.items()),
    )
    lines = list(record_lines(dead))
    assert "not an envelope: not JSON" in lines[0]
    assert lines[1:] == [
        "  dead: undecodable: not JSON",
        "  from: test.onex.cmd.a.requests.v1[3]@99",
        "  attempt=4",
        "  \\x1b[31m\\xff",
    ]


def test_no_terminal_obeys_what_is_in_a_record(make_answer: Callable[..., Envelope]) -> None:
    answer = msgspec.structs.replace(make_answer(None), data=msgspec.Raw('"\u202e\u2028"'.encode()))
    shown = "\n".join(record_lines(record(answer, key=b"a\nb")))
    assert "key=a\\nb" in shown
    assert '"\\u202e\\u2028"' in shown


def test_people_see_the_beginning_of_a_long_payload(make_answer: Callable[..., Envelope]) -> None:
    *_, payload = record_lines(record(make_answer({"text": "x" * 10_000})))
    assert len(payload) < SHOWN_CHARACTERS + 50
    assert payload.endswith("… (10011 characters)")


def test_a_tombstone_and_a_record_without_time_and_key_are_shown() -> None:
    lines = list(record_lines(record(None, value=None, key=None, timestamp_ms=-1, problem="the value is empty")))
    assert lines == [
        "-  not an envelope: the value is empty  onex.evt.postgres-adapter.results.v1[2]@17",
        "  no value (tombstone)",
    ]


def test_programs_get_everything_as_json(make_answer: Callable[..., Envelope]) -> None:
    answer = make_answer({"text": "x" * 10_000})
    content = msgspec.json.decode(msgspec.json.encode(record_json(record(answer, headers=(("a", b"b"), ("c", None))))))
    assert content["topic"] == "onex.evt.postgres-adapter.results.v1"
    assert (content["partition"], content["offset"], content["key"]) == (2, 17, "order-1")
    assert content["timestamp"] == "2026-01-31T12:00:00.123Z"
    assert content["headers"] == {"a": "b", "c": ""}
    assert content["envelope"]["data"] == {"text": "x" * 10_000}
    assert "problem" not in content


def test_programs_get_bytes_that_are_no_text_as_base64() -> None:
    content = record_json(record(None, key=b"\xff", value=b"\xfe", problem="not JSON", timestamp_ms=-1))
    assert base64.b64decode(content["key_base64"]) == b"\xff"
    assert base64.b64decode(content["value_base64"]) == b"\xfe"
    assert (content["envelope"], content["problem"], content["timestamp"]) == (None, "not JSON", None)
