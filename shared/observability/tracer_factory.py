"""Traces of a process: made from the settings, exported by OTLP over gRPC or HTTP. Imported only where traces are wanted.

Whether a message is traced is decided by hand (`trace_context`), before the tracing library is asked for anything.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, Final, Literal

from opentelemetry import context as otel_context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from omnibase_infra.shared.core.errors import error_code
from omnibase_infra.shared.core.redaction import sanitised
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.active_trace import ACTIVE, ActiveTrace, AttributeValue
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.otlp_exporter import exporter_of
from omnibase_infra.shared.observability.span_queue import DropReason, SpanQueue
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.trace_context import SAMPLED, RootSampler, TraceParent

Kind = Literal["consumer", "client", "internal"]

_KINDS: Final = {"consumer": SpanKind.CONSUMER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_DISTRIBUTION: Final = "omnibase-infra-fleet"
_SCOPE: Final = "omnibase_infra"
_ROOT: Final = otel_context.Context()
# Ids for the next span; the library asks its generator for them while it makes the span.
_WANTED_IDS: Final[ContextVar[tuple[int, int]]] = ContextVar("omnibase_wanted_span_ids", default=(0, 0))


class _WantedIds(IdGenerator):
    """Gives a span the ids that are wanted for it, and random ones where none are."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        return _WANTED_IDS.get()[1] or self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        return _WANTED_IDS.get()[0] or self._random.generate_trace_id()


class _Counts:
    """Counts exported and lost spans, and says in the log when the collector is away: once, then rate-limited."""

    def __init__(self, registry: MetricsRegistry, worker: str, endpoint: str) -> None:
        self._exported = registry.counter(metric.SPANS_EXPORTED, worker=worker)
        reasons: tuple[DropReason, ...] = ("queue-full", "export-failed")
        self._dropped = {
            reason: registry.counter(metric.SPANS_DROPPED, worker=worker, reason=reason) for reason in reasons
        }
        self._endpoint = endpoint

    def exported(self, spans: int) -> None:
        self._exported.inc(spans)

    def dropped(self, spans: int, reason: DropReason) -> None:
        self._dropped[reason].inc(spans)

    def export_failed(self, error: BaseException | None) -> None:
        get_logger().warning(
            LogEvent.TRACE_EXPORT_FAILED,
            endpoint=self._endpoint,
            error=sanitised(str(error)) if error is not None else "the collector did not take the spans",
        )


class Tracing:
    """Makes spans and sends them off. Spans are made on any thread; close it after what still makes some.

    Attributes:
        roots: decides on messages that come without a decision.
    """

    def __init__(self, provider: TracerProvider, queue: SpanQueue, roots: RootSampler) -> None:
        """Use `create_tracing`."""
        self._provider = provider
        self._tracer = provider.get_tracer(_SCOPE)
        self._queue = queue
        self.roots: Final = roots

    def start(  # noqa: PLR0913 - what a span consists of
        self,
        name: str,
        kind: Kind,
        *,
        parent: TraceParent | None = None,
        tracestate: str | None = None,
        trace_id: str = "",
        span_id: str = "",
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[TraceParent] = (),
        start_ns: int | None = None,
    ) -> Span:
        """Return a new span, not active yet.

        Args:
            name: few different ones: an operation, never an id.
            kind: what the span stands for.
            parent: a sampled one of another process or span; None begins a trace.
            tracestate: what vendors told along with the parent, passed on.
            trace_id / span_id: of the span, in hex; default: random. The parent's trace counts where there is one.
            attributes: no payloads, no secrets.
            links: spans that this one has to do with.
            start_ns: Unix time in nanoseconds; default: now.
        """
        context = _ROOT if parent is None else set_span_in_context(_remote(parent, tracestate), _ROOT)
        token = _WANTED_IDS.set((int(trace_id or "0", 16), int(span_id or "0", 16)))
        try:
            return self._tracer.start_span(
                name,
                context=context,
                kind=_KINDS[kind],
                attributes=attributes,
                links=[Link(_context(link)) for link in links],
                start_time=start_ns,
            )
        finally:
            _WANTED_IDS.reset(token)

    @contextmanager
    def active(self, span: Span) -> Iterator[ActiveTrace]:
        """Make a span the active one for the block, here and for libraries with OpenTelemetry instrumentation."""
        token = ACTIVE.set(active := ActiveTrace(self, span))
        library_token = otel_context.attach(set_span_in_context(span))
        try:
            yield active
        finally:
            otel_context.detach(library_token)
            ACTIVE.reset(token)

    @contextmanager
    def child(
        self, active: ActiveTrace, name: str, attributes: Mapping[str, AttributeValue], kind: Kind = "internal"
    ) -> Iterator[Span]:
        """Show the block as an active span below another one; an exception marks it as failed and goes on."""
        span = self.start(name, kind, parent=active.parent, attributes=attributes)
        try:
            with self.active(span):
                yield span
        except BaseException as error:
            mark_failed(span, error)
            raise
        finally:
            span.end()

    def record(
        self, active: ActiveTrace, name: str, kind: Kind, seconds: float, attributes: Mapping[str, AttributeValue]
    ) -> None:
        """Note something that ended just now, and took so long, as a span below the active one."""
        end = time.time_ns()
        span = self.start(
            name, kind, parent=active.parent, attributes=attributes, start_ns=end - int(seconds * 1_000_000_000)
        )
        if "error.type" in attributes:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    async def aclose(self, timeout_seconds: float) -> None:
        """Export what waits within the time-out, then stop."""
        await asyncio.to_thread(self._queue.close, timeout_seconds)
        self._provider.shutdown()


