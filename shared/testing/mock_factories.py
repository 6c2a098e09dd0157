"""Stand-ins for servers in unit tests. They keep what was asked of them, and fail when told to. No integration tests.

Each has the methods of the real thing that handlers and processors use; a test of ours holds the two together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import msgspec

from omnibase_infra.shared.core.errors import (
    DeliveryError,
    DependencyUnavailableError,
    TopicNotDeclaredError,
)
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.postgres.pool_options import PoolState
from omnibase_infra.shared.resilience.circuit_breaker_factory import BREAKER_PRESETS
from omnibase_infra.shared.resilience.dependency_breaker import BreakerPreset, BreakerState, DependencyBreaker
from omnibase_infra.shared.resilience.service_kinds import service_kind
from omnibase_infra.shared.testing.manual_clock import ManualClock


class SqlCall(msgspec.Struct, frozen=True):
    """One statement that was run: by which method of the connection, and its parameters."""

    method: str
    sql: str
    arguments: tuple[Any, ...]


class MockConnection:
    """The connection that a mock pool lends: answers from the pool's list, keeps every call."""

    def __init__(self, pool: MockPostgresPool) -> None:
        self._pool = pool

    async def fetch(self, sql: str, *arguments: Any, **_: Any) -> list[Any]:
        """Return the next answer: rows."""
        return list(self._answer("fetch", sql, arguments, []))

    async def fetchrow(self, sql: str, *arguments: Any, **_: Any) -> Any:
        """Return the next answer: one row, or None."""
        return self._answer("fetchrow", sql, arguments, None)

    async def fetchval(self, sql: str, *arguments: Any, **_: Any) -> Any:
        """Return the next answer: one value."""
        return self._answer("fetchval", sql, arguments, None)

    async def execute(self, sql: str, *arguments: Any, **_: Any) -> Any:
        """Return the next answer: the status, such as `INSERT 0 1`."""
        return self._answer("execute", sql, arguments, "OK")

    async def executemany(self, sql: str, arguments: Sequence[Any], **_: Any) -> None:
        """Keep the call."""
        self._answer("executemany", sql, tuple(arguments), None)

    @asynccontextmanager
    async def transaction(self, **_: Any) -> AsyncIterator[None]:
        """Let the block through; how it ended is kept as a call of its own."""
        self._pool.calls.append(SqlCall("transaction", "BEGIN", ()))
        try:
            yield
        except BaseException:
            self._pool.calls.append(SqlCall("transaction", "ROLLBACK", ()))
            raise
        self._pool.calls.append(SqlCall("transaction", "COMMIT", ()))

    def _answer(self, method: str, sql: str, arguments: tuple[Any, ...], otherwise: Any) -> Any:
        self._pool.calls.append(SqlCall(method, sql, arguments))
        if not self._pool.answers:
            return otherwise
        answer = self._pool.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class MockPostgresPool:
    """Stands in for `PostgresConnectionPool`.

    Attributes:
        calls: what was run, in order.
        answers: what the next calls return, in order; an exception is raised. When they are used up, a call gets nothing.
    """

    def __init__(self, answers: Sequence[Any] = (), max_size: int = 10) -> None:
        self.answers: list[Any] = list(answers)
        self.calls: list[SqlCall] = []
        self.is_open = True
        self._max = max_size
        self._in_use = 0
        self._failure: BaseException | None = None

    def fails(self, error: BaseException | None) -> None:
        """Let every `acquire` raise this from now on; None: work again."""
        self._failure = error

    async def open(self) -> None:
        """Open it."""
        self.is_open = True

    async def close(self, timeout: float = 10.0) -> None:  # noqa: ARG002, ASYNC109 - as the real one
        """Close it; borrowing from it is an error then."""
        self.is_open = False

    @asynccontextmanager
    async def acquire(self, *, full_reset: bool = False) -> AsyncIterator[MockConnection]:  # noqa: ARG002
        """Lend a connection."""
        assert self.is_open, "the pool is closed"
        if self._failure is not None:
            raise self._failure
        self._in_use += 1
        try:
            yield MockConnection(self)
        finally:
            self._in_use -= 1

    def state(self) -> PoolState:
        """Return what is lent."""
        return PoolState(size=self._max, in_use=self._in_use, idle=self._max - self._in_use, waiting=0, max=self._max)


