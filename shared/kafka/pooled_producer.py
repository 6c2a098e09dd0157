"""One librdkafka producer, the thread that serves its callbacks, and the queue of senders in front of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from logging import CRITICAL, ERROR, WARNING
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.delivery_batch import DeliveryBatch
from omnibase_infra.shared.kafka.producer_counters import ProducerCounters
from omnibase_infra.shared.kafka.sasl_login import LoginFollower, SaslLogin
from omnibase_infra.shared.kafka.statistics import ClientStatistics, parse_statistics

POLL_SECONDS: Final = 0.1
# Records handed to librdkafka before other tasks get a turn; about a millisecond.
CHUNK: Final = 500
# A sender that met a full queue continues when this share of it is used, not at every single free place.
RESUME_SHARE: Final = 0.75
PURGE_SECONDS: Final = 2.0


class PooledProducer:
    """Sends batches in the order of the calls. Methods are the event loop's; the poll thread is inside.

    It ends by itself after a fatal error, and then has to be replaced. Nobody is left waiting when the thread ends.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        log: LogFunction,
        counters: ProducerCounters,
        on_statistics: Callable[[ClientStatistics], None] | None = None,
        login: SaslLogin | None = None,
    ) -> None:
        """Create the producer and start its thread; no connection is awaited. It follows the login, if there is one.

        Raises:
            SettingsError: the client library refuses a property.
        """
        self.name = str(config["client.id"])
        self.capacity = int(config["queue.buffering.max.messages"])
        self.fatal_error: str | None = None
        self.connected_brokers: int | None = None
        self.waiting = 0
        self._log = ClientLog(log, self.name)
        self._counters = counters
        self._follower = LoginFollower(login)
        self._on_statistics = on_statistics
        self._loop = asyncio.get_running_loop()
        self._order = asyncio.Lock()
        self._room = asyncio.Event()
        self._empty = asyncio.Event()
        self._ended = asyncio.Event()
        self._room_wanted = False
        self._empty_wanted = False
        self._stopping = False
        self._pending: set[DeliveryBatch] = set()
        callbacks = {"logger": self._log, "error_cb": self._note, "stats_cb": self._on_stats}
        try:
            # None once the thread has ended. Never kept across an await: the thread is to drop the last reference.
            self._producer: Producer | None = Producer(dict(config) | callbacks)
        except KafkaException as error:
            raise SettingsError(f"the Kafka client refuses the settings of producer {self.name}: {error}") from error
        self._thread = threading.Thread(target=self._serve, name=f"kafka-{self.name}", daemon=True)
        self._thread.start()

    async def send(self, records: Sequence[OutboundRecord], topics: Sequence[str]) -> Mapping[int, str]:
        """Send a batch and return the reasons of the records that were not confirmed, by index.

        Args:
            records: in order.
            topics: physical name for each record.
        """
        batch = DeliveryBatch(records, topics, self._hand_over, self._loop)
        self._pending.add(batch)
        try:
            # First come, first served, also for those who wait for room: otherwise a later batch could overtake.
            async with self._order:
                await self._produce(batch)
            batch.seal()
            failures = await batch.confirmation
        finally:
            self._pending.discard(batch)
        self._counters.count(topics, failures)
        return self._explained(failures) if failures and self.fatal_error else failures

    def _explained(self, failures: Mapping[int, str]) -> Mapping[int, str]:
        """Add to what was purged why it was."""
        end = self._end_reason()
        return {index: reason if end in reason else f"{reason}, {end}" for index, reason in failures.items()}

    @property
    def usable(self) -> bool:
        """Return whether records can be sent by it."""
        return self.fatal_error is None and not self._stopping

    @property
    def has_ended(self) -> bool:
        """Return whether its thread is done."""
        return self._ended.is_set()

    @property
    def queued(self) -> int:
        """Return the number of records that wait in the client or for the broker's confirmation."""
        producer = self._producer
        return len(producer) if producer is not None else 0

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until every sender is answered and the queue is empty; return whether that came in time."""
        deadline = self._loop.time() + timeout_seconds
        while self._pending or self.queued:
            remaining = deadline - self._loop.time()
            if remaining <= 0 or self.has_ended:
                return False
            self._empty.clear()
            self._empty_wanted = True
            try:
                await asyncio.wait_for(self._empty.wait(), remaining)
            except TimeoutError:
                return False
        return True

    def fail(self, reason: str) -> None:
        """Declare it broken: it gives up what is queued, its senders are told, and it has to be replaced.

        From any thread.
        """
        if self.fatal_error is None:
            self.fatal_error = reason
            self._log.event(CRITICAL, "kafka_producer_fatal", reason=reason)

    def stop(self) -> None:
        """Let the thread end: what is queued is given up."""
        self._stopping = True
        self._room.set()

    async def join(self, timeout_seconds: float) -> None:
        """Wait for the thread after `stop`; afterwards no sender waits any more, whether or not it ended in time."""
        try:
            await asyncio.wait_for(self._ended.wait(), timeout_seconds)
        except TimeoutError:
            self._log.event(ERROR, "kafka_producer_thread_stuck", waited_seconds=timeout_seconds)
            self._give_up_pending()
        else:
            self._thread.join(POLL_SECONDS)

    async def _produce(self, batch: DeliveryBatch) -> None:
        index, end = 0, len(batch.records)
        while index < end:
            if not self.usable:
                self._refuse_rest(batch, index)
                return
            stop = min(index + CHUNK, end)
            index = self._produce_chunk(batch, index, stop)
            if index < stop:
                await self._wait_for_room()
            elif index < end:
                await asyncio.sleep(0)

    def _produce_chunk(self, batch: DeliveryBatch, start: int, stop: int) -> int:
        """Produce records from `start` on; return the first that did not fit, or `stop`."""
        assert self._producer is not None
        produce, records, topics = self._producer.produce, batch.records, batch.topics
        for index in range(start, stop):
            record = records[index]
            headers = record.headers
            try:
                produce(
                    topics[index],
                    record.value,
                    record.key,
                    -1 if record.partition is None else record.partition,
                    batch,
                    None,
                    0,
                    headers if headers is None or type(headers) is list else list(headers),
                )
            except BufferError:
                return index
            except KafkaException as error:
                self._refused(batch, index, error.args[0])
        return stop

    def _refused(self, batch: DeliveryBatch, index: int, error: KafkaError) -> None:
        batch.refuse(index, error.str())
        if _is_fatal(error):
            self.fail(error.str())

    def _refuse_rest(self, batch: DeliveryBatch, start: int) -> None:
        for index in range(start, len(batch.records)):
            batch.refuse(index, f"not sent, {self._end_reason()}")

    async def _wait_for_room(self) -> None:
        self._room.clear()
        self._room_wanted = True
        self.waiting += 1
        try:
            # Bounded: the poll thread looks at the wish at least every POLL_SECONDS, and when it ends.
            await self._room.wait()
        finally:
            self.waiting -= 1

    def _end_reason(self) -> str:
        return f"the producer failed: {self.fatal_error}" if self.fatal_error else "the producer was closed"

    def _give_up_pending(self) -> None:
        left = sum(batch.give_up(self._end_reason()) for batch in list(self._pending))
        if left:
            self._log.event(ERROR, "kafka_records_unconfirmed", records=left, reason=self._end_reason())

    # From here on: the poll thread. What it has for the event loop goes through `_post`.

    def _serve(self) -> None:
        producer = self._producer
        assert producer is not None
        try:
            while self.usable:
                served = self._poll(producer, POLL_SECONDS)
                self._follower.apply(producer)
                self._signal(producer, served)
            self._abandon(producer)
        except Exception as error:
            self.fail(f"its thread ended: {error!r}")
            raise
        finally:
            self._stopping = True
            # Destroying it may take a moment and must not happen on the event loop.
            self._producer = None
            del producer
            self._post(self._after_end)

    def _poll(self, producer: Producer, timeout: float) -> int:
        try:
            return producer.poll(timeout)
        except KafkaException as error:
            # How the client library tells of a fatal error: by raising it instead of calling `error_cb`.
            self._note(error.args[0])
            return 0
        except Exception as error:  # noqa: BLE001 - a log or statistics function that raises must not stop confirmations
            self._log.event(ERROR, "kafka_producer_callback_failed", error=repr(error))
            return 0

    def _signal(self, producer: Producer, served: int) -> None:
        """Wake those who wait for room or for an empty queue, where it is time."""
        if self._room_wanted and (not served or len(producer) <= self.capacity * RESUME_SHARE):
            self._room_wanted = False
            self._post(self._room.set)
        if self._empty_wanted and not len(producer):
            self._empty_wanted = False
            self._post(self._empty.set)

    def _abandon(self, producer: Producer) -> None:
        """Give up what is queued and in flight; the senders get it as delivery reports."""
        if left := len(producer):
            self._log.event(WARNING, "kafka_producer_gave_up", queued=left, reason=self._end_reason())
        producer.purge(in_queue=True, in_flight=True, blocking=False)
        deadline = time.monotonic() + PURGE_SECONDS
        while len(producer) and time.monotonic() < deadline:
            self._poll(producer, POLL_SECONDS)

    def _note(self, error: KafkaError) -> None:
        self._counters.note_error(error.str())
        self._log.error(error)
        if _is_fatal(error):
            self.fail(error.str())

    def _on_stats(self, text: str) -> None:
        statistics = parse_statistics(text)
        self.connected_brokers = statistics.connected_brokers()
        if self._on_statistics:
            self._on_statistics(statistics)

    def _hand_over(self, batch: DeliveryBatch) -> None:
        self._post(batch.settle)

    def _post(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            # The loop was closed under the pool: nobody is left to be told.
            self._stopping = True

    def _after_end(self) -> None:
        """Run on the event loop when the thread has said its last word."""
        self._ended.set()
        self._room.set()
        self._empty.set()
        self._give_up_pending()


def _is_fatal(error: KafkaError) -> bool:
    # What produce raises after a fatal error has the code but not the flag.
    return error.fatal() or error.code() == KafkaError._FATAL
