"""Errors on the command line: one line, a hint, an exit code."""

from __future__ import annotations

import json

import pytest

from omnibase_infra.shared.cli import console
from omnibase_infra.shared.client.errors import AnsweredFailedError, AnswersLostError
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import (
    DeliveryError,
    DependencyUnavailableError,
    InvalidPayloadError,
    LocalServiceError,
    OmnibaseError,
    RequestTimeoutError,
    SettingsError,
    TopicMissingError,
    UnknownNodeError,
    UnknownOperationError,
)
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse


def answered_failed() -> AnsweredFailedError:
    envelope = envelopes.original(source="/test", event_type="x", data=envelopes.encode_data({}))
    return AnsweredFailedError("w op", ModelErrorResponse("not-found", "no", retryable=False), envelope)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("a"), 2),
        (UnknownNodeError("a"), 2),
        (TopicMissingError("a"), 2),
        (InvalidPayloadError("a"), 2),
        (UnknownOperationError("a"), 2),
        (RequestTimeoutError("a"), 4),
        (answered_failed(), 5),
        (AnswersLostError("a"), 1),
        (DeliveryError("a"), 1),
        (DependencyUnavailableError("a", dependency="kafka"), 1),
        (LocalServiceError("a"), 1),
        (OmnibaseError("a"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: OmnibaseError, code: int) -> None:
    assert console.report(error) == code


def test_an_error_is_told_on_stderr_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    console.report(TopicMissingError("the topic a does not exist", hint="run `omninode topics apply`"))
    console.report(DeliveryError("not confirmed"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: the topic a does not exist",
        "hint: run `omninode topics apply`",
        "error: not confirmed",
    ]


def test_durations_have_units() -> None:
    assert console.parse_seconds("--timeout", "500ms") == 0.5
    assert console.parse_seconds("--timeout", "2m") == 120
    for text in ("30", "0s", "soon", "-1s"):
        with pytest.raises(OmnibaseError, match="--timeout: "):
            console.parse_seconds("--timeout", text)


def test_tables_show_values_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(["[bold]a", "b"], [["[red]x[/]", None], [1, {"k": [True]}]])
    header, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["[bold]a", "b"]
    assert first == ["[red]x[/]", "-"]
    assert second == ["1", '{"k":[true]}']


def test_a_wide_table_is_not_cut_for_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(["a", "b"], [["x" * 90, "y" * 90]])
    assert "x" * 90 in capsys.readouterr().out


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json_line({"a": "line\nbreak"})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"a": "line\nbreak"}
