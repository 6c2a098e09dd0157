"""The demo's proofs: what breaks a promise is seen, and makes the exit code 1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from omnibase_infra.shared.cli.demo import app
from omnibase_infra.shared.cli.demo_steps import run
from omnibase_infra.shared.cli.demo_steps.bad_input import BadInputOutcome
from omnibase_infra.shared.cli.demo_steps.load import LoadReport, Orders
from omnibase_infra.shared.cli.demo_steps.narration import StepTime
from omnibase_infra.shared.cli.demo_steps.observation import Observation, SeenAnswer, SeenDeadLetter
from omnibase_infra.shared.cli.demo_steps.plan import DemoPlan
from omnibase_infra.shared.cli.demo_steps.proofs import Evidence, Proof, prove, repeated_answers
from omnibase_infra.shared.cli.demo_steps.report import DemoReport
from omnibase_infra.shared.cli.demo_steps.worker_processes import WorkerReport

EXPECTED = {"a": [1, 2, 3], "b": [1, 2]}


def observation(answers: Mapping[str, Sequence[SeenAnswer]] | None = None) -> Observation:
    seen = Observation()
    completed = {f"c{number}": [SeenAnswer(f"answer-{number}")] for number in range(5)}
    seen.answers = completed | {cause: list(given) for cause, given in (answers or {}).items()}
    return seen


def outcome(went_to: str = "dead letter", code: str = "undecodable") -> BadInputOutcome:
    return BadInputOutcome(
        what="half a JSON text",
        expected="dead letter",
        expected_code="undecodable",
        went_to=went_to,
        code=code,
        message="not JSON",
    )


def worker(exit_code: int | None = 0) -> WorkerReport:
    return WorkerReport(name="worker 1", pid=1, log="/logs/worker-1.log", exit_code=exit_code)


def evidence(**changes: Any) -> Evidence:
    given: dict[str, Any] = {
        "sent": {f"c{number}" for number in range(5)},
        "expected": EXPECTED,
        "stored": EXPECTED,
        "observation": observation(),
        "bad_inputs": [outcome()],
        "others": [],
        "good_is_done": True,
        "stopped": [worker()],
    }
    return Evidence(**(given | changes))


def broken(**changes: Any) -> dict[str, Proof]:
    return {proof.what: proof for proof in prove(evidence(**changes)) if not proof.holds}


def test_all_proofs_hold_when_everything_is_as_it_was_sent() -> None:
    assert broken() == {}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"stored": {"a": [1, 2, 3], "b": [1, 2, 2]}}, {"rows stored", "events stored more than once"}),
        ({"stored": {"a": [1, 3], "b": [1, 2]}}, {"rows stored", "events lost"}),
        ({"stored": {"a": [1, 2, 3, 4], "b": [1, 2]}}, {"rows stored", "rows nobody sent"}),
        ({"stored": {"a": [1, 3, 2], "b": [1, 2]}}, {"keys whose rows are in the order they were sent"}),
        ({"observation": observation({"c1": []})}, {"commands answered `completed`"}),
        (
            {"observation": observation({"c1": [SeenAnswer("x", "constraint-violated", "no")]})},
            {"commands answered `completed`"},
        ),
        (
            {"observation": observation({"c1": [SeenAnswer("x"), SeenAnswer("y")]})},
            {"commands with different answers"},
        ),
        ({"others": [SeenDeadLetter(b"", "undecodable", "?")]}, {"dead letters apart from the bad input"}),
        (
            {"bad_inputs": [outcome("nowhere", "")]},
            {"dead letters of the bad input", "bad inputs that went where they belong"},
        ),
        ({"bad_inputs": [outcome(code="forbidden")]}, {"bad inputs that went where they belong"}),
        ({"good_is_done": False}, {"good commands behind them, completed"}),
        ({"stopped": [worker(1)]}, {"workers that SIGTERM ended with exit code 0"}),
    ],
    ids=[
        "doubled",
        "lost",
        "foreign",
        "disordered",
        "unanswered",
        "failed",
        "two-answers",
        "dead",
        "bad-input-vanished",
        "other-code",
        "good-blocked",
        "exit-code",
    ],
)
def test_a_broken_promise_breaks_its_proof_and_no_other(changes: dict[str, Any], what: set[str]) -> None:
    assert broken(**changes).keys() == what


def test_a_broken_proof_names_an_example() -> None:
    assert broken(stored={"a": [1, 3], "b": [1, 2]})["events lost"].example == "order a, sequence 2"
    failed = observation({"c1": [SeenAnswer("x", "constraint-violated", "no")]})
    assert broken(observation=failed)["commands answered `completed`"].example == "command c1: constraint-violated: no"


def test_an_answer_sent_again_with_its_id_is_counted_and_breaks_nothing() -> None:
    seen = observation({"c1": [SeenAnswer("x"), SeenAnswer("x"), SeenAnswer("x")]})
    assert broken(observation=seen) == {}
    assert repeated_answers(evidence().sent, seen) == 2


def test_every_event_that_is_sent_is_expected_once_in_the_order_of_its_key() -> None:
    orders = Orders(commands=7, keys=3)
    sent: dict[str, list[int]] = {}
    for command in [*orders.commands(0, 4), *orders.commands(4, 7)]:
        parameters = command.payload["parameters"]
        assert command.key == parameters["order_id"]
        sent.setdefault(parameters["order_id"], []).append(parameters["sequence"])
    assert sent == orders.expected()
    assert sorted(map(len, sent.values())) == [2, 2, 3]


def report(*proofs: Proof) -> DemoReport:
    load = LoadReport(commands_per_second=4000.0, killed_after=5000, in_flight=250, recovery_seconds=6.5, seconds=9.0)
    return DemoReport(
        realm="local-demo-0",
        database="demo_0",
        kept=False,
        commands=10_000,
        keys=500,
        load=load,
        proofs=proofs,
        repeated_answers=3,
        bad_inputs=[outcome("nowhere", "")],
        workers=[worker()],
        steps=[StepTime("start workers", 1.5)],
        seconds=1.5,
        logs="/logs",
    )


LOST = Proof("events lost", 0, 1, "order a, sequence 2")
STORED = Proof("rows stored", 5, 5)


@pytest.mark.parametrize(("proofs", "code"), [((STORED,), 0), ((STORED, LOST), 1)], ids=["all-hold", "one-fails"])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_the_exit_code_says_whether_every_proof_holds(
    monkeypatch: pytest.MonkeyPatch, proofs: tuple[Proof, ...], code: int, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(run, "run_demo", lambda plan: report(*proofs))
    result = CliRunner().invoke(app, options)
    assert result.exit_code == code
    if options:
        assert json.loads(result.stdout)["passed"] is (code == 0)
    else:
        assert ("order a, sequence 2" in result.stdout) is (code == 1)
        assert ("1 of 2 proofs failed" in result.stdout) is (code == 1)
        assert "half a JSON text: nowhere, expected dead letter undecodable" in result.stdout


def test_more_keys_than_commands_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(plan: DemoPlan) -> DemoReport:
        raise AssertionError("it was started")

    monkeypatch.setattr(run, "run_demo", never)
    result = CliRunner().invoke(app, ["--commands", "100", "--keys", "101"])
    assert result.exit_code == 2
    assert "--keys" in result.stderr


def test_every_run_has_a_realm_and_a_database_of_its_own() -> None:
    plans = [DemoPlan(commands=100, keys=1, keep=False, state=Path()) for _ in range(2)]
    assert len({plan.tenant for plan in plans} | {plan.database for plan in plans}) == 4
    assert all(len(plan.tenant) <= 24 for plan in plans)


def test_the_json_report_says_of_each_proof_whether_it_holds() -> None:
    from omnibase_infra.shared.cli.demo_steps.report import report_json

    content = json.loads(msgspec.json.encode(report_json(report(STORED, LOST))))
    assert [proof["holds"] for proof in content["proofs"]] == [True, False]
    assert content["bad_inputs"][0]["holds"] is False
