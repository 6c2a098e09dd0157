"""Spans of the records of a batch: one for each record that is traced, begun when its batch begins and ended with it.

A traced record's envelope is replaced by one whose `traceparent` is its span: whatever the record leads to, made by the
runtime or by a node, so names the span as its parent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.trace_context import (
    SAMPLED,
    TraceParent,
    first_span_id,
    parse_traceparent,
    trace_id_of,
)
from omnibase_infra.shared.observability.worker_metrics import OperationMetrics, WorkerMetrics
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import Record
from omnibase_infra.shared.runtime.settled import Settled

if TYPE_CHECKING:  # loads the tracing library
    from opentelemetry.trace import Span

    from omnibase_infra.shared.observability.tracer_factory import Tracing


class RecordSpans:
    """Begins the spans of a worker's records. Event loop."""

    def __init__(self, tracing: Tracing, spec: WorkerSpec, group: str, metrics: WorkerMetrics) -> None:
        """Args:
        tracing: of the process.
        spec: whose records.
        group: its consumer group.
        metrics: get the trace ids as exemplars.
        """
        self._tracing = tracing
        self._worker = spec.worker
        self._group = group
        self._metrics = metrics

    def wants(self, records: Sequence[Record]) -> bool:
        """Return whether one of the records may be traced: a flag test each, or a hash where nobody has decided."""
        roots = self._tracing.roots
        for record in records:
            envelope = record.envelope
            if envelope.sampled if envelope.traceparent is not None else roots.wants(envelope.conversation):
                return True
        return False

    def begin(self, lane: Lane, records: Sequence[Record]) -> BatchSpans:
        """Begin the spans of those records that are traced."""
        spans: list[tuple[Record, Span]] = []
        first: TraceParent | None = None
        for record in records:
            if (span := self._begin(lane, record, len(records), first)) is not None:
                spans.append((record, span))
                first = first or parse_traceparent(record.envelope.traceparent)
        return BatchSpans(self._tracing, spans, self._metrics.operations.get(lane.operation.name))

    def _begin(self, lane: Lane, record: Record, batch: int, leader: TraceParent | None) -> Span | None:
        envelope = record.envelope
        if envelope.traceparent is not None and not envelope.sampled:
            return None
        source, message = envelope.source, envelope.id
        own_id = first_span_id(self._worker, source, message, record.redrive_id)
        parent = parse_traceparent(envelope.traceparent)
        # Its own span as parent: an earlier attempt here has put it there, and the bytes still have the sender's.
        again = parent is not None and parent.span_id == own_id
        if again:
            parent = parse_traceparent(_sent_traceparent(record))
        if not (parent.sampled if parent is not None else again or self._tracing.roots.wants(envelope.conversation)):
            return None
        trace_id = parent.trace_id if parent is not None else trace_id_of(envelope.conversation)
        later = again or record.attempts > 0 or bool(record.redrive_id)
        links = [TraceParent(trace_id, first_span_id(self._worker, source, message), SAMPLED)] if later else []
        span = self._tracing.start(
            f"process {lane.operation.name}",
            "consumer",
            parent=parent,
            tracestate=envelope.tracestate,
            trace_id=trace_id,
            span_id=own_id if not again and not record.attempts else "",
            attributes=self._attributes(lane, record, batch),
            links=[*links, leader] if leader is not None else links,
        )
        context = span.get_span_context()
        traced = TraceParent(trace_id, f"{context.span_id:016x}", SAMPLED)
        record.envelope = msgspec.structs.replace(envelope, traceparent=str(traced))
        return span

    def _attributes(self, lane: Lane, record: Record, batch: int) -> dict[str, Any]:
        envelope = record.envelope
        attributes: dict[str, Any] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": self._group,
            "messaging.destination.name": record.work.physical,
            "messaging.destination.partition.id": str(record.work.partition),
            "messaging.kafka.offset": record.offset,
            "messaging.message.id": envelope.id,
            "messaging.message.conversation_id": envelope.conversation,
            "messaging.batch.message_count": batch,
            "omnibase.operation": lane.operation.name,
            "omnibase.attempt": record.attempts + 1,
        }
        if record.redrive_id:
            attributes["omnibase.redrive_id"] = record.redrive_id
        return attributes


class BatchSpans:
    """The spans of a batch, as a context manager: the first is active in the block, all end with it."""

    def __init__(
        self, tracing: Tracing, spans: Sequence[tuple[Record, Span]], operation: OperationMetrics | None
    ) -> None:
        """Take the begun spans, and the metrics that show them as exemplars."""
        self._tracing = tracing
        self._spans = spans
        self._operation = operation
        self._stack = ExitStack()
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        if self._spans:
            self._stack.enter_context(self._tracing.active(self._spans[0][1]))
        return self

    def settled(self, settled: Sequence[Settled]) -> None:
        """Note how the records ended."""
        outcomes = {id(one.record): _outcome(one) for one in settled}
        for record, span in self._spans:
            span.set_attribute("omnibase.outcome", outcomes.get(id(record), "postponed"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from omnibase_infra.shared.observability.tracer_factory import mark_failed

        self._stack.close()
        seconds = time.perf_counter() - self._began
        for _, span in self._spans:
            if error is not None:
                mark_failed(span, error)
            span.end()
        if self._spans and self._operation is not None:
            context = self._spans[0][1].get_span_context()
            self._operation.handler_seconds.exemplify(seconds, f"{context.trace_id:032x}", f"{context.span_id:016x}")


class _Sent(msgspec.Struct):
    traceparent: str | None = None


_SENT: Final = msgspec.json.Decoder(_Sent)


def _sent_traceparent(record: Record) -> str | None:
    """Return the `traceparent` of a record's own bytes, of either mode; they were decoded before."""
    for name, content in record.headers or ():
        if name.lower() == "ce_traceparent":
            return (content or b"").decode("latin-1")
    try:
        return _SENT.decode(record.value or b"{}").traceparent
    except msgspec.MsgspecError:  # of binary mode, the value is the payload, which may be anything
        return None


def _outcome(settled: Settled) -> str:
    if settled.refused is not None:
        return "refused"
    if settled.repeated:
        return "repeated"
    return "failed" if settled.failed else "completed"
