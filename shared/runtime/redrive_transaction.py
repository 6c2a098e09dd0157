"""The transactions of a worker's redrive, by one writer at a time: what belongs together is there as a whole or not.

The transactional id is the worker's, so a second writer fences the first, and ends what a dead one left open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from omnibase_infra.shared.core.errors import DeliveryError, DependencyUnavailableError, OmnibaseError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.client_log import LogFunction
from omnibase_infra.shared.kafka.outbound_topics import OutboundTopics
from omnibase_infra.shared.kafka.producer_config import HEADROOM_BYTES
from omnibase_infra.shared.kafka.transaction_client import ClientSpentError, TransactionClient, transaction_config
from omnibase_infra.shared.kafka.transaction_errors import (
    OutputsRefusedError,
    ProducerFencedError,
    TransactionAbortedError,
)

MEMBER: Final = "redrive"
CLIENT_ID: Final = "omninode-redrive"
# How long brokers may take to let a run begin: one of them may be starting again.
PATIENCE_SECONDS: Final = 30.0
OPEN_SECONDS: Final = 5.0
# An aborted transaction is tried again by the same client: had another taken over meanwhile, it would be fenced.
TRIES: Final = 3
_AGAIN: Final = "run the same command again: what was done is known, and it goes on from there"


class RedriveFencedError(OmnibaseError):
    """Another redrive of the same worker took over; this one can write no more, and wrote nothing by halves."""

    code = "redrive-fenced"


class RedriveTransactions:
    """Writes a worker's redrive: `with RedriveTransactions(...) as transactions: transactions.write(...)`.

    Belongs to one thread; every call blocks, within bounds. When it has been entered, no earlier writer of the worker
    can commit any more: what is read of the resolutions from then on is final. After an error of `write` it writes no
    more, since a new client could not tell what another run did in between.
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
        patience_seconds: how long brokers may take to let it begin.
        monotonic: seconds that never go back.

        Raises:
            SettingsError: no broker is set, or the settings do not fit together.
        """
        self._config = _config(settings, spec)
        self._topics = OutboundTopics(settings.realm)
        self._log = log
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        self._client: TransactionClient | None = None

    def __enter__(self) -> Self:
        """Fence earlier writers, and end what they left open.

        Raises:
            DependencyUnavailableError: no broker let it begin in time.
            RedriveFencedError: another one began at the same moment.
        """
        deadline = self._monotonic() + self._patience_seconds
        while self._client is None:
            client = TransactionClient(self._config, log=self._log)
            try:
                client.open(min(OPEN_SECONDS, self._patience_seconds))
            except ClientSpentError as error:
                client.close()
                if self._monotonic() >= deadline:
                    raise DependencyUnavailableError(
                        f"no Kafka broker let a redrive begin: {error}", dependency="kafka"
                    ) from error
            except ProducerFencedError as error:
                client.close()
                raise _fenced() from error
            except BaseException:
                client.close()
                raise
            else:
                self._client = client
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, records: Sequence[OutboundRecord]) -> None:
        """Write records so that all of them can be read, or none.

        Args:
            records: by logical topics. Partitions that are not stated follow from the keys.

        Raises:
            RedriveFencedError: another redrive of this worker took over; none can be read.
            DeliveryError: none can be read; or, where the message says so, nobody can tell yet.
        """
        topics = self._topics.of(records)
        for remaining in reversed(range(TRIES)):
            try:
                self._run(records, topics)
                return
            except OutputsRefusedError as error:
                raise DeliveryError(f"the transaction was taken back: {error.message}") from error
            except TransactionAbortedError as error:
                if not remaining or self._client is None or not self._client.usable:
                    raise DeliveryError(f"the transaction was taken back: {error.message}", hint=_AGAIN) from error

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _run(self, records: Sequence[OutboundRecord], topics: Sequence[str]) -> None:
        if self._client is None:
            raise DeliveryError("an earlier transaction failed, so nothing more is written", hint=_AGAIN)
        try:
            self._client.run(records, topics, (), None)
        except ProducerFencedError as error:
            self._close()
            raise _fenced() from error
        except ClientSpentError as error:
            self._close()
            if not error.maybe_committed:
                raise DeliveryError(f"the transaction was given up: {error}", hint=_AGAIN) from error
            raise DeliveryError(
                f"nobody can tell yet whether the last records were taken: {error}",
                hint="run the same command again: it learns what became of them first",
            ) from error


def _fenced() -> RedriveFencedError:
    return RedriveFencedError(
        "another redrive of this worker is running: it took over, and this one can write no more",
        hint="wait for it, look with `omninode dlq list`, then run this one again for what is left",
    )


def _config(settings: Settings, spec: WorkerSpec) -> dict[str, Any]:
    largest = max(settings.max_record_bytes, spec.max_record_bytes)
    transactional_id = settings.realm.transactional_id(spec.worker, MEMBER)
    return transaction_config(settings, transactional_id=transactional_id, client_id=CLIENT_ID) | {
        # Whatever fits the dead-letter topic fits the retry topic.
        "message.max.bytes": largest + 2 * HEADROOM_BYTES,
        "statistics.interval.ms": 0,
        # A producer that closes after an error says so on stderr otherwise, past its logger.
        "log_level": 4,
    }
