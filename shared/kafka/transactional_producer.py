"""Kafka transactions one after the other, on a thread of their own: records and a group's offsets, all or nothing."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from logging import ERROR, WARNING
from typing import Any, Final

from confluent_kafka import TopicPartition

from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.outbound_topics import OutboundTopics
from omnibase_infra.shared.kafka.producer_counters import ProducerCounters, ProducerHealth
from omnibase_infra.shared.kafka.sasl_login import SaslLogin
from omnibase_infra.shared.kafka.statistics import ClientStatistics
from omnibase_infra.shared.kafka.transaction_client import ClientSpentError, TransactionClient
from omnibase_infra.shared.kafka.transaction_errors import TransactionAbortedError, TransactionUnknownError

IDLE_SECONDS: Final = 0.5
OPEN_SECONDS: Final = 5.0
# Between two tries to open a client, or to learn what became of a transaction.
RETRY_SECONDS: Final = 0.5

# A transaction with all its bounds, and some time to open the next client.
LONGEST_SECONDS: Final = 30.0

WasCommitted = Callable[[], bool]


class _Job:
    """One transaction on its way."""

    __slots__ = ("alone", "future", "group", "offsets", "records", "topics", "was_committed")

    def __init__(
        self,
        records: Sequence[OutboundRecord],
        topics: Sequence[str],
        offsets: Sequence[TopicPartition],
        group: Any,
        alone: Collection[int],
        was_committed: WasCommitted | None,
    ) -> None:
        self.records = records
        self.topics = topics
        self.offsets = offsets
        self.group = group
        self.alone = alone
        self.was_committed = was_committed
        self.future: Future[None] = Future()


class TransactionalProducer:
    """The one transactional producer of a process. `submit` from any thread; transactions run in the order of the calls.

    A client that is spent (a time-out, a fatal error) is replaced by another of the same id, whose opening ends what
    the old one left open. Every future ends in certainty: committed, aborted, or an error that says why not even that
    is known. After `ProducerFencedError` nothing can be written any more.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: OutboundTopics,
        *,
        log: LogFunction,
        make_client: Callable[..., TransactionClient] = TransactionClient,
        login: SaslLogin | None = None,
    ) -> None:
        """Prepare it; `start` connects.

        Args:
            config: of `transaction_config`. The transactional id is unique among the processes that live.
            topics: what may be produced to.
            log: where librdkafka's own lines and errors go, rate-limited.
            make_client: from the configuration; for tests of what a client does not do on demand.
            login: followed, so that a password may change while it runs; None keeps the one of the configuration.
        """
        self.name = str(config["client.id"])
        self.connected_brokers: int | None = None
        self._config = config
        self._topics = topics
        self._client_log = log
        self._log = ClientLog(log, self.name)
        self._make_client = make_client if login is None else partial(make_client, login=login)
        self._counters = ProducerCounters()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._failure: OmnibaseError | None = None
        self._busy_since: float | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # between a late `submit` and the thread's last look at the queue
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name=f"kafka-{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread, which connects and fences older clients of the id. Once only; nothing is awaited."""
        self._thread.start()

    def submit(
        self,
        records: Sequence[OutboundRecord],
        offsets: Sequence[TopicPartition] = (),
        group: Any = None,
        *,
        alone: Collection[int] = (),
        was_committed: WasCommitted | None = None,
    ) -> Future[None]:
        """Run a transaction; the future is done when it is committed.

        Args:
            records: logical topics; records of one partition stay in order.
            offsets: physical topics and the next offsets to read, with metadata; none without a consumer group.
            group: `Consumer.consumer_group_metadata()`, fetched afresh on the thread that polls the consumer.
            alone: indexes of records to send in requests of their own, to tell which one the broker refuses.
            was_committed: asked, on the producer's thread, when a time-out left open whether the transaction was
                committed; by then it has ended either way. Asked again while it raises `OmnibaseError`s that are
                retryable; another one becomes the future's.

        Raises:
            TopicNotDeclaredError: a topic the contract does not list; nothing was sent.

        The future raises `TransactionAbortedError` or `OutputsRefusedError`, after which others may be run; or, of what
        only a restart or a person mends, `TransactionUnknownError`, `ProducerFencedError` or `ClusterRefusedError`.
        """
        job = _Job(records, self._topics.of(records), offsets, group, alone, was_committed)
        with self._lock:
            if self._ended:
                job.future.set_exception(self._end_reason())
            else:
                self._jobs.put(job)
        return job.future

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        """Write records, all or nothing, without a consumer group; from an event loop.

        Raises:
            TopicNotDeclaredError, TransactionAbortedError, TransactionUnknownError, ProducerFencedError: see `submit`.
        """
        await asyncio.wrap_future(self.submit(records))

    @property
    def is_cut_off(self) -> bool:
        """Return whether a transaction waits for brokers to which there is no connection, or far too long for anything."""
        since = self._busy_since
        return since is not None and (self.connected_brokers == 0 or time.monotonic() - since > LONGEST_SECONDS)

    def health(self) -> ProducerHealth:
        """Return the state of the producer; cheap, never waits. `queued` counts transactions, for which there is no bound."""
        waiting = self._jobs.qsize() + (self._busy_since is not None)
        return self._counters.health(
            queued=waiting, capacity=0, waiting_sends=0, connected_brokers=self.connected_brokers
        )

    def stop(self) -> None:
        """Let the thread end after the transaction under way; the others are refused."""
        self._stopping.set()
        self._jobs.put(None)

    async def close(self, timeout_seconds: float) -> None:
        """Stop and wait for so long at most. Harmless when repeated, or when it was never started.

        A transaction that is still under way then ends at the broker by its own time-out.
        """
        self.stop()
        if self._thread.ident is None:
            return
        await asyncio.to_thread(self._thread.join, timeout_seconds)
        if self._thread.is_alive():
            self._log.event(ERROR, "kafka_producer_thread_stuck", waited_seconds=timeout_seconds)

    # From here on: the producer's thread.

    def _serve(self) -> None:
        client: TransactionClient | None = None
        try:
            client = self._opened()
            while client is not None and not self._stopping.is_set():
                client.poll()
                try:
                    job = self._jobs.get(timeout=IDLE_SECONDS)
                except queue.Empty:
                    continue
                if job is not None and job.future.set_running_or_notify_cancel():
                    client = self._run(client, job)
        except OmnibaseError as error:
            self._failure = error
            self._log.event(ERROR, "kafka_producer_fatal", reason=str(error))
        except Exception as error:
            self._failure = TransactionUnknownError(f"the thread of {self.name} ended: {error!r}")
            raise
        finally:
            self._refuse_rest()
            if client is not None:
                client.close()

    def _run(self, client: TransactionClient, job: _Job) -> TransactionClient | None:
        """Run a transaction and complete its future; return the client to go on with, None when there is none."""
        self._busy_since = time.monotonic()
        try:
            client.run(job.records, job.topics, job.offsets, job.group, job.alone)
        except ClientSpentError as spent:
            self._log.event(WARNING, "kafka_producer_replaced", reason=str(spent))
            client.close()
            return self._recover(job, spent)
        except TransactionAbortedError as error:
            job.future.set_exception(error)
            if not client.usable:
                client.close()
                return self._opened()
        except BaseException as error:
            job.future.set_exception(error)
            raise
        else:
            job.future.set_result(None)
        finally:
            self._busy_since = None
            self._count(job)
        return client

    def _count(self, job: _Job) -> None:
        error = job.future.exception() if job.future.done() and not job.future.cancelled() else None
        self._counters.count(job.topics, {} if error is None else dict.fromkeys(range(len(job.topics)), str(error)))

    def _recover(self, job: _Job, spent: ClientSpentError) -> TransactionClient | None:
        """Open the next client, which ends the transaction, and say how it ended."""
        try:
            client = self._opened()
            if client is None and spent.maybe_committed:
                raise TransactionUnknownError(f"the producer was closed while it was not known what became of: {spent}")
            committed = spent.maybe_committed and self._find_out(job)
        except BaseException as error:
            job.future.set_exception(error)
            if isinstance(error, TransactionUnknownError):
                return client
            raise
        if committed:
            job.future.set_result(None)
        else:
            job.future.set_exception(TransactionAbortedError(f"the transaction was given up: {spent}"))
        return client

    def _find_out(self, job: _Job) -> bool:
        """Return whether the transaction that has ended was committed.

        Raises:
            TransactionUnknownError: nobody can tell.
        """
        while job.was_committed is not None:
            try:
                return job.was_committed()
            except OmnibaseError as error:
                if not error.retryable:
                    raise TransactionUnknownError(f"whether it was committed is not known: {error}") from error
                self._log.event(WARNING, "kafka_transaction_unresolved", reason=str(error))
            if self._stopping.wait(RETRY_SECONDS):
                break
        raise TransactionUnknownError("whether the transaction was committed is not known")

    def _opened(self) -> TransactionClient | None:
        """Return an open client as soon as the brokers let there be one, None when stopped before.

        Raises:
            ProducerFencedError: a newer client of the id is there.
            ClusterRefusedError: this user may not use the id.
        """
        while not self._stopping.is_set():
            client = self._make_client(self._config, log=self._client_log, on_statistics=self._note_statistics)
            began = time.monotonic()
            try:
                client.open(OPEN_SECONDS)
            except ClientSpentError as error:
                self._log.event(WARNING, "kafka_producer_not_open", reason=str(error))
                client.close()
                self._stopping.wait(max(0.0, began + RETRY_SECONDS - time.monotonic()))
            except BaseException:
                client.close()
                raise
            else:
                return client
        return None

    def _note_statistics(self, statistics: ClientStatistics) -> None:
        self.connected_brokers = statistics.connected_brokers()

    def _end_reason(self) -> OmnibaseError:
        return self._failure or TransactionAbortedError("not sent, the producer was closed")

    def _refuse_rest(self) -> None:
        with self._lock:
            self._ended = True
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None and job.future.set_running_or_notify_cancel():
                job.future.set_exception(self._end_reason())
