"""Completion: the outputs of records that have an outcome are delivered, then the records are finished and counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from omnibase_infra.shared.core.errors import error_code
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.redaction import sanitised
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.dead_letters import DeadLetterLimit, DeadLetters, TooManyDeadLettersError
from omnibase_infra.shared.runtime.delivery import OutputDelivery, Owned
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.parking import Parking
from omnibase_infra.shared.runtime.records import Record
from omnibase_infra.shared.runtime.refusal_answers import RefusalAnswers
from omnibase_infra.shared.runtime.settled import Settled


class Completion:
    """Ends records of one worker. On the event loop."""

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        lanes: Lanes,
        delivery: OutputDelivery,
        dead_letters: DeadLetters,
        refusal_answers: RefusalAnswers,
        parking: Parking,
        metrics: WorkerMetrics,
        log: Any,
    ) -> None:
        self._spec = spec
        self._lanes = lanes
        self._delivery = delivery
        self._dead_letters = dead_letters
        self._refusal_answers = refusal_answers
        self._parking = parking
        self._metrics = metrics
        self._log = log
        self._limit = DeadLetterLimit(spec.dead_letters)

    def died(self, count: int) -> None:
        """Count dead letters.

        Raises:
            TooManyDeadLettersError: the contract's limit is reached.
        """
        try:
            self._limit.died(count)
        except TooManyDeadLettersError as error:
            self._log.error(LogEvent.DEAD_LETTER_LIMIT, error=error.message, hint=error.hint)
            raise

    async def complete(self, lane: Lane, settled: Sequence[Settled]) -> None:
        """Deliver the outputs of settled records, then let their offsets be committed and their keys go on."""
        outputs: list[Owned] = []
        markers: list[Owned] = []
        buried: list[tuple[Record, BaseException]] = []
        done: list[Record] = []
        answers = dead = failed = repeated = 0
        for one in settled:
            record = one.record
            if one.refused is not None:
                buried.append((record, one.refused))
                continue
            done.append(record)
            failed += one.failed
            repeated += one.repeated
            dies = own = False
            for output in one.outputs:
                if self._dead_letters.is_dead_letter(output):
                    dies = True
                    own = own or self._dead_letters.is_of(record, output)
                    outputs.append((record, self._dead_letters.outbound(record, output)))
                else:
                    answers += 1
                    answer = OutboundRecord(output.topic, output.value, output.key, STRUCTURED_HEADERS)
                    outputs.append((record, answer))
            dead += dies
            if own and self._holds(lane, record):
                markers.append((record, self._parking.hold(record)))
            elif record.origin is not None:
                markers.append((record, self._parking.done_marker(record)))
        # The markers last: once they say that records have ended, nobody would send their outputs again.
        await self._delivery.deliver_owned(outputs, markers)
        self._finish(lane, done, failed=failed, dead=dead, repeated=repeated, answers=answers)
        if buried:
            await self.bury(buried)
        if dead:
            self.died(dead)

    def _holds(self, lane: Lane, record: Record) -> bool:
        """Return whether the later records of a dead record's key are to be held back."""
        ordered = record.key is not None and lane.operation.ordering != "none"
        return ordered and self._spec.dead_letters.then == "hold" and record.work.parking is not None

    async def bury(self, refused: Sequence[tuple[Record, BaseException]]) -> None:
        """Write refused records to the dead-letter topic, and answer commands that can be; only then are they finished."""
        if not refused:
            return
        now = time.time()
        outputs: list[Owned] = []
        for record, error in refused:
            letter = self._dead_letters.outbound(record, self._dead_letters.output(record, error, now))
            outputs += [(record, letter), *((record, answer) for answer in self._refusal_answers.of(record, error))]
        ended = [(record, self._parking.done_marker(record)) for record, _ in refused if record.origin is not None]
        await self._delivery.deliver_owned(outputs, ended)
        for record, error in refused:
            self._metrics.refused(error_code(error)).inc()
            topic = self._metrics.topics[record.work.topic]
            topic.dead.inc()
            topic.finished.inc()
            self._log.warning(
                LogEvent.RECORD_REFUSED, record=repr(record), code=error_code(error), error=sanitised(str(error))
            )
        self._lanes.finish([record for record, _ in refused])
        self.died(len(refused))

    def _finish(
        self, lane: Lane, records: list[Record], *, failed: int, dead: int, repeated: int, answers: int
    ) -> None:
        if not records:
            return
        self._lanes.finish(records)
        self._limit.finished(len(records) - dead)
        works = [record.work for record in records]
        for work in set(works):  # few, and most often one
            self._metrics.topics[work.topic].finished.inc(works.count(work))
        if dead:
            self._metrics.topics[works[0].topic].dead.inc(dead)
        self.count(lane, "completed", len(records) - failed - dead)
        self.count(lane, "failed", failed - dead)
        self.count(lane, "inbox_hits", repeated)
        self.count(lane, "answers", answers)
        operation = self._metrics.operations.get(lane.operation.name)
        if operation is not None:
            now = time.time() * 1000
            operation.end_to_end_seconds.observe_many(
                [(now - at) / 1000 if (at := record.timestamp_ms) < now else 0.0 for record in records]
            )

    def count(self, lane: Lane, counter: str, amount: int) -> None:
        """Add to a counter of the lane's operation."""
        operation = self._metrics.operations.get(lane.operation.name)
        if operation is not None and amount > 0:
            getattr(operation, counter).inc(amount)

    def observe(self, lane: Lane, records: int, seconds: float) -> None:
        """Note how long a batch ran."""
        operation = self._metrics.operations.get(lane.operation.name)
        if operation is not None:
            operation.handler_seconds.observe(seconds)
            operation.batch_records.observe(records)