def create_tracing(
    settings: Settings,
    *,
    service: str,
    registry: MetricsRegistry,
    attributes: Mapping[str, str] | None = None,
) -> Tracing | None:
    """Return the traces of this process; None when no collector is set.

    Args:
        settings: `otlp_*` and `trace_*`.
        service: the worker's name, or a program's.
        registry: counts spans exported and lost.
        attributes: further facts about the process, such as `service.version`.

    Raises:
        SettingsError: the address or a file of the TLS settings is no good.
    """
    if settings.otlp_endpoint is None:
        return None
    make_exporter = exporter_of(settings)
    resource = Resource(
        {
            "service.name": service,
            "service.namespace": "omnibase-infra",
            "service.instance.id": f"{service}-{os.getpid()}",
            "deployment.environment.name": str(settings.realm),
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": version("opentelemetry-sdk"),
            "telemetry.distro.name": _DISTRIBUTION,
            **(attributes or {}),
        }
    )
    # A root that reaches the library has been decided on, hence always on; for the rest the parent decides.
    provider = TracerProvider(
        sampler=ParentBased(ALWAYS_ON), resource=resource, id_generator=_WantedIds(), shutdown_on_exit=False
    )
    queue = SpanQueue(
        make_exporter,
        _Counts(registry, service, settings.otlp_endpoint),
        capacity=settings.trace_queue_spans,
    )
    provider.add_span_processor(queue)
    return Tracing(provider, queue, RootSampler(settings.trace_sample_ratio))


def mark_failed(span: Span, error: BaseException) -> None:
    """Show an error on a span: its code and its text without secrets; the stack is the log's."""
    span.set_attribute("error.type", error_code(error))
    span.set_status(Status(StatusCode.ERROR, sanitised(str(error)) or type(error).__name__))


def traceparent_of(span: Span) -> TraceParent:
    """Return what names a span as parent."""
    context = span.get_span_context()
    return TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags))


def _remote(parent: TraceParent, tracestate: str | None) -> NonRecordingSpan:
    return NonRecordingSpan(_context(parent, tracestate))


def _context(parent: TraceParent, tracestate: str | None = None) -> SpanContext:
    state = TraceState.from_header([tracestate]) if tracestate else None
    # Only the sampled flag is ours to judge by; whoever kept the span we link to kept it because of that.
    flags = TraceFlags(parent.flags & SAMPLED)
    return SpanContext(
        int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags, trace_state=state
    )
