"""`omninode publish` and `omninode tail` as processes of their own, on a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, TopicCreator

SPEC = load_spec("postgres_adapter")
OPERATION = next(item for item in SPEC.operations if item.name == "execute_statement")
COMMAND = {"statement": "get_order", "parameters": {"order_id": "5f0e6a3c-8f5b-5f0c-9a39-0d1f6c1f8e11"}}
PUBLISH = ("publish", "postgres-adapter", "execute_statement", "--data", json.dumps(COMMAND), "--wait")

RunProcess = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(kafka_settings: Settings) -> dict[str, str]:
    """The environment of a process of the test's realm."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
    return own | {
        "OMNIBASE_ENV": kafka_settings.env,
        "OMNIBASE_TENANT": kafka_settings.tenant,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": kafka_settings.kafka_bootstrap_servers or "",
    }


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "omnibase_infra.shared.cli.main", *arguments]


@pytest.fixture
def omninode(environment: dict[str, str]) -> RunProcess:
    """Runs `omninode` and waits for its end."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(*arguments), env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def topics(kafka_topics_created: TopicCreator) -> list[str]:
    """Command, answer, dead-letter and control topic, by their physical names."""
    control = next(item.topic for item in SPEC.operations if item.topic != OPERATION.topic)
    names = (OPERATION.topic, OPERATION.answer_topic, str(SPEC.dead_letter_topic), control)
    return kafka_topics_created(*names, partitions=2)


@pytest.fixture
def answers(
    topics: list[str], kafka_consumer_factory: ConsumerFactory, kafka_settings: Settings
) -> Iterator[dict[str, object]]:
    """Answers commands with what the test puts in: `payload`, and `outcome` completed or failed."""
    wanted: dict[str, object] = {"outcome": "completed", "payload": {}}
    stopped = threading.Event()
    consumer = kafka_consumer_factory(purpose="tail")
    thread = threading.Thread(target=_answer, args=(consumer, topics, kafka_settings, wanted, stopped))
    thread.start()
    yield wanted
    stopped.set()
    thread.join(10)


def _answer(
    consumer: Consumer, topics: list[str], settings: Settings, wanted: dict[str, object], stopped: threading.Event
) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers or ""})
    consumer.assign([TopicPartition(topics[0], number, OFFSET_BEGINNING) for number in range(2)])
    while not stopped.is_set():
        message = consumer.poll(0.05)
        if message is not None and message.error() is None:
            answer = _answer_to(envelopes.decode(message.value()), wanted)
            producer.produce(topics[1], envelopes.encode(answer), message.key(), headers=[*STRUCTURED_HEADERS])
            producer.flush(10)


def _answer_to(command: Envelope, wanted: dict[str, object]) -> Envelope:
    kind = OPERATION.completed_type if wanted["outcome"] == "completed" else OPERATION.failed_type
    return envelopes.caused_by(
        command,
        worker=SPEC.worker,
        source="/test",
        step="answer",
        event_type=kind,
        data=envelopes.encode_data(wanted["payload"]),
        dataschema=None,
        time="2026-01-31T12:00:00Z",
    )


ROW = {
    "order_id": "5f0e6a3c-8f5b-5f0c-9a39-0d1f6c1f8e11", "customer_id": "5f0e6a3c-8f5b-5f0c-9a39-0d1f6c1f8e12",
    "sku": "NAIL", "quantity": 3, "unit_price": "1.10", "total": "3.30", "status": "open", "note": None, "revision": 1,
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z",
}  # fmt: skip


def test_publish_waits_for_the_answer_and_tail_shows_it(omninode: RunProcess, answers: dict[str, object]) -> None:
    answers["payload"] = {"statement": "get_order", "row_count": 1, "rows": [ROW]}
    published = omninode(*PUBLISH)
    assert published.returncode == 0, published.stderr
    assert "NAIL" in published.stdout
    assert "row_count: 1" in published.stdout
    tailed = omninode("tail", "postgres-adapter", "--until-end", "--json")
    assert tailed.returncode == 0, tailed.stderr
    (record,) = map(json.loads, tailed.stdout.splitlines())
    assert record["envelope"]["data"]["rows"] == [ROW]
    commands = omninode("tail", "postgres-adapter", "--commands", "--until-end", "--json")
    assert [json.loads(line)["envelope"]["data"] for line in commands.stdout.splitlines()] == [COMMAND]


def test_a_failed_answer_ends_the_process_with_5(omninode: RunProcess, answers: dict[str, object]) -> None:
    answers |= {"outcome": "failed", "payload": {"code": "not-found", "message": "no such order", "retryable": False}}
    result = omninode(*PUBLISH)
    assert (result.returncode, result.stdout) == (5, "")
    assert "not-found: no such order" in result.stderr


def test_no_answer_ends_the_process_with_4(omninode: RunProcess, topics: list[str]) -> None:
    result = omninode(*PUBLISH, "--timeout", "4s")
    assert (result.returncode, result.stdout) == (4, "")
    assert "error: no answer to " in result.stderr
    assert f"(sent to {topics[0]}); the command may still run" in result.stderr
    assert "hint: is a worker of postgres-adapter running and ready?" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_topic_ends_the_process_with_2(omninode: RunProcess) -> None:
    result = omninode(*PUBLISH)
    assert result.returncode == 2
    assert "hint: run `omninode topics apply`" in result.stderr


def test_dead_letters_are_shown_with_their_headers(
    omninode: RunProcess, topics: list[str], kafka_settings: Settings
) -> None:
    producer = Producer({"bootstrap.servers": kafka_settings.kafka_bootstrap_servers or ""})
    headers: list[tuple[str, str | bytes | None]] = [
        ("onex-error-code", b"undecodable"),
        ("onex-error-message", b"not JSON"),
    ]
    producer.produce(topics[2], b"{", b"k", headers=headers)
    assert producer.flush(10) == 0
    result = omninode("tail", "postgres-adapter", "--dead-letters", "--from-beginning", "--limit", "1")
    assert result.returncode == 0
    assert "dead: undecodable: not JSON" in result.stdout


def test_ctrl_c_ends_tail_with_0(environment: dict[str, str], topics: list[str]) -> None:
    process = subprocess.Popen(
        command_line("tail", "postgres-adapter"), env=environment, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("following ")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
