"""A command continues the trace of whoever sends it."""

from __future__ import annotations

import pytest
from opentelemetry import trace as otel
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from omnibase_infra.shared.client.command import Command, CommandWriter
from omnibase_infra.shared.client.node_interface import load_interface
from omnibase_infra.shared.core.naming import Realm

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ACTIVE = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
NAMED = f"00-{0xABC:032x}-{0xDEF:016x}-01"


@pytest.mark.parametrize(
    ("given", "active", "sent"),
    [(None, False, None), (PARENT, False, PARENT), (None, True, NAMED), (PARENT, True, PARENT)],
)
def test_a_command_names_its_parent(given: str | None, active: bool, sent: str | None) -> None:
    target = load_interface("postgres_adapter").operation("health_check")
    command = Command(payload={}, traceparent=given)
    span = NonRecordingSpan(ACTIVE) if active else otel.INVALID_SPAN
    with otel.use_span(span):
        envelope, _ = CommandWriter(Realm("test"), "client").write(target, command, target.encode_request({}), None)
    assert envelope.traceparent == sent
