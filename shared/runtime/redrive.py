"""Put dead letters back to work, or discard them: a transaction per batch, resumable, one run per worker at a time.

Record on the retry topic, resolution and audit event are one transaction. A run that stops anywhere, however it
stops, is gone on with by the next one: what was done is resolved, what was not is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import Message

from omnibase_infra.shared.core.clock import Clock, rfc3339
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.dead_letter_audit import (
    FINISHED,
    RESOLVED,
    STARTED,
    Action,
    DeadLetterAction,
    Ending,
    audit_event,
    place_runs,
)
from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterLog, DeadLetterSnapshot
from omnibase_infra.shared.runtime.dead_letter_resolutions import Resolution, Resolutions, resolution_record
from omnibase_infra.shared.runtime.dead_letter_view import Headers, Place
from omnibase_infra.shared.runtime.redrive_records import RedriveRecords
from omnibase_infra.shared.runtime.redrive_selection import SelectedDeadLetter, Selection, batches
from omnibase_infra.shared.runtime.redrive_transaction import RedriveTransactions

BATCH_RECORDS: Final = 500
BATCH_BYTES: Final = 16 * 1024 * 1024
# With a rate, a transaction takes what is due in so many seconds: short bursts, and still few transactions.
SLICE_SECONDS: Final = 0.25
# Old resolutions that one run forgets; what is left is forgotten by the next.
FORGOTTEN_AT_ONCE: Final = 5_000


class RedriveOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is to do, and on whose behalf.

    Attributes:
        action: redrive or discard.
        redrive_id: of the run, a UUIDv7.
        by: who runs it.
        reason: why, of a discard.
        filters: which dead letters are meant, for the audit events.
        rate: records per second at most; None is as fast as it goes.
        edited: the value that one record is to have instead of its own.
    """

    action: Action
    redrive_id: str
    by: str
    reason: str | None = None
    filters: dict[str, Any] = {}
    rate: float | None = None
    edited: bytes | None = None


class RedriveReport(msgspec.Struct, kw_only=True):
    """What a run did.

    Attributes:
        resolved: dead letters that are redriven or discarded now.
        already: others had resolved them since they were selected.
        gone: retention removed them from the log since then.
        left: not reached, since the run was stopped.
        ending: how the run ended.
    """

    redrive_id: str
    resolved: int = 0
    already: int = 0
    gone: int = 0
    left: int = 0
    ending: Ending = "finished"


