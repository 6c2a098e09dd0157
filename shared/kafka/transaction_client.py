"""One transactional librdkafka producer: the steps of a transaction, and what each of their errors means.

Used by one thread. The client is spent after any time-out: its requests may still be on their way, and only a new
one of the same transactional id, by its higher epoch, keeps them from counting (KIP-890 is missing in the client).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from logging import ERROR
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from omnibase_infra.shared.core.errors import ClusterRefusedError, OmnibaseError, SettingsError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.producer_config import ProducerOptions, producer_config
from omnibase_infra.shared.kafka.sasl_login import LoginFollower, SaslLogin
from omnibase_infra.shared.kafka.statistics import ClientStatistics, parse_statistics
from omnibase_infra.shared.kafka.transaction_errors import (
    OutputsRefusedError,
    ProducerFencedError,
    TransactionAbortedError,
)

# After so long the broker aborts what a dead process left open. Until then readers of committed records wait at it,
# and so does the next owner of its partitions, which asks for their offsets for 30 s: this and the broker's look-round
# every 10 s must fit in there. It must outlast a change of a partition's leader, some seconds.
TRANSACTION_SECONDS: Final = 15.0
# We give up first, so that "fenced" within this time can only mean another process.
ATTEMPT_SECONDS: Final = 12.0
ABORT_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05
_PURGE_SECONDS: Final = 1.0

# What a broker says of a record for ever; everything else may pass.
_REFUSALS: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.RECORD_LIST_TOO_LARGE}
)
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
_FORBIDDEN: Final = frozenset(
    {KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)
_GROUP_MOVED: Final = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)


class ClientSpentError(Exception):
    """The client must be replaced; opening its successor decides what becomes of an open transaction.

    Attributes:
        maybe_committed: the commit had been asked for, so that it may have happened.
    """

    def __init__(self, reason: str, *, maybe_committed: bool = False) -> None:
        super().__init__(reason)
        self.maybe_committed = maybe_committed


class _AbortNeededError(Exception):
    """The open transaction cannot be committed any more, and can be aborted."""

    def __init__(self, reason: str, *, group_moved: bool = False) -> None:
        super().__init__(reason)
        self.group_moved = group_moved


def transaction_config(
    settings: Settings, *, transactional_id: str, client_id: str, transaction_seconds: float = TRANSACTION_SECONDS
) -> dict[str, Any]:
    """Return the librdkafka properties of a transactional producer; they may hold secrets.

    Raises:
        SettingsError: no broker is set, or the security settings do not fit together.
    """
    config = producer_config(settings, client_id=client_id, options=ProducerOptions(linger_ms=0))
    # Left out, it follows the transaction's time-out, which it must not exceed.
    del config["delivery.timeout.ms"]
    return config | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": int(transaction_seconds * 1000),
    }


class TransactionClient:
    """A client from its creation to the first error that spends it. `open` comes first, `close` last."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        log: LogFunction,
        on_statistics: Callable[[ClientStatistics], None] | None = None,
        login: SaslLogin | None = None,
    ) -> None:
        """Create the client; no connection is awaited.

        Args:
            config: see `transaction_config`.
            log: where librdkafka's own lines and errors go.
            on_statistics: called with each report, on the thread that polls.
            login: followed where the client is polled between transactions.

        Raises:
            SettingsError: the client library refuses a property.
        """
        self._id = str(config["transactional.id"])
        self._seconds = int(config["transaction.timeout.ms"]) / 1000
        self._log = ClientLog(log, str(config["client.id"]))
        self._failures: dict[int, KafkaError] = {}
        self._follower = LoginFollower(login)
        self._all_taken = True
        self._began = self._deadline = time.monotonic()
        callbacks: dict[str, Any] = {"logger": self._log, "error_cb": self._log.error}
        if on_statistics is not None:
            callbacks["stats_cb"] = lambda text: on_statistics(parse_statistics(text))
        try:
            self._producer = Producer(dict(config) | (login.properties() if login else {}) | callbacks)
        except KafkaException as error:
            raise SettingsError(f"the Kafka client refuses the settings of producer {self._id}: {error}") from error

    @property
    def usable(self) -> bool:
        """Return whether the next transaction can go through this client.

        Records that were not taken leave a gap in the numbers that the broker expects, on which the next would fail.
        """
        return self._all_taken

    def open(self, seconds: float) -> None:
        """Register at the coordinator: fences older clients of the id, and ends what they left open.

        Raises:
            ClientSpentError: it did not answer in time, or said no.
            ProducerFencedError: a newer client of the id is there already.
            ClusterRefusedError: this user may not use the id.
        """
        self._start_clock(seconds)
        self._call("init_transactions", self._producer.init_transactions)

    def run(
        self,
        records: Sequence[OutboundRecord],
        topics: Sequence[str],
        offsets: Sequence[TopicPartition],
        group: Any,
        alone: Collection[int] = (),
    ) -> None:
        """Produce records and commit offsets, all or nothing; returns when it is committed.

        Args:
            records: in order; those of one partition stay in it.
            topics: physical name for each record.
            offsets: positions of the consumer group, none for a transaction without one.
            group: `Consumer.consumer_group_metadata()`, fetched afresh on the thread that polls the consumer.
            alone: indexes of records that go in requests of their own, to find the one that the broker refuses.

        Raises:
            TransactionAbortedError: nothing of it happened. Whether the client goes on says `usable`.
            OutputsRefusedError: likewise, and the same records will be refused again.
            ClientSpentError: the client must be closed and replaced.
            ProducerFencedError: another process has the transactional id.
        """
        asked = False
        try:
            self.begin()
            self.produce(records, topics, alone)
            if offsets:
                self.send_offsets(offsets, group)
            self.flush()
            asked = True
            self.commit()
        except _AbortNeededError as error:
            self.abort(maybe_committed=asked)
            raise self._aborted(error, records, alone) from error
        except OutputsRefusedError:
            self.abort(maybe_committed=False)
            raise

    def begin(self) -> None:
        """Open a transaction; its time starts."""
        # A new one each time: reports of an aborted transaction may come late.
        self._failures = {}
        self._start_clock(ATTEMPT_SECONDS)
        self._call("begin_transaction", lambda _: self._producer.begin_transaction())

    def produce(self, records: Sequence[OutboundRecord], topics: Sequence[str], alone: Collection[int] = ()) -> None:
        """Hand records to the client, in order; waits while its queue is full."""
        for index, (record, topic) in enumerate(zip(records, topics, strict=True)):
            if index in alone:
                self.flush()
            self._produce_one(index, record, topic)
            if index in alone:
                self.flush()

    def send_offsets(self, offsets: Sequence[TopicPartition], group: Any) -> None:
        """Make the group's new positions part of the transaction; refused when `group` is of an older generation."""
        # This call ignores its time-out (librdkafka's issues 5456 and 5511), so it gets a thread that can be left alone:
        # the next client of the id makes an end of it.
        send = partial(self._producer.send_offsets_to_transaction, [*offsets], group)
        done: Future[None] = Future()
        work = partial(_settle, done, partial(self._call, "send_offsets_to_transaction", send))
        threading.Thread(target=work, name="kafka-offsets", daemon=True).start()
        try:
            done.result(max(0.0, self._deadline - time.monotonic()))
        except TimeoutError as error:
            raise ClientSpentError(f"the offsets were not taken within {ATTEMPT_SECONDS:g} s") from error

    def flush(self) -> None:
        """Wait until the broker has answered for every record."""
        while left := self._served("flush", self._producer.flush, max(0.0, self._deadline - time.monotonic())):
            if time.monotonic() >= self._deadline:
                raise ClientSpentError(f"{left} records were not confirmed within {ATTEMPT_SECONDS:g} s")
        if self._failures:
            index, error = min(self._failures.items())
            raise _AbortNeededError(f"record {index} was not taken: {error.str()}")
        self._all_taken = True

    def commit(self) -> None:
        """Commit; afterwards everything of the transaction is visible."""
        self._call("commit_transaction", self._producer.commit_transaction, asked=True)

    def abort(self, *, maybe_committed: bool) -> None:
        """Abort the open transaction.

        Raises:
            ClientSpentError: it could not be aborted; opening the client's successor does it.
        """
        self._deadline = time.monotonic() + ABORT_SECONDS
        try:
            self._call("abort_transaction", self._producer.abort_transaction)
        except _AbortNeededError as error:
            raise ClientSpentError(str(error), maybe_committed=maybe_committed) from error
        except ClientSpentError as error:
            raise ClientSpentError(str(error), maybe_committed=maybe_committed) from error

    def poll(self) -> None:
        """Serve callbacks, and take another login if there is one."""
        self._follower.apply(self._producer)
        with suppress(ClientSpentError, OmnibaseError, _AbortNeededError):
            # Of a fatal error, which the client library has logged; the next step meets it again.
            self._served("poll", self._producer.poll, 0)

    def close(self) -> None:
        """Give up what is queued and destroy the client; it must not be used any more."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        with suppress(ClientSpentError, OmnibaseError, _AbortNeededError):
            self._served("close", self._producer.flush, _PURGE_SECONDS)
        del self._producer  # the only reference: its threads and connections end here

    def _start_clock(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._deadline = self._began + seconds

    def _produce_one(self, index: int, record: OutboundRecord, topic: str) -> None:
        headers = record.headers
        self._all_taken = False
        while True:
            try:
                self._producer.produce(
                    topic,
                    record.value,
                    record.key,
                    -1 if record.partition is None else record.partition,
                    partial(_note_report, self._failures, index),
                    None,
                    0,
                    headers if headers is None or type(headers) is list else list(headers),
                )
            except BufferError:
                if time.monotonic() >= self._deadline:
                    raise ClientSpentError(f"the queue stayed full for {ATTEMPT_SECONDS:g} s") from None
                self._served("produce", self._producer.poll, _POLL_SECONDS)
            except KafkaException as raised:
                error = raised.args[0]
                if error.code() in _REFUSALS:
                    # Refused by the client itself, which looks at each record alone.
                    raise OutputsRefusedError(
                        f"record {index} for {topic} is refused: {error.str()}", errors={index: error.str()}, alone=True
                    ) from raised
                if error.code() == KafkaError._FATAL:
                    # Why, for example fenced, comes out of the callbacks as an exception.
                    self._served("produce", self._producer.poll, _POLL_SECONDS)
                raise self._classified("produce", error, asked=False) from raised
            else:
                return

    def _call(self, name: str, step: Callable[[float], None], *, asked: bool = False) -> None:
        """Do a step of the transaction, again where the client says that this may help, until the time is up."""
        while True:
            remaining = self._deadline - time.monotonic()
            try:
                step(max(_POLL_SECONDS, remaining))
            except KafkaException as raised:
                error = raised.args[0]
                in_time = remaining > _POLL_SECONDS and error.code() != KafkaError._TIMED_OUT
                if not (in_time and error.retriable()):
                    raise self._classified(name, error, asked=asked) from raised
                self._served(name, self._producer.poll, _POLL_SECONDS, asked=asked)
            else:
                return

    def _served(self, name: str, serve: Callable[[float], int], seconds: float, *, asked: bool = False) -> int:
        """Serve callbacks; a fatal error comes out of that as an exception."""
        try:
            return serve(seconds)
        except (KafkaException, SystemError) as raised:
            # A report that follows in the same call turns the exception into a SystemError with the cause in it.
            cause = raised if isinstance(raised, KafkaException) else raised.__cause__
            if not isinstance(cause, KafkaException):
                raise
            raise self._classified(name, cause.args[0], asked=asked) from raised

    def _classified(self, name: str, error: KafkaError, *, asked: bool) -> Exception:
        """Return what an error of a step means for the transaction and the client."""
        reason = f"{name}: {error.str()}"
        if error.code() in _FENCED and time.monotonic() - self._began < self._seconds:
            return ProducerFencedError(
                f"another process has opened a producer of the transactional id {self._id!r}: {reason}",
                hint="run each process with an id of its own; this one has written nothing since",
            )
        if error.code() in _FORBIDDEN:
            return ClusterRefusedError(
                f"the brokers do not let this user run transactions of {self._id!r}: {reason}",
                hint="allow it Write and Describe on the transactional id, and Write on the topics",
            )
        # Fenced after the transaction's own time-out is how the broker says that it aborted the transaction itself.
        if error.txn_requires_abort() and not error.fatal():
            return _AbortNeededError(reason, group_moved=error.code() in _GROUP_MOVED)
        if error.fatal():
            self._log.event(ERROR, "kafka_producer_fatal", reason=reason)
        return ClientSpentError(reason, maybe_committed=asked)

    def _aborted(
        self, error: _AbortNeededError, records: Sequence[OutboundRecord], alone: Collection[int]
    ) -> TransactionAbortedError:
        """Return what the owner is told of a transaction that was aborted."""
        refused = {index: one.str() for index, one in self._failures.items() if one.code() in _REFUSALS}
        if not refused:
            return TransactionAbortedError(f"the transaction was aborted: {error}", group_moved=error.group_moved)
        index = min(refused)
        return OutputsRefusedError(
            f"the broker refuses {len(refused)} of {len(records)} records, first {records[index].topic}: {refused[index]}",
            errors=refused,
            alone=len(refused) == 1 and index in alone,
        )


def _settle(done: Future[None], step: Callable[[], None]) -> None:
    try:
        step()
    except BaseException as error:  # noqa: BLE001 - it is the waiting thread's
        done.set_exception(error)
    else:
        done.set_result(None)


def _note_report(failures: dict[int, KafkaError], index: int, error: KafkaError | None, _: Message) -> None:
    if error is not None:
        failures[index] = error
