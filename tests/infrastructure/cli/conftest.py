"""The command line in this process: surroundings of its own, and a client that sends nothing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from omnibase_infra.shared.client import fleet_client
from omnibase_infra.shared.client.answer import Answer
from omnibase_infra.shared.client.tail import TailedRecord
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings

RunCommand = Callable[..., Result]


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets OMNIBASE_* variables; nothing of the machine's own settings is left."""
    for name in [name for name in os.environ if name.startswith("OMNIBASE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def set_variables(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.fixture
def run(surroundings: Callable[[dict[str, str]], None]) -> RunCommand:
    """Runs a command: `run(app, "argument", ..., input="...")`."""
    surroundings({"OMNIBASE_ENV": "test", "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})

    def invoke(app: Typer, *arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, list(arguments), **options)

    return invoke


class FakeClient:
    """Stands in for FleetClient: keeps what it was asked and answers what the test says.

    Attributes:
        calls: (method, arguments, options) of each call.
        outcome: the payload of the answer, or what is raised.
        records: what `tail` yields; an exception among them is raised.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.outcome: Any = None
        self.records: list[TailedRecord | BaseException] = []
        self.topics = ["test.onex.evt.postgres-adapter.results.v1"]

    def __call__(self, settings: Settings, **_: Any) -> Self:
        self.settings = settings
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def publish(self, *arguments: Any, **options: Any) -> Envelope:
        self.calls.append(("publish", arguments, options))
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return command()

    async def request(self, *arguments: Any, **options: Any) -> Answer:
        self.calls.append(("request", arguments, options))
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return Answer(None, answer(self.outcome), command(), 0.012)

    def tail(self, *arguments: Any, **options: Any) -> Self:
        self.calls.append(("tail", arguments, options))
        return self

    async def __aiter__(self) -> AsyncIterator[TailedRecord]:
        for record in self.records:
            if isinstance(record, BaseException):
                raise record
            yield record


def command() -> Envelope:
    return envelopes.original(
        source=Realm("test").source("client"),
        event_type="onex.cmd.postgres-adapter.execute-statement.v1",
        data=envelopes.encode_data({}),
        correlationid="conversation-1",
    )


def answer(payload: Any, outcome: str = "completed") -> Envelope:
    return envelopes.caused_by(
        command(),
        worker="postgres-adapter",
        source=Realm("test").source("postgres-adapter"),
        step="execute_statement.answer",
        event_type=f"onex.evt.postgres-adapter.execute-statement-{outcome}.v1",
        data=envelopes.encode_data(payload),
        dataschema=None,
        time="2026-01-31T12:00:00.000000Z",
    )


@pytest.fixture
def make_answer() -> Callable[..., Envelope]:
    """Makes answers: `make_answer(payload, "failed")`."""
    return answer


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The client that commands get."""
    fake = FakeClient()
    monkeypatch.setattr(fleet_client, "FleetClient", fake)
    return fake
