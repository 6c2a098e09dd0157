"""Dead letters: the original bytes with headers that say where from, why and how to group them; and their limit."""

from __future__ import annotations

import hashlib
from collections import deque

import msgspec

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core.errors import OmnibaseError, error_code
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.ports import OutboundRecord, StoredOutput
from omnibase_infra.shared.core.redaction import sanitised, without_variable_parts
from omnibase_infra.shared.core.worker_spec import DeadLetterSpec, WorkerSpec
from omnibase_infra.shared.runtime.parked_records import origin_headers, origin_of, own_headers
from omnibase_infra.shared.runtime.records import Record

_HEADERS = msgspec.json.Decoder(list[tuple[str, str]])


class TooManyDeadLettersError(OmnibaseError):
    """The worker gives up on more records than its contract allows; it stops instead of draining the topic."""

    code = "too-many-dead-letters"


def fingerprint(worker: str, code: str, error_type: str, message: str) -> str:
    """Return 16 hex digits that are equal for failures that differ only in ids, numbers and quoted values."""
    text = "\0".join((worker, code, error_type, without_variable_parts(message)))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class DeadLetters:
    """Builds a worker's dead letters and watches their number."""

    def __init__(self, spec: WorkerSpec, group: str) -> None:
        self._spec = spec
        self._group = group
        self._topic = str(spec.dead_letter_topic)

    def output(self, record: Record, error: BaseException, failed_at: float) -> StoredOutput:
        """Return the dead letter as an outbox row: the headers only, since the body is the record's own bytes."""
        headers = self._headers(record, error, clock.rfc3339(failed_at))
        return StoredOutput(self._topic, None, msgspec.json.encode(headers))

    def is_dead_letter(self, output: StoredOutput) -> bool:
        """Return whether a stored output is a dead letter."""
        return output.topic == self._topic

    def is_of(self, record: Record, output: StoredOutput) -> bool:
        """Return whether a dead letter is the record's own: that of a repeated message is the first one's."""
        return set(origin_headers(origin_of(record))) <= set(_HEADERS.decode(output.value))

    def outbound(self, record: Record, output: StoredOutput) -> OutboundRecord:
        """Return the dead letter to produce: key and value untouched, our headers after the record's own.

        Headers of ours that it came with are of another life: it was a dead letter, sent to its source again by hand.
        """
        ours = [(name, value.encode()) for name, value in _HEADERS.decode(output.value)]
        return OutboundRecord(self._topic, record.value, record.key, [*own_headers(record.headers), *ours])

    def failure_headers(self, record: Record, error: BaseException | None, failed_at: str) -> list[tuple[str, str]]:
        """Return the headers that say whose record it is and, of one that failed itself, how.

        Args:
            record: parked or dead.
            error: None for a record that only waits behind another of its key.
            failed_at: RFC 3339.
        """
        ours = [
            (TransportHeader.WORKER.value, self._spec.worker),
            (TransportHeader.GROUP.value, self._group),
            (TransportHeader.ATTEMPT.value, str(record.attempts)),
        ]
        if error is None:
            return ours
        code, kind = error_code(error), type(error).__name__
        message = sanitised(str(error)) or kind
        return [
            *ours,
            (TransportHeader.FIRST_FAILED_AT.value, record.first_failed_at or failed_at),
            (TransportHeader.FAILED_AT.value, failed_at),
            (TransportHeader.ERROR_CODE.value, code),
            (TransportHeader.ERROR_TYPE.value, kind),
            (TransportHeader.ERROR_MESSAGE.value, message),
            (TransportHeader.ERROR_FINGERPRINT.value, fingerprint(self._spec.worker, code, kind, message)),
        ]

    def _headers(self, record: Record, error: BaseException, failed_at: str) -> list[tuple[str, str]]:
        ours = [*origin_headers(origin_of(record)), *self.failure_headers(record, error, failed_at)]
        if record.redrive_id:
            ours.append((TransportHeader.REDRIVE_ID.value, record.redrive_id))
        return ours


class DeadLetterLimit:
    """Says when dead letters have become too many: so many in a row, or this share of the last records."""

    def __init__(self, spec: DeadLetterSpec) -> None:
        self._spec = spec
        self._in_a_row = 0
        # The window as runs of equal results, (dead?, count): a batch costs one entry, not one per record.
        self._runs: deque[tuple[bool, int]] = deque()
        self._seen = 0
        self._dead = 0

    def finished(self, count: int) -> None:
        """Note records that ended well."""
        if count:
            self._in_a_row = 0
            self._note(dead=False, count=count)

    def died(self, count: int = 1) -> None:
        """Note dead letters.

        Raises:
            TooManyDeadLettersError: the contract's limit is reached.
        """
        self._in_a_row += count
        self._note(dead=True, count=count)
        spec = self._spec
        if self._in_a_row >= spec.consecutive:
            raise TooManyDeadLettersError(
                f"{self._in_a_row} dead letters in a row, the contract allows {spec.consecutive - 1}",
                hint="look at them with `omninode dlq group`, mend the cause, start the worker again, then `omninode dlq redrive`",
            )
        if self._seen >= spec.window and self._dead > spec.ratio * self._seen:
            raise TooManyDeadLettersError(
                f"{self._dead} of the last {self._seen} records are dead letters, the contract allows {spec.ratio:.0%}",
                hint="look at them with `omninode dlq group`, mend the cause, start the worker again, then `omninode dlq redrive`",
            )

    def _note(self, *, dead: bool, count: int) -> None:
        self._runs.append((dead, count))
        self._seen += count
        self._dead += count if dead else 0
        while (surplus := self._seen - self._spec.window) > 0:
            was_dead, length = self._runs.popleft()
            gone = min(surplus, length)
            if gone < length:
                self._runs.appendleft((was_dead, length - gone))
            self._seen -= gone
            self._dead -= gone if was_dead else 0
