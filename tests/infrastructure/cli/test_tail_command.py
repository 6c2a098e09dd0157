"""`omninode tail`: what it follows, prints and ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from omnibase_infra.shared.cli.tail import app
from omnibase_infra.shared.client.tail import TailedRecord
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import TopicMissingError


@pytest.fixture
def records(client: Any, make_answer: Callable[..., Envelope]) -> list[TailedRecord]:
    """Five answers, which the client yields."""
    client.records = [
        TailedRecord(
            topic="onex.evt.postgres-adapter.results.v1",
            partition=0,
            offset=number,
            timestamp_ms=0,
            key=None,
            value=b"",
            envelope=make_answer({"number": number}),
        )
        for number in range(5)
    ]
    return list(client.records)


def options_of(client: Any) -> dict[str, Any]:
    ((method, arguments, options),) = client.calls
    assert (method, arguments) == ("tail", ("postgres-adapter",))
    client.calls.clear()
    return dict(options)


def test_answers_are_followed_and_shown(run: Any, client: Any, records: list[TailedRecord]) -> None:
    result = run(app, "postgres-adapter")
    assert result.exit_code == 0
    assert result.stderr == "following test.onex.evt.postgres-adapter.results.v1\n"
    assert result.stdout.count("execute-statement-completed.v1") == len(records)
    assert options_of(client) == {
        "stream": "answers",
        "from_beginning": False,
        "until_end": False,
        "types": None,
        "correlationid": None,
    }


def test_options_choose_what_is_followed(run: Any, client: Any) -> None:
    run(app, "postgres-adapter", "--dead-letters", "--from-beginning")
    options = options_of(client)
    assert (options["stream"], options["from_beginning"], options["until_end"]) == ("dead-letters", True, False)
    run(app, "postgres-adapter", "--commands", "--type", "a", "--type", "*-failed", "--correlation-id", "c")
    options = options_of(client)
    assert (options["stream"], options["types"], options["correlationid"]) == ("commands", ["a", "*-failed"], "c")


def test_what_is_there_can_be_printed_without_going_on(run: Any, client: Any) -> None:
    run(app, "postgres-adapter", "--until-end")
    options = options_of(client)
    assert (options["from_beginning"], options["until_end"]) == (True, True)


def test_it_stops_after_so_many_records(run: Any, client: Any, records: list[TailedRecord]) -> None:
    result = run(app, "postgres-adapter", "--limit", "2", "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert [json.loads(line)["envelope"]["data"]["number"] for line in result.stdout.splitlines()] == [0, 1]


def test_ctrl_c_is_a_normal_end(run: Any, client: Any, records: list[TailedRecord]) -> None:
    client.records.append(KeyboardInterrupt())
    result = run(app, "postgres-adapter", "--json")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 5


def test_two_streams_at_once_are_refused(run: Any, client: Any) -> None:
    result = run(app, "postgres-adapter", "--dead-letters", "--commands")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


def test_an_unknown_node_is_told_with_those_there_are(run: Any, client: Any) -> None:
    result = run(app, "postgres-adaptor")
    assert result.exit_code == 2
    assert "there are: postgres_adapter" in result.stderr
    assert client.calls == []


def test_an_error_while_following_has_its_exit_code(run: Any, client: Any) -> None:
    client.records = [TopicMissingError("gone", hint="run `omninode topics apply`")]
    result = run(app, "postgres-adapter")
    assert result.exit_code == 2
    assert result.stderr.endswith("error: gone\nhint: run `omninode topics apply`\n")
