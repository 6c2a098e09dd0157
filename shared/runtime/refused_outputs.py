"""What goes out in place of an output that the broker will never take: a failed answer and the record's dead letter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.dead_letters import DeadLetters
from omnibase_infra.shared.runtime.transaction_stage import StagedOutputs


class OutputRefusedError(OmnibaseError):
    """The broker refuses an output for ever, for example since it is larger than its topic takes."""

    code = "output-refused"


class RefusedOutputs:
    """Makes replacements. Consumer thread."""

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        answers: Answers,
        dead_letters: DeadLetters,
        log: Any,
        on_dead_letter: Callable[[], None],
    ) -> None:
        """Args:
        spec / answers / dead_letters / log: of the worker.
        on_dead_letter: told of each, since too many of them stop a worker.
        """
        self._retry_topics = {str(topic) for topic in spec.retry_topics.values()}
        self._dead_letter_topic = str(spec.dead_letter_topic)
        self._answers = answers
        self._dead_letters = dead_letters
        self._log = log
        self._on_dead_letter = on_dead_letter

    def replacement(
        self, staged: StagedOutputs, refused: OutboundRecord, reason: str
    ) -> Sequence[OutboundRecord] | None:
        """Return what the record gives instead; None when nothing may take the place of what was refused.

        A refused answer becomes a dead letter and a `failed` answer; where that is refused, too, the dead letter
        alone. What parks a record or is a dead letter itself cannot be replaced: losing it would lose the record.
        """
        if refused.topic in self._retry_topics or refused.topic == self._dead_letter_topic:
            return None
        record = staged.whole_record()
        error = OutputRefusedError(f"the broker refuses the output for {refused.topic}: {reason}")
        dead = self._dead_letters.outbound(record, self._dead_letters.output(record, error, time.time()))
        kept = [output for output in staged.outputs if output.topic in self._retry_topics]
        self._log.error(LogEvent.OUTPUT_REFUSED, record=repr(record), topic=refused.topic, error=reason)
        if any(output.topic == self._dead_letter_topic for output in staged.outputs):
            return [output for output in staged.outputs if output is not refused]
        self._on_dead_letter()
        return [dead, *self._failed_answer(staged, error), *kept]

    def _failed_answer(self, staged: StagedOutputs, error: OutputRefusedError) -> list[OutboundRecord]:
        record = staged.whole_record()
        if record.lane is None:
            return []
        failed = OperationFailed(code=error.code, message=str(error), retryable=False, attempts=record.attempts + 1)
        answers = self._answers.of(record, record.lane.operation, failed, clock.rfc3339(time.time()))
        return [OutboundRecord(one.topic, one.value, one.key, STRUCTURED_HEADERS) for one in answers]
