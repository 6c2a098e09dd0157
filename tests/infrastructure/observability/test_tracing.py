"""Traces as a collector gets them: a real OTLP receiver, spoken to over gRPC and over HTTP."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from omnibase_infra.shared.core.errors import SettingsError, TransientError
from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.active_trace import active_trace, current_traceparent, trace_span
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.span_queue import SpanQueue
from omnibase_infra.shared.observability.trace_context import parse_traceparent
from omnibase_infra.shared.observability.tracer_factory import Tracing, create_tracing
from omnibase_infra.shared.testing.certificates import TestAuthority
from omnibase_infra.shared.testing.otlp_receiver import OtlpReceiver, otlp_receiver

PARENT = parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

Make = Callable[..., Tracing]


def settings(**values: Any) -> Settings:
    return load_settings(Path(os.devnull), env="test", **values)


@pytest.fixture
def registry() -> MetricsRegistry:
    return MetricsRegistry(process_metrics=False)


@pytest.fixture(params=["grpc", "http"])
def receiver(request: pytest.FixtureRequest) -> Iterator[OtlpReceiver]:
    with otlp_receiver(request.param) as listening:
        yield listening


@pytest.fixture
async def make(registry: MetricsRegistry) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def create(endpoint: str, protocol: Literal["grpc", "http"], **values: Any) -> Tracing:
            tracing = create_tracing(
                settings(otlp_endpoint=endpoint, otlp_protocol=protocol, **values),
                service="order-store",
                registry=registry,
            )
            assert tracing is not None
            stack.push_async_callback(tracing.aclose, 2.0)
            return tracing

        yield create


def total(registry: MetricsRegistry, definition: metric.CounterDefinition, **labels: str) -> float:
    page = registry.exposition().decode()
    line = next(
        line
        for line in page.splitlines()
        if line.startswith(definition.name + "{") and all(f'{name}="{value}"' in line for name, value in labels.items())
    )
    return float(line.rpartition(" ")[2])


def test_without_a_collector_nothing_is_traced(registry: MetricsRegistry) -> None:
    assert create_tracing(settings(), service="order-store", registry=registry) is None


async def test_spans_arrive_with_their_parent_their_attributes_and_who_sent_them(
    receiver: OtlpReceiver, make: Make, registry: MetricsRegistry
) -> None:
    tracing = make(receiver.endpoint, receiver.protocol, otlp_headers="x-api-key=s%2Fecret")
    span = tracing.start("process", "consumer", parent=PARENT, tracestate="a=1", attributes={"n": 3})
    with tracing.active(span), trace_span("handle", operation="x"):
        pass
    span.end()
    await tracing.aclose(10.0)
    spans = {one.name: one for one in receiver.wait_for(2)}
    process, handle = spans["process"], spans["handle"]
    assert (process.trace_id, process.parent_id) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    assert (process.kind, process.attributes, process.tracestate) == (5, {"n": 3}, "a=1")
    assert (handle.trace_id, handle.parent_id) == (process.trace_id, process.span_id)
    assert process.start_ns <= handle.start_ns <= handle.end_ns <= process.end_ns
    assert process.resource["service.name"] == "order-store"
    assert process.resource["deployment.environment.name"] == "test"
    assert receiver.headers[0]["x-api-key"] == "s/ecret"
    assert total(registry, metric.SPANS_EXPORTED) == 2


async def test_wanted_ids_are_taken_and_a_begun_trace_has_the_wanted_id(receiver: OtlpReceiver, make: Make) -> None:
    tracing = make(receiver.endpoint, receiver.protocol)
    tracing.start("root", "consumer", trace_id="ab" * 16, span_id="cd" * 8).end()
    tracing.start("other", "consumer").end()
    await tracing.aclose(10.0)
    spans = {one.name: one for one in receiver.wait_for(2)}
    assert (spans["root"].trace_id, spans["root"].span_id, spans["root"].parent_id) == ("ab" * 16, "cd" * 8, "")
    assert spans["other"].trace_id != "ab" * 16


async def test_an_exception_marks_the_span_and_goes_on(receiver: OtlpReceiver, make: Make) -> None:
    tracing = make(receiver.endpoint, receiver.protocol)
    span = tracing.start("process", "consumer")
    with pytest.raises(TransientError), tracing.active(span), trace_span("handle"):
        raise TransientError("password=hunter2 was refused", dependency="postgres")
    span.end()
    await tracing.aclose(10.0)
    failed = receiver.wait_for(1, name="handle")[0]
    assert failed.failed
    assert failed.attributes["error.type"] == TransientError.code
    assert "hunter2" not in failed.message


async def test_spans_of_the_library_itself_join_and_ours_join_theirs(receiver: OtlpReceiver, make: Make) -> None:
    tracing = make(receiver.endpoint, receiver.protocol)
    span = tracing.start("process", "consumer")
    with tracing.active(span):
        seen = otel.get_current_span().get_span_context()
        assert seen.span_id == span.get_span_context().span_id
    assert otel.get_current_span() is otel.INVALID_SPAN
    with otel.use_span(otel.NonRecordingSpan(seen)):
        assert current_traceparent() == f"00-{seen.trace_id:032x}-{seen.span_id:016x}-01"
    assert current_traceparent() is None


def test_work_that_is_not_traced_has_no_span() -> None:
    with trace_span("handle") as span:
        assert span is None
    assert active_trace() is None


async def test_a_collector_that_is_away_costs_spans_and_says_so(make: Make, registry: MetricsRegistry) -> None:
    with otlp_receiver("http") as gone:
        endpoint = gone.endpoint
    tracing = make(endpoint, "http", otlp_timeout_seconds=0.2, trace_queue_spans=10)
    for _ in range(50):
        tracing.start("process", "consumer").end()
    began = time.monotonic()
    await tracing.aclose(5.0)
    assert time.monotonic() - began < 30
    full = total(registry, metric.SPANS_DROPPED, reason="queue-full")
    lost = total(registry, metric.SPANS_DROPPED, reason="export-failed")
    assert full + lost == 50
    assert lost >= 10
    assert total(registry, metric.SPANS_EXPORTED) == 0


async def test_a_collector_that_comes_back_gets_the_next_spans(receiver: OtlpReceiver, make: Make) -> None:
    tracing = make(receiver.endpoint, receiver.protocol, otlp_timeout_seconds=0.5, trace_queue_spans=1)
    tracing.start("before", "consumer").end()
    receiver.wait_for(1, name="before")
    receiver.stop()
    tracing.start("lost", "consumer").end()
    receiver.start()
    names: set[str] = set()
    deadline = time.monotonic() + 30
    while "after" not in names and time.monotonic() < deadline:
        tracing.start("after", "consumer").end()
        try:
            names |= {span.name for span in receiver.wait_for(1, 0.5, name="after")}
        except AssertionError:
            continue
    assert "after" in names


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_over_tls_the_authority_decides(
    protocol: Literal["grpc", "http"],
    make: Make,
    registry: MetricsRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, other = TestAuthority(tmp_path, "ours"), TestAuthority(tmp_path, "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.certificate))
    with otlp_receiver(protocol, ours.server()) as receiver:
        trusting = make(receiver.endpoint, protocol, otlp_ca_location=ours.certificate)
        trusting.start("trusted", "consumer").end()
        await trusting.aclose(10.0)
        assert [span.name for span in receiver.spans] == ["trusted"]
        wary = make(receiver.endpoint, protocol, otlp_ca_location=other.certificate, otlp_timeout_seconds=0.5)
        wary.start("refused", "consumer").end()
        await wary.aclose(10.0)
        assert [span.name for span in receiver.spans] == ["trusted"]
    assert total(registry, metric.SPANS_DROPPED, reason="export-failed") == 1


class StuckExporter(SpanExporter):
    """Hangs in its export until it is shut down."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()

    def export(self, spans: Any) -> SpanExportResult:
        self.entered.set()
        self.released.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.released.set()


