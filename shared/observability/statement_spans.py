"""Spans of database statements: one per round trip, never one per row, and only below a span that is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from omnibase_infra.shared.observability.active_trace import active_trace


class StatementObserver(Protocol):
    """Who is told of each round trip: by name and seconds, and facts of the driver's own, such as `failed`."""

    @property
    def observe_query(self) -> Callable[..., None]:
        """The function that takes one round trip of a named statement."""
        ...


class StatementSpans:
    """Stands before another observer and shows each round trip in the trace of whatever caused it.

    The driver's own instrumentation would cost every statement, and show SQL text; here a statement outside a trace costs
    one look at a context variable, and a span has the statement's name.
    """

    def __init__(self, then: StatementObserver, system: str) -> None:
        """Args:
        then: told afterwards.
        system: the database, as OpenTelemetry names it: `postgresql`.
        """
        self._then = then
        self._system = system

    def observe_query(self, statement: str, seconds: float, **facts: Any) -> None:
        """Take one round trip of a named statement that has just ended."""
        active = active_trace()
        if active is not None:
            attributes = {"db.system.name": self._system, "db.query.summary": statement}
            if (pattern := facts.get("pattern")) is not None:
                attributes["omnibase.fingerprint"] = pattern.fingerprint
            if facts.get("failed"):
                attributes["error.type"] = "statement-failed"
            active.tracing.record(active, statement, "client", seconds, attributes)
        self._then.observe_query(statement, seconds, **facts)
