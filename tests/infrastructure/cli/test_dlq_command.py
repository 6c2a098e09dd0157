"""`omninode dlq` on a real broker: what it lists, groups, shows, redrives and discards, and how it ends."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from omnibase_infra.shared.cli import dlq
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.dead_letter_load import (
    SIX_FAILURES,
    DeadLetterRecord,
    dead_command,
    dead_letter_headers,
    write_dead_letters,
)
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry

SPEC = load_spec("postgres_adapter")
RETRY = "onex.retry.postgres-adapter.requests.v1"
ORDER = {"statement": "get_order", "parameters": {"order_id": "5f0e6a3c-8f5b-5f0c-9a39-0d1f6c1f8e11"}}
PASSWORD = "hunter2-in-the-payload"


class Operator:
    """Runs `omninode dlq` in the test's realm."""

    def __init__(self, settings: Settings, consumers: ConsumerFactory) -> None:
        self.settings = settings
        self._consumers = consumers

    def run(self, *arguments: str, **options: Any) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(dlq.app, list(arguments), **options)

    def json(self, *arguments: str) -> list[Any]:
        """Run a command with --json and return its lines."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    def give_up(self, count: int, payload: Any = None) -> None:
        """Write dead letters of six kinds."""
        realm = self.settings.realm
        records = [
            dead_command(SPEC, realm, n, ORDER if payload is None else payload, failure=SIX_FAILURES[n % 6])
            for n in range(count)
        ]
        write_dead_letters(self.settings, SPEC, records)

    def write(self, *records: DeadLetterRecord) -> None:
        """Write these dead letters."""
        write_dead_letters(self.settings, SPEC, records)

    def retried(self) -> list[bytes | None]:
        """Return the values on the retry topic of the requests."""
        topic = TopicName.parse(RETRY).physical(self.settings.realm)
        return [message.value() for message in self._consumers.read(topic)]

    def states(self) -> list[str]:
        return [line["state"] for line in self.json("list", "postgres-adapter", "--all")]


@pytest.fixture
def operator(
    surroundings: Callable[[dict[str, str]], None], kafka_settings: Settings, kafka_consumer_factory: ConsumerFactory
) -> Operator:
    surroundings(variables_of(kafka_settings))
    admin = KafkaTopicAdmin(kafka_settings, log=RecordedLog())
    registry = TopicRegistry.from_specs([SPEC], kafka_settings.realm)
    assert provision(admin, registry.catalogue, kafka_settings.realm).is_complete
    return Operator(kafka_settings, kafka_consumer_factory)


def variables_of(settings: Settings) -> dict[str, str]:
    return {
        "OMNIBASE_ENV": settings.env,
        "OMNIBASE_TENANT": settings.tenant,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers or "",
    }


def process(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "omnibase_infra.shared.cli.main", "dlq", *arguments],
        env=own | variables_of(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_list_says_when_what_why_and_where_each_stands(operator: Operator) -> None:
    operator.give_up(3)
    operator.run("discard", "postgres-adapter", "--reason", "x", "-s", "1", "--yes")

    result = operator.run("list", "postgres-adapter", "--all")

    title, *rows = result.stdout.splitlines()
    assert title.split() == ["place", "time", "key", "code", "type", "failure", "attempts", "state"]
    first = rows[0].split()
    assert (first[0], first[2], first[3], first[6], first[7]) == ("0/0", "key-0", "internal-error", "3", "open")
    assert first[4] == "execute-statement"
    assert [row.split()[-1] for row in rows] == ["open", "discarded", "open"]
    assert result.stderr == "3 of 3 dead letters of postgres-adapter v1\n"
    assert [line["offset"] for line in operator.json("list", "postgres-adapter")] == [0, 2]
    (discarded,) = operator.json("list", "postgres-adapter", "--all", "--offset", "0/1")
    assert discarded["resolution"]["reason"] == "x"
    assert discarded["original"]["offset"] == 1


def test_every_filter_narrows_and_the_latest_are_listed_up_to_a_limit(operator: Operator) -> None:
    operator.give_up(12)

    def offsets(*options: str) -> list[int]:
        return [line["offset"] for line in operator.json("list", "postgres-adapter", *options)]

    assert offsets("--code", "forbidden") == [4, 10]
    assert offsets("--code", "forbidden", "--code", "transient") == [4, 5, 10, 11]
    fingerprint = operator.json("list", "postgres-adapter", "-s", "4")[0]["fingerprint"]
    assert offsets("--fingerprint", fingerprint[:8]) == [4, 10]
    assert offsets("--key", "key-1") == [1, 11]
    assert offsets("--type", "execute-*", "-s", "2", "-s", "0/3") == [2, 3]
    assert offsets("--type", "query") == []
    assert offsets("--since", "1h", "--limit", "2") == [10, 11]
    assert offsets("--until", "1h") == []
    assert offsets("--until", "2020-01-31T12:00:00Z") == []


def test_groups_are_failures_with_counts_times_and_examples(operator: Operator) -> None:
    operator.give_up(13)

    result = operator.run("group", "postgres-adapter")

    title, first, *_ = result.stdout.splitlines()
    assert title.split()[:5] == ["failure", "code", "open", "redriven", "discarded"]
    assert first.split()[1:5] == ["internal-error", "3", "0", "0"]
    assert "0/0 0/6 0/12" in first
    assert result.stderr == "13 dead letters of postgres-adapter v1 in 6 groups\n"
    content = json.loads(operator.run("group", "postgres-adapter", "--code", "transient", "--json").stdout)
    assert [(item["count"], item["message"], item["examples"]) for item in content] == [
        (2, "deadlock detected by process 11", ["0/5", "0/11"])
    ]


def test_one_is_shown_whole_and_without_secrets(operator: Operator) -> None:
    operator.give_up(1, {"statement": "log_in", "parameters": {"password": PASSWORD, "user": "ann\x1b[31m"}})

    result = operator.run("show", "postgres-adapter", "0/0")

    assert result.exit_code == 0
    assert "internal-error: no entry for '0'" in result.stdout
    assert re.search(r"from \S+\.onex\.cmd\.postgres-adapter\.requests\.v1\[0\]@0, tried 3 times", result.stdout)
    assert "  id: 00000000-0000-7000-8000-000000000000" in result.stdout
    assert '"password": "***"' in result.stdout
    assert PASSWORD not in result.stdout
    assert "\x1b" not in result.stdout
    (content,) = [json.loads(operator.run("show", "postgres-adapter", "0", "--json").stdout)]
    assert content["payload"]["parameters"]["password"] == "***"
    assert content["state"] == "open"


@pytest.mark.parametrize("place", ["5", "1/0", "0/99999"])
def test_where_nothing_is_nothing_is_shown(operator: Operator, place: str) -> None:
    operator.give_up(1)

    result = operator.run("show", "postgres-adapter", place)

    assert result.exit_code == 2
    assert "has no dead letter at" in result.stderr


def test_a_redrive_puts_back_what_is_meant_and_says_so(operator: Operator) -> None:
    operator.give_up(12)

    result = operator.run("redrive", "postgres-adapter", "--code", "internal-error", "--yes")

    assert result.exit_code == 0, result.stderr
    assert re.search(r"redriven 4 dead letters of postgres-adapter v1, id [0-9a-f-]{36}\n", result.stdout)
    assert len(operator.retried()) == 4
    assert operator.states() == ["redriven", "redriven", "open", "open", "open", "open"] * 2
    again = operator.run("redrive", "postgres-adapter", "--code", "internal-error", "--yes")
    assert (again.exit_code, len(operator.retried())) == (0, 4)
    assert "nothing to redrive" in again.stderr


def test_a_dry_run_says_what_would_be_done_and_does_nothing(operator: Operator) -> None:
    operator.give_up(12)

    result = operator.run("redrive", "postgres-adapter", "--limit", "7", "--dry-run")

    assert result.exit_code == 0
    assert "would redrive 7 dead letters; nothing was changed" in result.stderr
    assert "deadlock detected" in result.stdout
    assert operator.json("redrive", "postgres-adapter", "--dry-run") == [
        {"dry_run": True, "selected": 12, "refused": 0}
    ]
    assert operator.retried() == []
    assert set(operator.states()) == {"open"}


def test_nobody_is_asked_without_a_terminal_and_nothing_is_done(operator: Operator) -> None:
    operator.give_up(2)

    result = operator.run("redrive", "postgres-adapter")

    assert result.exit_code == 2
    assert "error: nothing was changed\nhint: add --yes to redrive 2 dead letters" in result.stderr
    assert operator.retried() == []


def test_what_cannot_be_redriven_is_told_with_the_reason_and_the_rest_is_done(operator: Operator) -> None:
    realm = operator.settings.realm
    foreign = dead_letter_headers(SPEC, realm, offset=1, topic="onex.cmd.billing.requests.v1")
    operator.write(DeadLetterRecord(b"k", b"{}", foreign), dead_command(SPEC, realm, 2, ORDER))

    result = operator.run("redrive", "postgres-adapter", "--yes")

    assert result.exit_code == 1
    assert f"cannot be done for 1, such as 0/0: {realm}.onex.cmd.billing.requests.v1 is no topic" in result.stderr
    assert len(operator.retried()) == 1
    nothing = operator.run("redrive", "postgres-adapter", "--yes")
    assert nothing.exit_code == 1
    assert "none of the dead letters that were meant can be redriven" in nothing.stderr
    assert operator.run("discard", "postgres-adapter", "--reason", "not ours", "--yes").exit_code == 0
    assert operator.states() == ["discarded", "redriven"]


def test_a_discard_needs_a_reason_and_runs_nothing(operator: Operator) -> None:
    operator.give_up(2)

    assert operator.run("discard", "postgres-adapter", "--yes").exit_code == 2
    assert operator.run("discard", "postgres-adapter", "--reason", " ", "--yes").exit_code == 2
    result = operator.run("discard", "postgres-adapter", "--reason", "test data", "--by", "ann", "--yes", "--json")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["resolved"] == 2
    assert operator.retried() == [None, None]
    shown = operator.run("show", "postgres-adapter", "1").stdout
    assert re.search(r"discarded by ann at \S+: test data", shown)


def test_what_was_done_is_done_once_more_only_for_a_stated_place(operator: Operator) -> None:
    operator.give_up(2)
    operator.run("discard", "postgres-adapter", "--reason", "by mistake", "--yes")

    refused = operator.run("redrive", "postgres-adapter", "--all", "--yes")
    assert refused.exit_code == 2
    assert "say which, by --offset" in refused.stderr
    assert operator.run("redrive", "postgres-adapter", "--all", "-s", "1", "--yes").exit_code == 0
    assert operator.states() == ["discarded", "redriven"]


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets an editor that replaces text: `editor("s/a/b/")` as of sed."""

    def use(expression: str) -> None:
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", f"sed -i -e '{expression}'")

    return use