class Listener:
    def __init__(self) -> None:
        self.gone: list[tuple[int, str]] = []

    def exported(self, spans: int) -> None:
        raise AssertionError("nothing is exported here")

    def dropped(self, spans: int, reason: str) -> None:
        self.gone.append((spans, reason))

    def export_failed(self, error: BaseException | None) -> None:
        self.error = error


def test_a_collector_that_hangs_holds_nobody_and_the_queue_stays_bounded() -> None:
    exporter, listener = StuckExporter(), Listener()
    queue = SpanQueue(lambda: exporter, listener, capacity=3)
    queue.on_end(ReadableSpan("first"))
    queue.force_flush()
    assert exporter.entered.wait(10)
    for _ in range(10):
        queue.on_end(ReadableSpan("later"))
    assert queue.waiting == 3
    queue.close(0.01)
    assert sum(spans for spans, _ in listener.gone) == 11
    assert (1, "queue-full") in listener.gone


def test_an_exporter_that_cannot_be_made_costs_its_spans() -> None:
    def refuse() -> SpanExporter:
        raise OSError("no such certificate")

    listener = Listener()
    queue = SpanQueue(refuse, listener, capacity=3)
    queue.on_end(ReadableSpan("first"))
    queue.close(10)
    assert listener.gone == [(1, "export-failed")]
    assert isinstance(listener.error, OSError)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"otlp_endpoint": "collector:4317"}, "OMNIBASE_OTLP_ENDPOINT is no address"),
        ({"otlp_endpoint": "http://collector"}, "OMNIBASE_OTLP_ENDPOINT is no address"),
        ({"otlp_endpoint": "http://user:hunter2@collector:4317"}, "holds credentials"),
        ({"otlp_endpoint": "http://c:1", "otlp_ca_location": Path("/no/such/ca.pem")}, "OMNIBASE_OTLP_CA_LOCATION"),
        ({"otlp_endpoint": "http://c:1", "otlp_headers": "hunter2"}, "OMNIBASE_OTLP_HEADERS"),
    ],
)
def test_settings_that_are_no_good_are_named(values: dict[str, Any], said: str, registry: MetricsRegistry) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        create_tracing(settings(**values), service="order-store", registry=registry)
    assert "hunter2" not in str(refused.value)
