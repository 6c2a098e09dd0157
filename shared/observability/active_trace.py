"""What runs right now: the active span and the messages of the batch. Imports no tracing library.

Code anywhere below a handler asks here. Without an active span every question costs one look at a context variable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.observability.trace_context import SAMPLED, TraceParent

if TYPE_CHECKING:  # the tracing library is loaded only where traces are wanted
    from opentelemetry.trace import Span

    from omnibase_infra.shared.observability.tracer_factory import Tracing

AttributeValue = str | bool | int | float
_MOST_IDS: Final = 10


class HasEnvelope(Protocol):
    """A message under way. Its envelope is gone once it has ended."""

    @property
    def envelope(self) -> Envelope | None:
        """The envelope."""
        ...


class ActiveTrace:
    """The span that is active, what made it, and its ids as they are on the wire."""

    __slots__ = ("span", "span_id", "trace_id", "tracing")

    def __init__(self, tracing: Tracing, span: Span) -> None:
        """Take the span and what made it."""
        context = span.get_span_context()
        self.tracing = tracing
        self.span = span
        self.trace_id = f"{context.trace_id:032x}"
        self.span_id = f"{context.span_id:016x}"

    @property
    def parent(self) -> TraceParent:
        """Return what a message or request sent now names as its parent."""
        return TraceParent(self.trace_id, self.span_id, SAMPLED)


ACTIVE: Final[ContextVar[ActiveTrace | None]] = ContextVar("omnibase_active_trace", default=None)
_MESSAGES: Final[ContextVar[Sequence[HasEnvelope]]] = ContextVar("omnibase_messages", default=())


def active_trace() -> ActiveTrace | None:
    """Return the active span; None in work that is not traced."""
    return ACTIVE.get()


@contextmanager
def trace_span(name: str, **attributes: AttributeValue) -> Iterator[Span | None]:
    """Show the block as a span of its own, below the active one; in work that is not traced do nothing.

    For code of node authors. Never put payloads, keys or secrets in attributes. An exception marks the span as failed
    and goes on.
    """
    active = ACTIVE.get()
    if active is None:
        yield None
        return
    with active.tracing.child(active, name, attributes) as span:
        yield span


def current_traceparent() -> str | None:
    """Return the `traceparent` of what is active, here or in a program's own OpenTelemetry; None when nothing is."""
    active = ACTIVE.get()
    if active is not None:
        return str(active.parent)
    # A program that traces has the library loaded; one that does not must not load it for this question.
    library: Any = sys.modules.get("opentelemetry.trace")
    if library is None:
        return None
    context = library.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return str(TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags)))


def working_on(messages: Sequence[HasEnvelope]) -> None:
    """Let log lines of this task, and of those it starts, say which messages they are about."""
    _MESSAGES.set(messages)


def log_fields() -> dict[str, Any]:
    """Return what a log line written now is about: trace, span and correlation ids, as far as there are any."""
    fields: dict[str, Any] = {}
    # A message that has ended has lost its envelope: nothing is about it any more.
    envelopes = [one.envelope for one in _MESSAGES.get()[:_MOST_IDS] if one.envelope is not None]
    if len(envelopes) == 1:
        fields["correlation_id"] = envelopes[0].conversation
        fields["message_id"] = envelopes[0].id
    elif envelopes:
        fields["correlation_ids"] = list(dict.fromkeys(one.conversation for one in envelopes))
    active = ACTIVE.get()
    if active is not None:
        fields["trace_id"] = active.trace_id
        fields["span_id"] = active.span_id
    return fields