class RedriveRun:
    """One run over a selection. Belongs to one thread and blocks."""

    def __init__(
        self,
        spec: WorkerSpec,
        realm: Realm,
        log: DeadLetterLog,
        transactions: RedriveTransactions,
        records: RedriveRecords,
        *,
        clock: Clock,
        wait: Callable[[float], bool],
    ) -> None:
        """Args:
        spec / realm: whose dead letters, where.
        log: where they are read.
        transactions: entered: nobody else can resolve anything from then on.
        records: builds what goes to the retry topics.
        clock: tells times for people, and paces.
        wait: waits for so many seconds, which may be none; returns whether the run is to stop, and at once when it is.
        """
        self._spec = spec
        self._realm = realm
        self._log = log
        self._transactions = transactions
        self._records = records
        self._clock = clock
        self._wait = wait

    def run(
        self,
        order: RedriveOrder,
        snapshot: DeadLetterSnapshot,
        selection: Selection,
        progress: Callable[[int], None] = lambda _: None,
    ) -> RedriveReport:
        """Act on a selection, in its order, until all is done or `wait` says to stop.

        Args:
            order: what to do.
            snapshot: what the selection was made from.
            selection: what to act on.
            progress: is told how many dead letters each step has settled.

        Raises:
            RedriveFencedError: another run of this worker took over.
            DeliveryError: a transaction was not taken; those before it were.
            DependencyUnavailableError, CorruptLogError: dead letters cannot be read.
        """
        report = RedriveReport(redrive_id=order.redrive_id)
        # Read anew: only now that earlier writers are fenced does this not change any more.
        resolutions = self._log.read_resolutions()
        chosen = [item for item in selection.chosen if _still_to_do(item, snapshot, resolutions)]
        report.already = selection.count - _count(chosen)
        progress(report.already)
        started = _content(order, selected=_count(chosen), refused=len(selection.refused))
        self._transactions.write([self._event(STARTED, started)])
        self._act(order, chosen, report, progress)
        finished = _content(order, resolved=report.resolved, ending=report.ending)
        forgotten = self._forgotten(snapshot, resolutions) if report.ending == "finished" else []
        self._transactions.write([*forgotten, self._event(FINISHED, finished)])
        return report

    def _act(
        self,
        order: RedriveOrder,
        chosen: Sequence[SelectedDeadLetter],
        report: RedriveReport,
        progress: Callable[[int], None],
    ) -> None:
        size = BATCH_RECORDS if order.rate is None else max(1, min(BATCH_RECORDS, int(order.rate * SLICE_SECONDS)))
        due = self._clock.monotonic()
        left = _count(chosen)
        for batch in batches(chosen, size, BATCH_BYTES):
            if self._wait(max(0.0, due - self._clock.monotonic())):
                report.left, report.ending = left, "interrupted"
                return
            if order.rate is not None:
                due = self._clock.monotonic() + len(batch) / order.rate
            self._settle(order, batch, report)
            count = _count(batch)
            left -= count
            progress(count)

    def _settle(self, order: RedriveOrder, batch: Sequence[SelectedDeadLetter], report: RedriveReport) -> None:
        """Do one batch in one transaction."""
        messages = self._log.fetch(item.letter.place for item in batch)
        now = self._clock.time()
        written: list[OutboundRecord] = []
        places: list[Place] = []
        for item in batch:
            message = messages.get(item.letter.place)
            if message is None:
                report.gone += len(item.letters)
                continue
            written += self._retry_records(order, item, message)
            written += self._resolutions(order, item, now)
            places += [letter.place for letter in item.letters]
        if places:
            content = _content(order, resolved=len(places), places=place_runs(places))
            self._transactions.write([*written, self._event(RESOLVED, content)])
            report.resolved += len(places)

    def _retry_records(self, order: RedriveOrder, item: SelectedDeadLetter, message: Message) -> list[OutboundRecord]:
        key = message.key()
        if order.action == "discard":
            marker = self._records.released(item.letter, key)
            return [] if marker is None else [marker]
        value = message.value() if order.edited is None else order.edited
        headers: Headers = message.headers() or []  # type: ignore[assignment]  # values are bytes
        return [self._records.redriven(item.letter, key, value, headers, order.redrive_id)]

    def _resolutions(self, order: RedriveOrder, item: SelectedDeadLetter, now: float) -> list[OutboundRecord]:
        return [
            resolution_record(
                self._log.resolutions,
                letter.place,
                Resolution.of(
                    letter,
                    "redriven" if order.action == "redrive" else "discarded",
                    redrive_id=order.redrive_id,
                    by=order.by,
                    at=rfc3339(now),
                    reason=order.reason,
                    edited=order.edited is not None,
                ),
            )
            for letter in item.letters
        ]

    def _forgotten(self, snapshot: DeadLetterSnapshot, resolutions: Resolutions) -> list[OutboundRecord]:
        """Return tombstones for resolutions of dead letters that retention has removed: they would stay for ever."""
        first_kept: Mapping[int, int] = self._log.first_kept()
        obsolete = list(resolutions.obsolete(snapshot.letters, first_kept))[:FORGOTTEN_AT_ONCE]
        return [resolution_record(self._log.resolutions, place, None) for place in obsolete]

    def _event(self, event: str, content: DeadLetterAction) -> OutboundRecord:
        return audit_event(self._realm, self._spec, event, content, self._clock.time())


def _still_to_do(item: SelectedDeadLetter, before: DeadLetterSnapshot, now: Resolutions) -> bool:
    """Return whether nothing was done about a dead letter since it was selected."""
    return now.of(item.letter) == before.resolution(item.letter)


def _count(items: Sequence[SelectedDeadLetter]) -> int:
    return sum(len(item.letters) for item in items)


def _content(order: RedriveOrder, **counts: Any) -> DeadLetterAction:
    return DeadLetterAction(
        action=order.action,
        redrive_id=order.redrive_id,
        by=order.by,
        reason=order.reason,
        filters=order.filters,
        edited=order.edited is not None,
        **counts,
    )
