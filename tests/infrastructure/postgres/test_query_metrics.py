from __future__ import annotations

import asyncio

import asyncpg
import pytest

from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.query_metrics import QueryMetrics, StatementTotals, metrics_of


class RecordingSink:
    def __init__(self) -> None:
        self.seen: list[tuple[str, float, list[str]]] = []

    def observe_query(self, statement: str, seconds: float, **facts: object) -> None:
        self.seen.append((statement, seconds, [name for name, value in facts.items() if value]))


def test_calls_failures_and_slow_ones_add_up_by_statement() -> None:
    metrics = QueryMetrics(slow_seconds=0.5)
    metrics.observe("insert_order", 0.25, failed=False)
    metrics.observe("insert_order", 0.75, failed=True)
    metrics.observe("get_order", 0.5, failed=False)
    assert metrics.snapshot() == {
        "insert_order": StatementTotals(calls=2, failures=1, slow=1, seconds=1.0, longest_seconds=0.75),
        "get_order": StatementTotals(calls=1, failures=0, slow=0, seconds=0.5, longest_seconds=0.5),
    }


def test_a_sink_is_told_of_each_call() -> None:
    sink = RecordingSink()
    metrics = QueryMetrics(slow_seconds=0.1, sink=sink)
    metrics.observe("a", 0.2, failed=False)
    metrics.observe("a", 0.05, failed=True)
    assert sink.seen == [("a", 0.2, ["slow"]), ("a", 0.05, ["failed"])]


def test_a_block_is_timed_also_when_it_raises() -> None:
    metrics = QueryMetrics()
    with metrics.measure("works"):
        pass
    with pytest.raises(KeyError), metrics.measure("fails"):
        raise KeyError
    totals = metrics.snapshot()
    assert (totals["works"].calls, totals["works"].failures) == (1, 0)
    assert (totals["fails"].calls, totals["fails"].failures) == (1, 1)
    assert totals["works"].seconds > 0


def test_a_snapshot_does_not_move() -> None:
    metrics = QueryMetrics()
    metrics.observe("a", 0.1, failed=False)
    before = metrics.snapshot()
    metrics.observe("a", 0.1, failed=False)
    assert before["a"].calls == 1


async def test_a_pooled_connection_carries_the_metrics_of_its_pool(
    postgres_connection_pool: PostgresConnectionPool,
) -> None:
    async with postgres_connection_pool.acquire() as connection:
        assert metrics_of(connection) is postgres_connection_pool.query_metrics
    metrics_of(object()).observe("nobody looks", 1.0, failed=False)


def test_a_refusal_is_a_failure_and_no_outage() -> None:
    metrics = QueryMetrics()
    for error in (asyncpg.UniqueViolationError("a"), ValueError("a"), asyncio.CancelledError()):
        with pytest.raises(type(error)), metrics.measure("a"):
            raise error
    assert (metrics.calls, metrics.outages, metrics.snapshot()["a"].failures) == (3, 0, 3)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        asyncpg.DeadlockDetectedError("a"),
        asyncpg.AdminShutdownError("a"),
        asyncpg.ConnectionDoesNotExistError("a"),
        asyncpg.InterfaceError("connection is closed"),
    ],
)
def test_what_the_server_or_the_connection_is_to_blame_for_is_an_outage(error: Exception) -> None:
    metrics = QueryMetrics()
    with pytest.raises(type(error)), metrics.measure("a"):
        raise error
    assert (metrics.calls, metrics.outages, metrics.snapshot()["a"].outages) == (1, 1, 1)


def test_the_patterns_with_most_of_something_come_first() -> None:
    metrics = QueryMetrics(slow_seconds=0.5)
    for number in range(3):
        metrics.observe("query", 0.1, failed=False, sql=f"SELECT * FROM orders WHERE id = {number}")
    metrics.observe("query", 2.0, failed=True, sql="SELECT pg_sleep(2)")
    metrics.observe("unknown text", 9.0, failed=False)
    slowest, most = metrics.top_patterns(1), metrics.top_patterns(1, by="calls")
    assert [(one.pattern, one.totals.calls, one.totals.slow) for one in slowest] == [("select pg_sleep (?)", 1, 1)]
    assert [(one.pattern, one.statement, one.totals.calls) for one in most] == [
        ("select * from orders where id = ?", "query", 3)
    ]
    assert metrics.top_patterns(5, by="failures")[0].pattern == "select pg_sleep (?)"


def test_the_pattern_that_was_not_used_for_longest_makes_room() -> None:
    metrics = QueryMetrics(most_patterns=2)
    for table in ("a", "b", "a", "c"):
        metrics.observe("query", 0.1, failed=False, sql=f"SELECT FROM {table}")
    assert {one.pattern for one in metrics.top_patterns()} == {"select from a", "select from c"}
    assert metrics.snapshot()["query"].calls == 4
