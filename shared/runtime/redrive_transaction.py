"""One Kafka transaction after the other, by one writer per worker: what belongs together is there as a whole or not.

The transactional id is the worker's, so a second writer fences the first, and aborts what a dead one left open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from omnibase_infra.shared.core.errors import (
    ClusterRefusedError,
    DeliveryError,
    DependencyUnavailableError,
    OmnibaseError,
    SettingsError,
)
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.producer_config import HEADROOM_BYTES, ProducerOptions, producer_config

MEMBER: Final = "redrive"
CLIENT_ID: Final = "omninode-redrive"
# One that is left open by a killed process holds up the retry topics' readers for so long, at most.
TRANSACTION_SECONDS: Final = 30.0
# A broker may restart meanwhile.
PATIENCE_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 5.0

_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
_REFUSED: Final = frozenset(
    {
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_AGAIN: Final = "run the same command again: what was done is known, and it goes on from there"


class RedriveFencedError(OmnibaseError):
    """Another redrive of the same worker took over; this one can write no more, and wrote nothing by halves."""

    code = "redrive-fenced"


class RedriveTransactions:
    """Writes transactions of a worker's redrive: `with RedriveTransactions(...) as transactions: transactions.write(...)`.

    Belongs to one thread; every call blocks, within bounds. When it has been entered, no earlier writer of the worker
    can commit any more: what is read of the resolutions from then on is final.
    """

    def __init__(
        self,
        settings: Settings,
        spec: WorkerSpec,
        *,
        log: LogFunction,
        patience_seconds: float = PATIENCE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        settings: of the process.
        spec: whose dead letters.
        log: where the client's own lines go.
        patience_seconds: how long a step may take, through restarts of brokers.
        monotonic: seconds that never go back.

        Raises:
            SettingsError: no broker is set, or the client library refuses a property.
        """
        self._realm = settings.realm
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        client_log = ClientLog(log, CLIENT_ID)
        config = producer_config(settings, client_id=CLIENT_ID, options=_options(settings, spec))
        callbacks: dict[str, Any] = {"logger": client_log, "error_cb": client_log.error}
        try:
            self._producer = Producer(config | callbacks)
        except KafkaException as error:
            raise SettingsError(f"the Kafka client refuses the settings of {CLIENT_ID}: {error}") from error

    def __enter__(self) -> Self:
        """Fence earlier writers, and abort what they left open.

        Raises:
            DependencyUnavailableError: no broker answered in time.
            ClusterRefusedError: this client may not do it.
        """
        try:
            self._patiently(self._producer.init_transactions)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() in _REFUSED:
                raise ClusterRefusedError(f"a redrive is not allowed: {reason.str()}") from error
            raise DependencyUnavailableError(
                f"no Kafka broker let a redrive begin: {reason.str()}", dependency="kafka"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing is under way: `write` ends its transaction one way or the other, and one that could not be ended is
        # the broker's to abort.
        self._producer.purge()

    def write(self, records: Sequence[OutboundRecord]) -> None:
        """Write records so that all of them can be read, or none.

        Args:
            records: by logical topics. Partitions that are not stated follow from the keys.

        Raises:
            RedriveFencedError: another redrive of this worker took over; none can be read.
            DeliveryError: none can be read; or, where the message says so, nobody can tell.
        """
        committing = False
        try:
            self._producer.begin_transaction()
            for record in records:
                self._produce(record)
            committing = True
            self._patiently(self._producer.commit_transaction)
        except KafkaException as error:
            raise self._failure(error.args[0], committing=committing) from error
        except BufferError as error:
            self._abort()
            raise DeliveryError(f"no Kafka broker takes records: {error}", hint=_AGAIN) from error

    def _produce(self, record: OutboundRecord) -> None:
        place: dict[str, Any] = {} if record.partition is None else {"partition": record.partition}
        deadline = self._monotonic() + self._patience_seconds
        while True:
            try:
                self._producer.produce(
                    f"{self._realm}.{record.topic}",
                    record.value,
                    record.key,
                    headers=list(record.headers or ()),
                    **place,
                )
                return
            except BufferError:
                if self._monotonic() > deadline:
                    raise
                self._producer.poll(0.1)

    def _patiently(self, step: Callable[[float], Any]) -> None:
        """Take a step that may be repeated, until it is done or patience ends.

        Raises:
            KafkaException: it cannot be done, or was not done in time.
        """
        deadline = self._monotonic() + self._patience_seconds
        while True:
            try:
                step(_CALL_SECONDS)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or self._monotonic() > deadline:
                    raise

    def _failure(self, error: KafkaError, *, committing: bool) -> OmnibaseError:
        """End the transaction that failed, and return what it means."""
        if error.code() in _FENCED:
            return RedriveFencedError(
                "another redrive of this worker is running: it took over, and this one can write no more",
                hint="wait for it, look with `omninode dlq list`, then run this one again for what is left",
            )
        # A commit that was asked for may have happened, unless the client knows better.
        if (not committing or error.txn_requires_abort()) and self._abort():
            return DeliveryError(f"the transaction was taken back: {error.str()}", hint=_AGAIN)
        return DeliveryError(
            f"nobody can tell whether the last records were taken: {error.str()}",
            hint="run the same command again: it learns what became of them first",
        )

    def _abort(self) -> bool:
        """Abort the transaction; return whether that is certain."""
        try:
            self._patiently(self._producer.abort_transaction)
        except KafkaException:
            # The next writer, or the broker when its time is up, aborts it.
            return False
        return True


def _options(settings: Settings, spec: WorkerSpec) -> ProducerOptions:
    largest = max(settings.max_record_bytes, spec.max_record_bytes)
    return ProducerOptions(
        delivery_timeout_seconds=TRANSACTION_SECONDS,
        statistics_seconds=0,
        overrides={
            "transactional.id": settings.realm.transactional_id(spec.worker, MEMBER),
            "transaction.timeout.ms": int(TRANSACTION_SECONDS * 1000),
            # A producer that closes after an error says so on stderr otherwise, past its logger.
            "log_level": 4,
            # Whatever fits the dead-letter topic fits the retry topic.
            "message.max.bytes": largest + 2 * HEADROOM_BYTES,
        },
    )