def test_an_edited_payload_goes_back_in_its_own_envelope(operator: Operator, editor: Callable[[str], None]) -> None:
    record = dead_command(SPEC, operator.settings.realm, 3, ORDER)
    envelope = json.loads(record.value or b"") | {"extension": "stays", "expirytime": "2020-01-31T12:00:00Z"}
    operator.write(record._replace(value=json.dumps(envelope).encode()))
    editor("s/8e11/8e12/")

    result = operator.run("redrive", "postgres-adapter", "--edit", "--yes")

    assert result.exit_code == 0, result.stderr
    (value,) = operator.retried()
    edited = json.loads(value or b"")
    parameters = {"order_id": "5f0e6a3c-8f5b-5f0c-9a39-0d1f6c1f8e12"}
    assert edited == envelope | {"data": ORDER | {"parameters": parameters}}
    assert "redriven with a changed payload by " in operator.run("show", "postgres-adapter", "0").stdout


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("s/statement/statment/", "payload does not fit its model"),
        ("s/{/{{/", "payload is not acceptable JSON"),
        ("s/nothing/else/", "the payload was not changed"),
    ],
)
def test_an_edit_that_does_not_fit_goes_nowhere(
    operator: Operator, editor: Callable[[str], None], expression: str, message: str
) -> None:
    operator.give_up(1)
    editor(expression)

    result = operator.run("redrive", "postgres-adapter", "--edit", "--yes")

    assert result.exit_code == 2
    assert message in result.stderr
    assert operator.retried() == []
    assert operator.states() == ["open"]


