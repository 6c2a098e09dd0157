"""How long statements take and how often they fail, by statement name; slow ones are counted.

A name is that of a statement file or of a query in `queries.sql`, so the number of names is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec


class QuerySink(Protocol):
    """Where single observations go, for example Prometheus. Called on the event loop; must not block or raise."""

    def observe_query(self, statement: str, seconds: float, *, failed: bool, slow: bool) -> None:
        """Take one round trip of a named statement."""
        ...


class StatementTotals(msgspec.Struct, frozen=True):
    """What is known of one statement since the process started.

    Attributes:
        calls: round trips; a batch is one.
        failures: calls that raised, cancelled ones included.
        slow: calls that took longer than the threshold.
        seconds: their time in total; `longest_seconds` the longest.
    """

    calls: int = 0
    failures: int = 0
    slow: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0


class _Totals(msgspec.Struct):
    calls: int = 0
    failures: int = 0
    slow: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0


class QueryMetrics:
    """Totals by statement, and a pass-on of each observation to a sink. Used from the event loop only."""

    def __init__(self, *, slow_seconds: float = 0.5, sink: QuerySink | None = None) -> None:
        """Args:
        slow_seconds: a call is slow beyond this.
        sink: told of each call, too.
        """
        self.slow_seconds = slow_seconds
        self._sink = sink
        self._totals: dict[str, _Totals] = {}

    @contextmanager
    def measure(self, statement: str) -> Iterator[None]:
        """Time the block as one call of the statement."""
        started = time.perf_counter()
        failed = True
        try:
            yield
            failed = False
        finally:
            self.observe(statement, time.perf_counter() - started, failed=failed)

    def observe(self, statement: str, seconds: float, *, failed: bool) -> None:
        """Count one call of a statement."""
        slow = seconds > self.slow_seconds
        totals = self._totals.get(statement)
        if totals is None:
            totals = self._totals[statement] = _Totals()
        totals.calls += 1
        totals.failures += failed
        totals.slow += slow
        totals.seconds += seconds
        totals.longest_seconds = max(totals.longest_seconds, seconds)
        if self._sink is not None:
            self._sink.observe_query(statement, seconds, failed=failed, slow=slow)

    def snapshot(self) -> Mapping[str, StatementTotals]:
        """Return the totals of every statement seen so far."""
        return {
            name: msgspec.convert(totals, StatementTotals, from_attributes=True)
            for name, totals in self._totals.items()
        }


def metrics_of(connection: Any) -> QueryMetrics:
    """Return the metrics a pooled connection carries; throw-away ones for a connection of another origin."""
    found = getattr(connection, "query_metrics", None)
    return found if isinstance(found, QueryMetrics) else QueryMetrics()
