"""How long statements take and how often they fail: by statement name, and by pattern for SQL of other people.

A name is that of a statement file or of a query in `queries.sql`, so the number of names is bounded; of patterns
those used most lately are kept. Nothing here ever sees a parameter.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, Protocol

import msgspec

from omnibase_infra.shared.core.errors import DependencyError
from omnibase_infra.shared.postgres.errors import classify
from omnibase_infra.shared.postgres.fingerprints import QueryPattern, pattern_of

MOST_PATTERNS: Final = 200

PatternOrder = Literal["seconds", "calls", "longest_seconds", "failures"]


class QuerySink(Protocol):
    """Where single observations go, for example Prometheus. Called on the event loop; must not block or raise."""

    def observe_query(
        self,
        statement: str,
        seconds: float,
        *,
        failed: bool,
        outage: bool,
        slow: bool,
        pattern: QueryPattern | None,
    ) -> None:
        """Take one round trip of a named statement.

        Args:
            statement: its name.
            seconds: it took.
            failed: it raised, or was cancelled.
            outage: it failed for the server or the connection, and not for what was asked.
            slow: it took longer than the threshold.
            pattern: of the SQL, where that is known.
        """
        ...


class StatementTotals(msgspec.Struct, frozen=True):
    """What is known of one statement since the process started.

    Attributes:
        calls: round trips; a batch is one.
        failures: calls that raised, cancelled ones included.
        outages: those of them that the server or the connection is to blame for.
        slow: calls that took longer than the threshold.
        seconds: their time in total; `longest_seconds` the longest.
    """

    calls: int = 0
    failures: int = 0
    outages: int = 0
    slow: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0


class PatternTotals(msgspec.Struct, frozen=True):
    """What is known of one pattern. `statement` is the name it was last run under."""

    fingerprint: str
    pattern: str
    statement: str
    totals: StatementTotals


class _Totals(msgspec.Struct):
    calls: int = 0
    failures: int = 0
    outages: int = 0
    slow: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0

    def add(self, seconds: float, failed: bool, outage: bool, slow: bool) -> None:
        self.calls += 1
        self.failures += failed
        self.outages += outage
        self.slow += slow
        self.seconds += seconds
        self.longest_seconds = max(self.longest_seconds, seconds)

    def frozen(self) -> StatementTotals:
        return msgspec.convert(self, StatementTotals, from_attributes=True)


class _PatternEntry:
    __slots__ = ("pattern", "statement", "totals")

    def __init__(self, pattern: QueryPattern) -> None:
        self.pattern = pattern
        self.statement = ""
        self.totals = _Totals()


class QueryMetrics:
    """Totals by statement and by pattern, and a pass-on of each call to a sink. Used from the event loop only.

    Attributes:
        slow_seconds: a call is slow beyond this.
        calls: of all statements; `outages` those that the server or the connection failed.
    """

    def __init__(
        self, *, slow_seconds: float = 0.5, sink: QuerySink | None = None, most_patterns: int = MOST_PATTERNS
    ) -> None:
        """Args:
        slow_seconds: a call is slow beyond this.
        sink: told of each call, too.
        most_patterns: kept; the one that was not used for longest makes room.
        """
        self.slow_seconds = slow_seconds
        self.calls = 0
        self.outages = 0
        self._sink = sink
        self._most_patterns = most_patterns
        self._totals: dict[str, _Totals] = {}
        self._patterns: OrderedDict[str, _PatternEntry] = OrderedDict()

    @contextmanager
    def measure(self, statement: str, sql: str | None = None) -> Iterator[None]:
        """Time the block as one call of the statement.

        Args:
            statement: its name.
            sql: its text, with `$n` or literals, for its pattern.
        """
        started = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self.observe(statement, time.perf_counter() - started, failed=True, outage=_is_outage(error), sql=sql)
            raise
        self.observe(statement, time.perf_counter() - started, failed=False, sql=sql)

    def observe(
        self, statement: str, seconds: float, *, failed: bool, outage: bool = False, sql: str | None = None
    ) -> None:
        """Count one call of a statement."""
        pattern = pattern_of(sql) if sql is not None else None
        slow = seconds > self.slow_seconds
        totals = self._totals.get(statement)
        if totals is None:
            totals = self._totals[statement] = _Totals()
        totals.add(seconds, failed, outage, slow)
        self.calls += 1
        self.outages += outage
        if pattern is not None:
            entry = self._entry(pattern)
            entry.statement = statement
            entry.totals.add(seconds, failed, outage, slow)
        if self._sink is not None:
            self._sink.observe_query(statement, seconds, failed=failed, outage=outage, slow=slow, pattern=pattern)

    def snapshot(self) -> Mapping[str, StatementTotals]:
        """Return the totals of every statement seen so far."""
        return {name: totals.frozen() for name, totals in self._totals.items()}

    def top_patterns(self, count: int = 10, by: PatternOrder = "seconds") -> list[PatternTotals]:
        """Return the patterns with most of something, the first one first."""
        entries = sorted(self._patterns.values(), key=lambda entry: -getattr(entry.totals, by))[:count]
        return [
            PatternTotals(entry.pattern.fingerprint, entry.pattern.text, entry.statement, entry.totals.frozen())
            for entry in entries
        ]

    def _entry(self, pattern: QueryPattern) -> _PatternEntry:
        entry = self._patterns.get(pattern.fingerprint)
        if entry is None:
            entry = self._patterns[pattern.fingerprint] = _PatternEntry(pattern)
            if len(self._patterns) > self._most_patterns:
                self._patterns.popitem(last=False)
        else:
            self._patterns.move_to_end(pattern.fingerprint)
        return entry


def metrics_of(connection: Any) -> QueryMetrics:
    """Return the metrics a pooled connection carries; throw-away ones for a connection of another origin."""
    found = getattr(connection, "query_metrics", None)
    return found if isinstance(found, QueryMetrics) else QueryMetrics()


def _is_outage(error: BaseException) -> bool:
    """A refusal is the caller's business, a cancellation nobody's; a time-out or a driver's complaint is an outage."""
    if isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
        return False
    return isinstance(classify(error, connection_lost=True), DependencyError)