def test_only_one_readable_dead_letter_can_be_edited(operator: Operator, editor: Callable[[str], None]) -> None:
    operator.give_up(2)
    broken = dead_command(SPEC, operator.settings.realm, 9)
    operator.write(broken._replace(value=b"{"))
    editor("s/a/b/")

    several = operator.run("redrive", "postgres-adapter", "--edit", "--yes")
    assert several.exit_code == 2
    assert "--edit changes one dead letter, 3 are meant" in several.stderr
    unreadable = operator.run("redrive", "postgres-adapter", "--edit", "-s", "2", "--yes")
    assert unreadable.exit_code == 2
    assert "the record is no envelope, so it has no payload" in unreadable.stderr


def test_without_an_editor_nothing_can_be_edited(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.give_up(1)
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)

    result = operator.run("redrive", "postgres-adapter", "--edit", "--yes")
    assert "no editor is set\nhint: set EDITOR" in result.stderr
    monkeypatch.setenv("EDITOR", "false")
    assert "the editor ended with 1" in operator.run("redrive", "postgres-adapter", "--edit", "--yes").stderr
    monkeypatch.setenv("EDITOR", "/nowhere/vi")
    assert "cannot be started" in operator.run("redrive", "postgres-adapter", "--edit", "--yes").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "nope"), "there is no node 'nope'"),
        (("list", "postgres-adapter", "--since", "soon"), "--since: 'soon' is no time like"),
        (("list", "postgres-adapter", "-s", "x"), "--offset: 'x' is no place"),
        (("show", "postgres-adapter", "x"), "PLACE: 'x' is no place"),
        (("redrive", "postgres-adapter", "--edit", "--dry-run"), "exclude each other"),
    ],
)
def test_a_wrong_call_is_one_clear_line(run: Any, arguments: tuple[str, ...], message: str) -> None:
    result = run(dlq.app, *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_missing_topics_are_told_with_what_makes_them(
    surroundings: Callable[[dict[str, str]], None], kafka_settings: Settings
) -> None:
    surroundings(variables_of(kafka_settings))

    result = CliRunner().invoke(dlq.app, ["list", "postgres-adapter"])

    assert result.exit_code == 2
    assert "hint: run `omninode topics apply`" in result.stderr


def test_ctrl_c_finishes_the_transaction_and_the_same_command_goes_on(operator: Operator) -> None:
    operator.give_up(200)
    arguments = ("redrive", "postgres-adapter", "--rate", "40", "--yes")

    with process(operator.settings, *arguments) as running:
        deadline = time.monotonic() + 60
        while len(operator.retried()) < 20:
            assert running.poll() is None, running.stderr.read() if running.stderr else ""
            assert time.monotonic() < deadline
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)

    assert running.returncode == 130
    done = len(operator.retried())
    assert 20 <= done < 200
    assert f"interrupted: {200 - done} are left; run the same command again to go on" in errors
    assert operator.states().count("redriven") == done

    rest = operator.run("redrive", "postgres-adapter", "--yes")
    assert f"redriven {200 - done} dead letters" in rest.stdout
    values = operator.retried()
    assert len(values) == len(set(values)) == 200


def processor_seconds() -> float:
    """Return what processes have used that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.demanding
@pytest.mark.timeout(600)
def test_a_hundred_thousand_are_listed_and_grouped_into_six_in_seconds(operator: Operator) -> None:
    operator.give_up(100_000)

    # Seconds of a processor, which other tests beside this one do not change.
    before = processor_seconds()
    with process(operator.settings, "list", "postgres-adapter") as listing:
        listed, _ = listing.communicate(timeout=120)
    between = processor_seconds()
    with process(operator.settings, "group", "postgres-adapter") as grouping:
        groups, _ = grouping.communicate(timeout=120)
    assert between - before < 12
    assert processor_seconds() - between < 12

    assert len(listed.splitlines()) == 100_001
    assert len(groups.splitlines()) == 7
