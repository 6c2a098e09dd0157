"""The thread that reads answers: decodes those somebody waits for and hands them to the event loop, once per batch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from logging import WARNING
from queue import Empty, SimpleQueue
from typing import Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from omnibase_infra.shared.client.errors import AnswersLostError, InvalidAnswerError
from omnibase_infra.shared.client.partitions import end_positions, ends_reading, partition_numbers, reading_failed
from omnibase_infra.shared.client.pending_answers import AnswerHead, Arrival, PendingAnswers
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import DependencyUnavailableError, OmnibaseError, RecordRefusedError
from omnibase_infra.shared.core.limits import DecodeLimits
from omnibase_infra.shared.kafka.client_log import LogFunction

POLL_SECONDS: Final = 0.1
BATCH_RECORDS: Final = 500
# How soon it shows that partitions were added to an answer topic, or that it was deleted.
REFRESH_SECONDS = 10.0

_HEAD: Final = msgspec.json.Decoder(AnswerHead)
_NOBODY: Final = AnswerHead()


class AnswerStream(threading.Thread):
    """Reads answer topics from the moment each is first asked for. The consumer belongs to the thread, which closes it.

    Ends by `stop`, or by itself when answers can no longer be read; then everybody who waits is told.
    """

    def __init__(self, consumer: Consumer, pending: PendingAnswers, limits: DecodeLimits, log: LogFunction) -> None:
        super().__init__(name="kafka-answers", daemon=True)
        self._consumer = consumer
        self._pending = pending
        self._limits = limits
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._orders: SimpleQueue[tuple[str, asyncio.Future[None]]] = SimpleQueue()
        self._watched: dict[str, set[int]] = {}
        self._refresh_at = 0.0
        self._stop_requested = threading.Event()
        self._ready: dict[str, asyncio.Future[None]] = {}
        self.ended = False

    async def watch(self, topic: str) -> None:
        """Return when every answer that is written to the physical topic from now on will be seen.

        Raises:
            TopicMissingError: there is no such topic.
            DependencyUnavailableError: no broker answered in time.
            AnswersLostError: the stream has ended.
        """
        if self.ended:
            raise AnswersLostError("answers are not read any more")
        ready = self._ready.get(topic)
        if ready is None:
            ready = self._ready[topic] = self._loop.create_future()
            self._orders.put((topic, ready))
        try:
            # Shared by all who ask at the same time: one of them may be cancelled.
            await asyncio.shield(ready)
        except OmnibaseError:
            if self._ready.get(topic) is ready:
                del self._ready[topic]  # the next call tries again
            raise

    def stop(self) -> None:
        """Ask the thread to end; it does within about a second."""
        self._stop_requested.set()

    # From here on: the thread. What it has for the event loop goes through `_post`.

    def run(self) -> None:
        """Read until stopped or failed."""
        reason = "the client was closed"
        try:
            while not self._stop_requested.is_set():
                self._take_orders()
                if self._watched:
                    self._read()
        except Exception as error:  # noqa: BLE001 - told to everybody who waits
            reason = error.message if isinstance(error, OmnibaseError) else repr(error)
        finally:
            try:
                self._consumer.close()
            finally:
                self._post(lambda: self._after_end(reason))

    def _take_orders(self) -> None:
        try:
            while True:
                # With nothing to read the orders are what to wait for.
                topic, ready = self._orders.get(block=not self._watched, timeout=POLL_SECONDS)
                self._obey(topic, ready)
        except Empty:
            return

    def _obey(self, topic: str, ready: asyncio.Future[None]) -> None:
        try:
            numbers = partition_numbers(self._consumer, topic)
            # Explicit offsets: `OFFSET_END` would be looked up some time later, and what came before be missed.
            self._consumer.incremental_assign(end_positions(self._consumer, topic, numbers))
        except OmnibaseError as error:
            failure = error
            self._post(lambda: _fail(ready, failure))
            return
        self._watched[topic] = set(numbers)
        self._post(lambda: _succeed(ready))

    def _read(self) -> None:
        first = self._consumer.poll(POLL_SECONDS)
        if first is not None:
            messages = [first, *self._consumer.consume(BATCH_RECORDS - 1, 0)]
            if arrivals := self._arrivals(messages):
                self._post(lambda: self._pending.deliver(arrivals))
        if time.monotonic() >= self._refresh_at:
            self._refresh()

    def _arrivals(self, messages: list[Message]) -> list[Arrival]:
        arrivals: list[Arrival] = []
        wants = self._pending.wants
        for message in messages:
            if (error := message.error()) is not None:
                if ends_reading(error):
                    raise reading_failed(message.topic(), error)
                self._log(WARNING, "kafka_answers_error", topic=message.topic(), error=error.str())
                continue
            head = _head(message.value())
            if not head.specversion:
                head = self._binary_head(message)
            if wants(head):
                arrivals.append((head, self._decoded(message)))
        return arrivals

    def _decoded(self, message: Message) -> envelopes.Envelope | OmnibaseError:
        try:
            return envelopes.decode(message.value(), message.headers(), self._limits)  # type: ignore[arg-type]
        except RecordRefusedError as error:
            place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
            return InvalidAnswerError(f"the answer at {place} cannot be read: {error.message}")

    def _binary_head(self, message: Message) -> AnswerHead:
        """Return the head of a record in binary mode, which foreign workers may write."""
        if not message.headers():
            return _NOBODY
        try:
            found = envelopes.decode(message.value(), message.headers(), self._limits)  # type: ignore[arg-type]
        except RecordRefusedError:
            return _NOBODY
        return AnswerHead(found.specversion, found.type, found.causationid, found.correlationid)

    def _refresh(self) -> None:
        """Read partitions that were added to the topics from their beginning, which is later than our start."""
        self._refresh_at = time.monotonic() + REFRESH_SECONDS
        for topic, numbers in self._watched.items():
            try:
                added = set(partition_numbers(self._consumer, topic)) - numbers
            except DependencyUnavailableError as error:
                self._log(WARNING, "kafka_answers_error", topic=topic, error=error.message)
                continue
            if added:
                self._consumer.incremental_assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in added])
                numbers.update(added)

    def _post(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            # The loop was closed under the client: nobody is left to be told.
            self._stop_requested.set()

    def _after_end(self, reason: str) -> None:
        """Run on the event loop when the thread has said its last word."""
        self.ended = True

        def lost() -> OmnibaseError:
            return AnswersLostError(f"answers can no longer be read: {reason}", hint="the command may still run")

        for ready in self._ready.values():
            _fail(ready, lost())
        self._pending.fail_all(lost)


def _head(value: str | bytes | None) -> AnswerHead:
    try:
        return _HEAD.decode(value or b"")
    except (msgspec.DecodeError, RecursionError):
        return _NOBODY


def _fail(ready: asyncio.Future[None], error: OmnibaseError) -> None:
    if not ready.done():
        ready.set_exception(error)
        ready.exception()  # seen: whoever asked may be gone


def _succeed(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
