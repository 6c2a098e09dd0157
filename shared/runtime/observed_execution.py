"""Execution that can be followed: its log lines say which messages they are about, and traced records get spans.

For a batch of which nothing is traced that is one context variable, and a flag test per record where traces are wanted.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from omnibase_infra.shared.core.ports import EffectSession, EffectStore
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.active_trace import active_trace, trace_span, working_on
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.execution import Execution, Settled
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.record_spans import RecordSpans
from omnibase_infra.shared.runtime.records import Record


class ObservedExecution(Execution):
    """Runs batches as `Execution` does, so that logs and traces show them."""

    def __init__(
        self, spec: WorkerSpec, answers: Answers, stores: dict[str, EffectStore], spans: RecordSpans | None
    ) -> None:
        """Args:
        spec / answers / stores: see `Execution`.
        spans: begins spans; None where nothing is traced.
        """
        super().__init__(spec, answers, stores)
        self._spans = spans

    def run(self, lane: Lane, records: Sequence[Record]) -> Coroutine[Any, Any, list[Settled]]:
        """Run a batch; see `Execution.run`. Not a coroutine itself: the untraced batch must not pay for one."""
        working_on(records)
        spans = self._spans
        if spans is not None and spans.wants(records):
            return self._run_traced(spans, lane, records)
        return super().run(lane, records)

    async def _run_traced(self, spans: RecordSpans, lane: Lane, records: Sequence[Record]) -> list[Settled]:
        with spans.begin(lane, records) as batch:
            settled = await super().run(lane, records)
            batch.settled(settled)
            return settled

    def _outcomes(
        self, lane: Lane, records: Sequence[Record], requests: Sequence[Any], session: EffectSession | None
    ) -> Coroutine[Any, Any, list[Any]]:
        if active_trace() is None:
            return super()._outcomes(lane, records, requests, session)
        return self._outcomes_traced(lane, records, requests, session)

    async def _outcomes_traced(
        self, lane: Lane, records: Sequence[Record], requests: Sequence[Any], session: EffectSession | None
    ) -> list[Any]:
        with trace_span(f"handle {lane.operation.name}"):
            return await super()._outcomes(lane, records, requests, session)
