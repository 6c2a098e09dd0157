"""Trace context by hand: W3C's form, and ids and decisions that every process derives alike."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from omnibase_infra.shared.core import ids
from omnibase_infra.shared.observability.trace_context import (
    RootSampler,
    TraceParent,
    first_span_id,
    parse_traceparent,
    trace_id_of,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_traceparent_is_read_and_written() -> None:
    text = f"00-{TRACE}-{SPAN}-01"
    parent = TraceParent(TRACE, SPAN, 1)
    assert parse_traceparent(text) == parent
    assert (str(parent), parent.sampled) == (text, True)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(text: str | None) -> None:
    assert parse_traceparent(text) is None


def test_a_later_version_may_say_more() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings") == TraceParent(TRACE, SPAN, 1)


@given(st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{30,33}-[0-9a-f]{15,17}-[0-9a-f]{2}(-x)?", fullmatch=True) | st.text())
def test_what_we_take_the_official_propagator_takes_alike(text: str) -> None:
    context = TraceContextTextMapPropagator().extract({"traceparent": text})
    if (parent := parse_traceparent(text)) is not None:
        span = otel.get_current_span(context).get_span_context()
        assert (f"{span.trace_id:032x}", f"{span.span_id:016x}") == (parent.trace_id, parent.span_id)


def test_the_trace_of_a_conversation_is_named_like_it() -> None:
    conversation = ids.original_id()
    assert trace_id_of(conversation) == uuid.UUID(conversation).hex
    for odd in ("order 17", "00000000-0000-0000-0000-000000000000", ""):
        assert parse_traceparent(f"00-{trace_id_of(odd)}-{SPAN}-01") is not None


def test_first_attempts_have_names_of_their_own() -> None:
    names = {
        first_span_id(worker, source, message, redrive)
        for worker in ("a", "b")
        for source in ("/x", "/y")
        for message in ("1", "2")
        for redrive in ("", "r")
    }
    assert len(names) == 16
    assert first_span_id("a", "/x", "1") == first_span_id("a", "/x", "1")


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.1, 700, 1300), (1.0, 10_000, 10_000)])
@pytest.mark.parametrize("form", ["uuid", "number"])
def test_the_share_of_conversations_is_what_was_asked_for(ratio: float, least: int, most: int, form: str) -> None:
    sampler = RootSampler(ratio)
    conversations = [ids.original_id() if form == "uuid" else f"order-{number:09d}" for number in range(10_000)]
    assert least <= sum(map(sampler.wants, conversations)) <= most


def test_asking_for_the_trace_loads_no_tracing_library() -> None:
    script = (
        "import sys; from omnibase_infra.shared.observability import active_trace as a;"
        "assert a.active_trace() is None; assert a.current_traceparent() is None;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
