"""A small node made by hand, and a worker that answers its commands without the runtime."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from omnibase_infra.shared.client.fleet_client import FleetClient
from omnibase_infra.shared.client.node_interface import NodeInterface
from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import UnknownNodeError
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import RUNTIME_GENERATION, OperationSpec, WorkerSpec
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog, TopicCreator

REQUESTS = "onex.cmd.price-quoter.requests.v1"
RESULTS = "onex.evt.price-quoter.results.v1"
PARTITIONS = 3
HEADERS: list[tuple[str, str | bytes | None]] = [*STRUCTURED_HEADERS]


class ModelQuote(msgspec.Struct, frozen=True, tag_field="kind", tag="quote"):
    """Ask for a price."""

    item: str
    quantity: int
    unit: Literal["piece", "box"] = "piece"


class ModelCancel(msgspec.Struct, frozen=True, tag_field="kind", tag="cancel"):
    """Withdraw a quote."""

    reason: str


class ModelQuoteResponse(msgspec.Struct, frozen=True):
    """A price."""

    price: int


class ModelNoteRequest(msgspec.Struct, frozen=True):
    """Something to be noted; nobody answers."""

    text: str


def _operation(name: str, *, answered: bool) -> OperationSpec:
    event = name.replace("_", "-")
    answers: dict[str, Any] = {
        "completed_type": f"onex.evt.price-quoter.{event}-completed.v1",
        "failed_type": f"onex.evt.price-quoter.{event}-failed.v1",
        "answer_topic": RESULTS,
    }
    return OperationSpec(
        name=name,
        topic=REQUESTS,
        event_type=f"onex.cmd.price-quoter.{event}.v1",
        request_schema=f"urn:omnibase:price-quoter:Model{event}:1.0.0",
        **(answers if answered else {}),
    )


SPEC = WorkerSpec(
    generation=RUNTIME_GENERATION,
    node="price_quoter",
    worker="price-quoter",
    class_name="NodePriceQuoterEffect",
    version="1.0.0",
    contract_sha256="0" * 64,
    description="Quotes prices.",
    node_type="effect",
    subscribe=(REQUESTS,),
    publish=(RESULTS,),
    partitions=PARTITIONS,
    operations=(_operation("quote_price", answered=True), _operation("take_note", answered=False)),
    max_record_bytes=64 * 1024,
)
REQUEST_MODELS = {"quote_price": ModelQuote | ModelCancel, "take_note": ModelNoteRequest}
RESPONSE_MODELS = {"quote_price": ModelQuoteResponse, "take_note": type(None)}
INTERFACE = NodeInterface(SPEC, REQUEST_MODELS, RESPONSE_MODELS)


def load(node: str) -> NodeInterface:
    """A node source that knows one node."""
    if node.replace("-", "_") != SPEC.node:
        raise UnknownNodeError(f"there is no node {node!r}")
    return INTERFACE


def completed(command: Envelope, price: int, **changes: str | None) -> Envelope:
    return _answer(command, "completed", ModelQuoteResponse(price), **changes)


def failed(command: Envelope, code: str, message: str) -> Envelope:
    return _answer(command, "failed", ModelErrorResponse(code, message, retryable=False, details={"item": "x"}))


def _answer(command: Envelope, outcome: str, payload: msgspec.Struct, **changes: str | None) -> Envelope:
    answer = envelopes.caused_by(
        command,
        worker=SPEC.worker,
        source="/omnibase/test/price-quoter",
        step="quote_price.answer",
        event_type=f"onex.evt.price-quoter.quote-price-{outcome}.v1",
        data=envelopes.encode_data(payload),
        dataschema=None,
        time=clock.rfc3339(0),
    )
    return msgspec.structs.replace(answer, **changes)


Answering = Callable[[Envelope], list[Envelope]]


def quote(command: Envelope) -> list[Envelope]:
    """What the worker does unless a test wants something else: ten a piece."""
    if "take-note" in command.type:
        return []
    request = msgspec.json.decode(command.data, type=ModelQuote | ModelCancel)
    if isinstance(request, ModelCancel):
        return [failed(command, "not-found", "there is no such quote")]
    return [completed(command, 10 * request.quantity)]


class AnsweringWorker:
    """Reads the command topic from its beginning in a thread and writes what `answering` returns."""

    def __init__(self, consumer: Consumer, settings: Settings) -> None:
        self.answering: Answering = quote
        self.commands: list[Envelope] = []
        self.realm = settings.realm
        self._consumer = consumer
        self._servers = settings.kafka_bootstrap_servers or ""
        self._producer = self._new_producer()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _new_producer(self) -> Producer:
        return Producer({"bootstrap.servers": self._servers, "linger.ms": 0})

    def forget_partitions(self) -> None:
        """Ask anew for the partitions there are: the client library does so every five minutes."""
        assert self._producer.flush(10) == 0
        self._producer = self._new_producer()

    def start(self) -> None:
        topic = f"{self.realm}.{REQUESTS}"
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def emit(self, *answers: Envelope) -> None:
        """Write answers, and wait until they are in the log."""
        for answer in answers:
            self._producer.produce(
                f"{self.realm}.{RESULTS}", envelopes.encode(answer), answer.record_key, headers=HEADERS
            )
        assert self._producer.flush(10) == 0

    def write(self, value: bytes, headers: Sequence[tuple[str, bytes]] = (), topic: str = "") -> None:
        """Write any bytes, by default to the answer topic."""
        self._producer.produce(topic or f"{self.realm}.{RESULTS}", value, headers=[*headers])
        assert self._producer.flush(10) == 0

    def _run(self) -> None:
        while not self._stopped.is_set():
            for message in self._consumer.consume(500, 0.01):
                if message.error() is not None:
                    continue
                command = envelopes.decode(message.value())
                self.commands.append(command)
                for answer in self.answering(command):
                    value = envelopes.encode(answer)
                    self._producer.produce(f"{self.realm}.{RESULTS}", value, message.key(), headers=HEADERS)
            self._producer.poll(0)


@pytest.fixture
def interface() -> NodeInterface:
    """The node, as a client sees it."""
    return INTERFACE


@pytest.fixture
def models() -> SimpleNamespace:
    """Its payload models."""
    return SimpleNamespace(Quote=ModelQuote, Cancel=ModelCancel)


@pytest.fixture
def answers() -> SimpleNamespace:
    """Makes answers: `completed(command, price, **changes)`, `failed(command, code, message)`, and `quote(command)`."""
    return SimpleNamespace(completed=completed, failed=failed, quote=quote)


@pytest.fixture
def quoter_topics(kafka_topics_created: TopicCreator) -> list[str]:
    """The topics of the node, by their physical names."""
    return kafka_topics_created(REQUESTS, RESULTS, str(SPEC.dead_letter_topic), partitions=PARTITIONS)


@contextmanager
def running(consumer: Consumer, settings: Settings) -> Iterator[AnsweringWorker]:
    worker = AnsweringWorker(consumer, settings)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@pytest.fixture
def answering_worker() -> Callable[[Consumer, Settings], AbstractContextManager[AnsweringWorker]]:
    """Runs a worker of one's own: `with answering_worker(consumer, settings) as worker: ...`."""
    return running


@pytest.fixture
def quoter(
    quoter_topics: list[str], kafka_consumer_factory: ConsumerFactory, kafka_settings: Settings
) -> Iterator[AnsweringWorker]:
    """A running worker."""
    with running(kafka_consumer_factory(purpose="tail"), kafka_settings) as worker:
        yield worker


@pytest.fixture
async def client(kafka_settings: Settings, kafka_log: RecordedLog) -> AsyncIterator[FleetClient]:
    """A client of the test's realm that knows the node."""
    async with FleetClient(kafka_settings, log=kafka_log, nodes=load) as client:
        yield client
    print(*kafka_log, sep="\n")  # seen when the test fails
