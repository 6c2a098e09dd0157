from __future__ import annotations

import pytest

from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.query_metrics import QueryMetrics, StatementTotals, metrics_of


class RecordingSink:
    def __init__(self) -> None:
        self.seen: list[tuple[str, float, bool, bool]] = []

    def observe_query(self, statement: str, seconds: float, *, failed: bool, slow: bool) -> None:
        self.seen.append((statement, seconds, failed, slow))


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
    assert sink.seen == [("a", 0.2, False, True), ("a", 0.05, True, False)]


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
