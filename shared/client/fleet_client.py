"""FleetClient: send commands to workers, wait for their answers, follow their topics. For people's own programs."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import msgspec

from omnibase_infra.shared.client.answer import Answer
from omnibase_infra.shared.client.answer_stream import AnswerStream
from omnibase_infra.shared.client.command import Command, CommandWriter
from omnibase_infra.shared.client.errors import AnsweredFailedError, ClientClosedError, InvalidAnswerError
from omnibase_infra.shared.client.node_interface import NodeInterface, NodeSource, OperationInterface, load_interface
from omnibase_infra.shared.client.pending_answers import PendingAnswers
from omnibase_infra.shared.client.tail import Tail, TailFilter, TailStream
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    InvalidPayloadError,
    RequestTimeoutError,
    TopicMissingError,
)
from omnibase_infra.shared.core.limits import DecodeLimits
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.client_log import LogFunction
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
from omnibase_infra.shared.kafka.producer_config import HEADROOM_BYTES, ProducerOptions
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.kafka.sasl_login import SaslLogin
from omnibase_infra.shared.kafka.topic_check import require_topics
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse

__all__ = ["Answer", "Command", "FleetClient"]

CLIENT: Final = "client"

REQUEST_SECONDS: Final = 30.0
DELIVERY_SECONDS: Final = 30.0
MAX_WAITING: Final = 4096
TOPIC_CHECK_SECONDS: Final = 10.0
_TOPIC_TRIES: Final = 3
_TOPIC_RETRY_SECONDS: Final = 0.3
CLOSE_SECONDS: Final = 10.0
_JOIN_SECONDS: Final = 5.0
# Commands that are checked and written before other tasks get a turn; a few milliseconds.
_CHUNK: Final = 200
# Answers may have far more fields than commands may: a row is a dozen of them.
_ANSWER_FIELDS: Final = 1_000_000

_ERROR_RESPONSE: Final = msgspec.json.Decoder(ModelErrorResponse)


class FleetClient:
    """Talks to the workers of one realm. Belongs to one event loop; use it as `async with`.

        async with FleetClient(load_settings()) as client:
            answer = await client.request("postgres_adapter", "execute_statement", {"statement": …, "parameters": …})
            print(answer.payload.rows)

    Payloads are checked against the contract's models before anything is sent. A node is named by its folder or its
    worker, and may carry a version: `postgres_adapter`, `postgres-adapter`, `postgres_adapter/1.0.0`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log: LogFunction | None = None,
        nodes: NodeSource = load_interface,
        max_waiting: int = MAX_WAITING,
        linger_ms: float = 1,
        delivery_timeout_seconds: float = DELIVERY_SECONDS,
        login: SaslLogin | None = None,
    ) -> None:
        """Prepare the client; nothing connects before the first call.

        Args:
            settings: brokers, security and realm.
            log: where the Kafka clients' own warnings go; default: the `logging` logger `omnibase_infra.client`.
            nodes: where interfaces of nodes come from; default: the generated nodes.
            max_waiting: requests that wait for answers at the same time, at least one; further ones wait for a turn.
            linger_ms: how long a command may wait for others to share a network request with.
            delivery_timeout_seconds: how long the broker's confirmation may take.
            login: followed, so that the Kafka password may change while the client lives; default: the settings' for good.

        Raises:
            SettingsError: no broker is set, or the security settings do not fit together.
        """
        if max_waiting < 1:
            raise ValueError(f"at least one request may wait, not {max_waiting}")
        self._settings = settings
        self._login = login
        self._realm = settings.realm
        self._writer = CommandWriter(settings.realm, CLIENT)
        self._log = log or _standard_log
        self._load = nodes
        self._nodes: dict[str, NodeInterface] = {}
        self._physical_names: dict[str, str] = {}
        self._client_id = f"{CLIENT}-{os.getpid()}"
        self._limits = DecodeLimits(settings.max_record_bytes + HEADROOM_BYTES, max_fields=_ANSWER_FIELDS)
        self._producer = ProducerPool(
            settings,
            client_id=self._client_id,
            log=self._log,
            options=ProducerOptions(
                linger_ms=linger_ms, statistics_seconds=0, delivery_timeout_seconds=delivery_timeout_seconds
            ),
            login=login,
        )
        self._pending = PendingAnswers()
        # A queue and no semaphore, which looks through all who wait each time it wakes one.
        self._turns: asyncio.Queue[None] = asyncio.Queue()
        for _ in range(max_waiting):
            self._turns.put_nowait(None)
        self._stream: AnswerStream | None = None
        self._known_topics: set[str] = set()
        self._topic_check = asyncio.Lock()
        self._tails: list[Tail] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def interface(self, node: str) -> NodeInterface:
        """Return a node's operations and models.

        Raises:
            UnknownNodeError: lists the nodes there are.
            GenerationDriftError: it was generated for another runtime.
        """
        interface = self._nodes.get(node)
        if interface is None:
            interface = self._nodes[node] = self._load(node)
        return interface

    async def publish(
        self,
        node: str,
        operation: str,
        payload: Any,
        *,
        key: str | None = None,
        subject: str | None = None,
        correlationid: str | None = None,
        expires_in: float | None = None,
    ) -> Envelope:
        """Send a command and return its envelope once the broker has confirmed it. Waits for no answer.

        Args:
            node: see the class.
            operation: its name, in snake or kebab case.
            payload: an instance of the request model, plain data, or JSON as text or bytes.
            key: commands of one key are run in the order they were sent; default: the subject, else none shares it.
            subject: what the command is about.
            correlationid: of the conversation it belongs to; default: it begins one.
            expires_in: seconds after which the worker answers `expired` instead of running it; default: never.

        Raises:
            UnknownNodeError, UnknownOperationError: they list what there is.
            InvalidPayloadError: the payload does not fit the contract; nothing was sent.
            TopicMissingError, DependencyUnavailableError: the command topic or the brokers are not there.
            KafkaAccessError, ClusterRefusedError: they do not let us in, or not to the topic.
            DeliveryError: the broker did not confirm; the command may run or not.
        """
        command = Command(payload=payload, key=key, subject=subject, correlationid=correlationid)
        (sent,) = await self.publish_many(node, operation, [command], expires_in=expires_in)
        return sent

    async def publish_many(
        self, node: str, operation: str, commands: Iterable[Command], *, expires_in: float | None = None
    ) -> list[Envelope]:
        """Send commands and return their envelopes, in order, once the broker has confirmed all of them.

        All are checked before the first is sent. A few hundred at a time are fastest.

        Raises:
            InvalidPayloadError: names the command by its index; nothing was sent.
            DeliveryError: some were not confirmed; `errors` has the indexes. Those may run or not.
            UnknownNodeError, UnknownOperationError, TopicMissingError, DependencyUnavailableError: see `publish`.
        """
        self._check_open()
        target = self.interface(node).operation(operation)
        given = list(commands)
        prepared: list[tuple[Envelope, OutboundRecord]] = []
        for index, command in enumerate(given):
            if index % _CHUNK == _CHUNK - 1:
                await asyncio.sleep(0)
            try:
                prepared.append(self._writer.write(target, command, target.encode_request(command.payload), expires_in))
            except InvalidPayloadError as error:
                if len(given) == 1:
                    raise
                raise InvalidPayloadError(f"command {index}: {error.message}", hint=error.hint) from None
        if not prepared:
            return []
        await self._get_ready([target.spec.topic])
        await self._producer.send([record for _, record in prepared])
        return [envelope for envelope, _ in prepared]

    async def request(
        self,
        node: str,
        operation: str,
        payload: Any,
        *,
        key: str | None = None,
        subject: str | None = None,
        correlationid: str | None = None,
        expires_in: float | None = None,
        timeout: float = REQUEST_SECONDS,  # noqa: ASYNC109 - part of what is asked, and named in the error
    ) -> Answer:
        """Send a command and return the worker's answer.

        Args:
            node, operation, payload, key, subject, correlationid, expires_in: see `publish`.
            timeout: seconds for everything: sending, the worker's work, the answer.

        Raises:
            AnsweredFailedError: the worker answered that it could not do it; holds its `ModelErrorResponse`.
            RequestTimeoutError: no answer in time; names topic and message id. The command may still run.
            AnswersLostError, InvalidAnswerError: the answer will not or cannot be read. The command may have run.
            ClientClosedError: the client was closed.
            UnknownNodeError, UnknownOperationError, InvalidPayloadError, TopicMissingError,
            DependencyUnavailableError, DeliveryError: see `publish`.
        """
        self._check_open()
        began = time.monotonic()
        target = self.interface(node).operation(operation)
        if not target.spec.answer_topic:
            raise ConfigurationError(
                f"{target.worker} answers no {target.spec.name}: it is a one-way operation", hint="use publish"
            )
        data = target.encode_request(payload)
        command = Command(payload=payload, key=key, subject=subject, correlationid=correlationid)
        await self._get_ready([target.spec.topic, target.spec.answer_topic], min(timeout, TOPIC_CHECK_SECONDS))
        sent: Envelope | None = None
        confirmed = False
        deadline = asyncio.timeout_at(asyncio.get_running_loop().time() + timeout - (time.monotonic() - began))
        try:
            async with deadline, self._turn():
                await self._answers().watch(self._physical(target.spec.answer_topic))
                envelope, record = self._writer.write(target, command, data, expires_in)
                with self._pending.waiting(envelope, target.spec) as arriving:
                    sent = envelope
                    await self._producer.send([record])
                    confirmed = True
                    answer = await arriving
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._timed_out(target, sent, timeout, confirmed=confirmed) from None
        return self._answer(target, envelope, answer, time.monotonic() - began)

    def tail(
        self,
        node: str,
        *,
        stream: TailStream = "answers",
        from_beginning: bool = False,
        until_end: bool = False,
        types: Collection[str] | None = None,
        correlationid: str | None = None,
    ) -> Tail:
        """Return an async iterator over a worker's answers, commands or dead letters.

        Positions are fixed on entering it as `async with`, or else by the first step. The client closes what is left.

        Args:
            node: see the class.
            stream: which of its topics.
            from_beginning: start with what is in the log, otherwise with what comes.
            until_end: stop at what was the end on opening, otherwise go on for ever.
            types: CloudEvents types, whole or their event part (`execute-statement-failed`), with `*` and `?`.
            correlationid: of one conversation.

        Raises:
            UnknownNodeError, GenerationDriftError: see `interface`.
        """
        self._check_open()
        # Read ahead by little: a tail is read by people, and must not hold much.
        options = ConsumerOptions(statistics_seconds=0, fetched_records=1000, fetched_kilobytes=4096)
        tail = Tail(
            lambda: create_consumer(
                self._settings,
                group=self._group(),
                purpose="replay" if until_end else "tail",
                client_id=f"{self._client_id}-tail",
                log=self._log,
                options=options,
                login=self._login,
            ),
            _topics_of(self.interface(node), stream),
            self._realm,
            wanted=TailFilter(tuple(types or ()), correlationid),
            limits=self._limits,
            log=self._log,
            prepare=self._require_physical,
            from_beginning=from_beginning,
            until_end=until_end,
        )
        self._tails = [one for one in self._tails if not one.closed]
        self._tails.append(tail)
        return tail

    async def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Confirm or give up what is under way within the time-out; whoever still waits gets an error. Twice is once."""
        if self._closed:
            return
        self._closed = True
        self._pending.fail_all(lambda: ClientClosedError("the client was closed while an answer was awaited"))
        try:
            for tail in self._tails:
                await tail.aclose()
            await self._producer.close(timeout_seconds)
        finally:
            if self._stream is not None:
                self._stream.stop()
                await asyncio.to_thread(self._stream.join, _JOIN_SECONDS)

    def _answer(self, target: OperationInterface, request: Envelope, answer: Envelope, seconds: float) -> Answer:
        if answer.type != target.spec.failed_type:
            return Answer(target.decode_response(answer), answer, request, seconds)
        try:
            response = decode_payload(_ERROR_RESPONSE, answer.data)
        except InvalidPayloadError as error:
            raise InvalidAnswerError(f"the failed answer {answer.id} cannot be read: {error.message}") from error
        raise AnsweredFailedError(f"{target.worker} {target.spec.name}", response, answer)

    def _timed_out(
        self, target: OperationInterface, sent: Envelope | None, seconds: float, *, confirmed: bool
    ) -> RequestTimeoutError:
        topic = self._physical(target.spec.topic)
        if sent is None:
            return RequestTimeoutError(
                f"nothing was sent to {topic} within {seconds:g} s: too many requests wait, or no broker answers"
            )
        if not confirmed:
            return RequestTimeoutError(
                f"the broker did not confirm {sent.id} on {topic} within {seconds:g} s; the command may still run",
                hint="are the brokers well? `omninode doctor` looks",
            )
        return RequestTimeoutError(
            f"no answer to {sent.id} within {seconds:g} s (sent to {topic}); the command may still run",
            hint=f"is a worker of {target.worker} running and ready? `omninode tail {target.worker} "
            f"--from-beginning --correlation-id {sent.conversation}` shows a late answer",
        )

    def _answers(self) -> AnswerStream:
        """Return the stream that reads answers, started on first use and again after it was lost."""
        self._check_open()
        if self._stream is None or self._stream.ended:
            consumer = create_consumer(
                self._settings,
                group=self._group(),
                purpose="answers",
                client_id=f"{self._client_id}-answers",
                log=self._log,
                options=ConsumerOptions(statistics_seconds=0),
                login=self._login,
            )
            self._stream = AnswerStream(consumer, self._pending, self._limits, self._log)
            self._stream.start()
        return self._stream

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until no more than `max_waiting` requests wait for answers, this one included."""
        await self._turns.get()
        try:
            yield
        finally:
            self._turns.put_nowait(None)

    async def _get_ready(self, topics: Sequence[str], timeout_seconds: float = TOPIC_CHECK_SECONDS) -> None:
        # A new producer needs half a second for its id; it may begin while the topics are looked for.
        self._producer.start()
        await self._require_physical([self._physical(topic) for topic in topics], timeout_seconds)

    async def _require_physical(self, topics: Sequence[str], timeout_seconds: float = TOPIC_CHECK_SECONDS) -> None:
        """Make sure that topics are there: asked once, since a producer would wait long for one that is not."""
        if self._known_topics.issuperset(topics):
            return
        async with self._topic_check:
            if unknown := sorted(set(topics) - self._known_topics):
                await self._look_for(unknown, timeout_seconds)
                self._known_topics.update(unknown)

    async def _look_for(self, topics: Sequence[str], timeout_seconds: float) -> None:
        for tries_left in reversed(range(_TOPIC_TRIES)):
            try:
                settings = self._login.settings if self._login else self._settings
                await asyncio.to_thread(
                    require_topics, settings, topics, log=self._log, timeout_seconds=timeout_seconds
                )
            except TopicMissingError:
                # Brokers learn of a topic a little after it was created.
                if not tries_left:
                    raise
                await asyncio.sleep(_TOPIC_RETRY_SECONDS)
            else:
                return

    def _physical(self, topic: str) -> str:
        name = self._physical_names.get(topic)
        if name is None:
            name = self._physical_names[topic] = TopicName.parse(topic).physical(self._realm)
        return name

    def _group(self) -> str:
        return self._realm.group(CLIENT, 1)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed")


def _topics_of(interface: NodeInterface, stream: TailStream) -> list[TopicName]:
    spec = interface.spec
    if stream == "dead-letters":
        return [spec.dead_letter_topic]
    if stream == "commands":
        names = {operation.topic for operation in spec.operations}
    else:
        names = {operation.answer_topic for operation in spec.operations if operation.answer_topic}
    return [TopicName.parse(name) for name in sorted(names)]


def _standard_log(level: int, event: str, /, **fields: Any) -> None:
    logging.getLogger("omnibase_infra.client").log(level, "%s %s", event, fields)
