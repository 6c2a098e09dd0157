"""A statement of traced work is one span, made of the observation that metrics get anyway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.statement_spans import StatementSpans
from omnibase_infra.shared.observability.tracer_factory import create_tracing
from omnibase_infra.shared.postgres.fingerprints import pattern_of
from omnibase_infra.shared.testing.otlp_receiver import otlp_receiver


class Metrics:
    """Who is told afterwards."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, dict[str, Any]]] = []

    def observe_query(self, statement: str, seconds: float, *, failed: bool, pattern: object) -> None:
        self.told.append((statement, seconds, {"failed": failed, "pattern": pattern}))


async def test_round_trips_are_spans_below_what_caused_them_and_are_passed_on() -> None:
    metrics = Metrics()
    spans = StatementSpans(metrics, "postgresql")
    pattern = pattern_of("SELECT * FROM orders WHERE token = 'hunter2'")
    with otlp_receiver("http") as receiver:
        settings = load_settings(Path(os.devnull), env="test", otlp_endpoint=receiver.endpoint, otlp_protocol="http")
        tracing = create_tracing(settings, service="a", registry=MetricsRegistry(process_metrics=False))
        assert tracing is not None
        spans.observe_query("outside", 0.1, failed=False, pattern=None)
        process = tracing.start("process", "consumer")
        with tracing.active(process):
            spans.observe_query("insert_order", 0.25, failed=False, pattern=None)
            spans.observe_query("query", 0.5, failed=True, pattern=pattern)
        process.end()
        await tracing.aclose(10.0)
        found = {span.name: span for span in receiver.wait_for(3)}
    insert, query = found["insert_order"], found["query"]
    assert found.keys() == {"process", "insert_order", "query"}
    assert {insert.parent_id, query.parent_id} == {found["process"].span_id}
    assert (insert.kind, insert.failed, insert.end_ns - insert.start_ns) == (3, False, 250_000_000)
    assert insert.attributes == {"db.system.name": "postgresql", "db.query.summary": "insert_order"}
    assert (query.failed, query.attributes["omnibase.fingerprint"]) == (True, pattern.fingerprint)
    assert "hunter2" not in str(query)
    assert [name for name, _, _ in metrics.told] == ["outside", "insert_order", "query"]
    assert metrics.told[2] == ("query", 0.5, {"failed": True, "pattern": pattern})