class MockKafkaProducer:
    """Stands in for `ProducerPool`: implements `core.ports.RecordProducer`.

    Attributes:
        sent: records that were confirmed, in order.
    """

    def __init__(self, allowed: Collection[str] | None = None) -> None:
        self.sent: list[OutboundRecord] = []
        self._allowed = None if allowed is None else frozenset(allowed)
        self._failure: Callable[[Sequence[OutboundRecord]], BaseException] | None = None
        self._times = 0

    def fails(self, times: int = 1, error: BaseException | None = None) -> None:
        """Let the next sends raise; default: a `DeliveryError` about all of their records."""
        self._times = times
        self._failure = (lambda _: error) if error is not None else _unconfirmed

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        """Keep the records, as confirmed.

        Raises:
            TopicNotDeclaredError: a topic is not among the allowed ones.
            DeliveryError: it was told to fail.
        """
        for record in records:
            if self._allowed is not None and record.topic not in self._allowed:
                raise TopicNotDeclaredError(f"the contract does not list {record.topic}")
        await asyncio.sleep(0)
        if self._times > 0 and self._failure is not None:
            self._times -= 1
            raise self._failure(records)
        self.sent += records

    async def close(self, timeout_seconds: float = 10.0) -> None:
        """Do nothing: nothing is queued."""


class MockSpan(msgspec.Struct):
    """A span that has ended.

    Attributes:
        name: what it is called.
        attributes: its facts.
        parent: the name of the span around it, empty for a root.
        error: what ended it, None when it ended well.
    """

    name: str
    attributes: dict[str, Any]
    parent: str = ""
    error: BaseException | None = None


class MockTracer:
    """Stands in for a tracer: `with tracer.start_as_current_span("fetch", attributes={…}) as span:`.

    Attributes:
        spans: those that have ended, in the order of their ends.
    """

    def __init__(self) -> None:
        self.spans: list[MockSpan] = []
        self._open: list[MockSpan] = []

    def start_as_current_span(self, name: str, *, attributes: Any = None, **_: Any) -> _OpenSpan:
        """Return a context manager that is the span."""
        return _OpenSpan(self, MockSpan(name, dict(attributes or {})))

    def named(self, name: str) -> list[MockSpan]:
        """Return the spans of that name."""
        return [span for span in self.spans if span.name == name]

    def _enter(self, span: MockSpan) -> None:
        span.parent = self._open[-1].name if self._open else ""
        self._open.append(span)

    def _leave(self, span: MockSpan, error: BaseException | None) -> None:
        self._open.remove(span)
        span.error = error
        self.spans.append(span)


class _OpenSpan:
    """A span under way, with the methods of OpenTelemetry's that change it."""

    def __init__(self, tracer: MockTracer, span: MockSpan) -> None:
        self._tracer = tracer
        self._span = span

    def set_attribute(self, name: str, value: Any) -> None:
        """Keep a fact."""
        self._span.attributes[name] = value

    def record_exception(self, error: BaseException, **_: Any) -> None:
        """Keep an error."""
        self._span.error = error

    def __enter__(self) -> Self:
        self._tracer._enter(self._span)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._tracer._leave(self._span, error if error is not None else self._span.error)


def create_mock_postgres_pool(answers: Sequence[Any] = ()) -> MockPostgresPool:
    """Return an open pool whose connections give these answers, one per call; exceptions among them are raised."""
    return MockPostgresPool(answers)


def create_mock_kafka_producer(allowed: Collection[str] | None = None) -> MockKafkaProducer:
    """Return a producer that confirms everything. `allowed` bounds the topics, as a contract does."""
    return MockKafkaProducer(allowed)


class MockCircuitBreaker(DependencyBreaker):
    """A real breaker on a clock of its own: `breaker.clock.advance(60)` makes a probe due."""

    def __init__(self, dependency: str, preset: BreakerPreset, clock: ManualClock) -> None:
        super().__init__(dependency, preset, clock=clock, uniform=lambda: 0.0)
        self.clock: Final = clock


def create_mock_circuit_breaker(dependency: str = "postgres", state: BreakerState = "closed") -> MockCircuitBreaker:
    """Return a breaker in that state, without jitter, with the preset of the dependency's kind."""
    preset = BREAKER_PRESETS[service_kind(dependency)]
    breaker = MockCircuitBreaker(dependency, preset, ManualClock())
    if state != "closed":
        for _ in range(preset.fail_max):
            breaker.record_failure(breaker.permit(), DependencyUnavailableError("down", dependency=dependency))
    if state == "half-open":
        breaker.clock.advance(breaker.seconds_until_probe)
        breaker.release(breaker.permit())
    return breaker


def create_mock_tracer() -> MockTracer:
    """Return a tracer that keeps its spans."""
    return MockTracer()


def _unconfirmed(records: Sequence[OutboundRecord]) -> DeliveryError:
    return DeliveryError(
        f"{len(records)} records were not confirmed", errors=dict.fromkeys(range(len(records)), "told to fail")
    )
