"""`omninode publish`: what it sends, prints and ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.cli.publish import app
from omnibase_infra.shared.client.errors import AnsweredFailedError
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import DeliveryError, DependencyUnavailableError, RequestTimeoutError
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse

COMMAND = {"statement": "get_order", "parameters": {"order_id": "5f0e6a3c-8f5b-5f0c-9a39-0d1f6c1f8e11"}}
DATA = json.dumps(COMMAND)
GOOD = ("postgres-adapter", "execute_statement", "--data", DATA)


def test_a_command_is_sent_and_its_id_told(run: Any, client: Any) -> None:
    result = run(app, *GOOD, "--key", "k", "--subject", "s", "--correlation-id", "c", "--expires-in", "1m")
    assert result.exit_code == 0
    ((method, arguments, options),) = client.calls
    assert (method, arguments[:2]) == ("publish", ("postgres-adapter", "execute_statement"))
    assert json.loads(arguments[2]) == COMMAND
    assert options == {"key": "k", "subject": "s", "correlationid": "c", "expires_in": 60}
    assert result.stdout.startswith("sent ")
    assert result.stdout.strip().endswith(" to test.onex.cmd.postgres-adapter.requests.v1")
    assert "omninode tail postgres-adapter --from-beginning --correlation-id conversation-1" in result.stderr


def test_node_and_operation_may_be_written_either_way(run: Any, client: Any) -> None:
    assert run(app, "postgres_adapter", "execute-statement", "--data", DATA).exit_code == 0
    assert client.calls[0][1][1] == "execute_statement"


def test_the_payload_comes_from_a_file_or_from_stdin(run: Any, client: Any, tmp_path: Path) -> None:
    (tmp_path / "with space.json").write_text(DATA)
    assert run(app, *GOOD[:3], f"@{tmp_path}/with space.json").exit_code == 0
    assert run(app, *GOOD[:3], "-", input=DATA).exit_code == 0
    assert [json.loads(arguments[2]) for _, arguments, _ in client.calls] == [COMMAND, COMMAND]


def test_without_data_the_payload_is_empty(run: Any, client: Any) -> None:
    assert run(app, "postgres-adapter", "health_check").exit_code == 0
    assert client.calls[0][1][2] == b"{}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("postgres-adaptor", "execute_statement"), "did you mean 'postgres_adapter'?"),
        (("postgres-adapter", "execute"), "there are: execute_statement, execute_transaction, query, health_check"),
        ((*GOOD[:3], '{"statement": "get_ordr"}'), "did you mean 'get_order'?"),
        ((*GOOD[:3], '{"statement": "get_order", "parameters": {"order_id": 1}}'), "at `$.parameters.order_id`"),
        ((*GOOD[:3], '{"statement": "get_order", "parameter": {}}'), "missing required field `parameters` - at `$`"),
        ((*GOOD[:3], "{"), "not JSON"),
        ((*GOOD[:3], ""), "it is empty"),
        ((*GOOD[:3], "@/no/such/file"), "--data: /no/such/file cannot be read: No such file or directory"),
        ((*GOOD, "--expires-in", "soon"), "--expires-in: 'soon' is not a duration"),
        ((*GOOD, "--wait", "--timeout", "30"), "--timeout: '30' is not a duration"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_sent(
    run: Any, client: Any, arguments: tuple[str, ...], told: str
) -> None:
    result = run(app, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert told in result.stderr
    assert result.stdout == ""
    assert client.calls == []


def test_a_bad_payload_is_refused_without_any_settings(run: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMNIBASE_ENV")
    assert "parameters" in run(app, *GOOD[:3], '{"statement": "get_order"}').stderr
    result = run(app, *GOOD)
    assert (result.exit_code, "OMNIBASE_ENV" in result.stderr) == (2, True)


def test_waiting_prints_the_row(run: Any, client: Any) -> None:
    client.outcome = {"statement": "get_order", "row_count": 1, "rows": [{"order_id": "o-1", "sku": "NAIL"}]}
    result = run(app, *GOOD, "--wait", "--timeout", "1500ms")
    assert result.exit_code == 0
    assert client.calls[0][0] == "request"
    assert client.calls[0][2]["timeout"] == 1.5
    assert result.stdout.splitlines()[1].split() == ["o-1", "NAIL"]
    assert result.stderr == "completed in 12 ms\n"


def test_json_is_one_line_with_the_envelope(run: Any, client: Any) -> None:
    client.outcome = {"row_count": 0}
    for arguments, kind in ((("--wait",), "onex.evt."), ((), "onex.cmd.")):
        result = run(app, *GOOD, *arguments, "--json")
        assert result.exit_code == 0
        (line,) = result.stdout.splitlines()
        assert json.loads(line)["type"].startswith(kind)
        assert result.stderr == ""


def test_a_failed_answer_ends_with_5_and_says_why(run: Any, client: Any, make_answer: Callable[..., Envelope]) -> None:
    response = ModelErrorResponse(
        "constraint-violated", "unique violation", retryable=True, details={"constraint": "pk"}, dependency="postgres"
    )
    client.outcome = AnsweredFailedError("w op", response, make_answer(response, "failed"))
    result = run(app, *GOOD, "--wait")
    assert result.exit_code == 5
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: w op was answered failed: constraint-violated: unique violation",
        "  constraint: pk",
        "  dependency: postgres",
        "hint: sending it again may work",
    ]
    result = run(app, *GOOD, "--wait", "--json")
    assert result.exit_code == 5
    assert msgspec.json.decode(result.stdout)["data"]["code"] == "constraint-violated"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestTimeoutError("no answer", hint="is a worker running?"), 4),
        (DeliveryError("not confirmed"), 1),
        (DependencyUnavailableError("no broker", dependency="kafka"), 1),
    ],
)
def test_no_answer_and_no_broker_have_their_exit_codes(run: Any, client: Any, error: Exception, code: int) -> None:
    client.outcome = error
    result = run(app, *GOOD, "--wait", "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("error: no")
