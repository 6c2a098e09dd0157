"""A traced record is a span of its own below its sender's, its outputs are below it; an untraced one is left as it was."""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import structlog
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import TransientError
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import BatchContext, IsolationLevel
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.core.worker_spec import OperationSpec
from omnibase_infra.shared.observability.active_trace import trace_span
from omnibase_infra.shared.observability.http_spans import outgoing_request
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import configure_logging, get_logger
from omnibase_infra.shared.observability.tracer_factory import Tracing, create_tracing
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.lanes import Gate, Lane
from omnibase_infra.shared.runtime.observed_execution import ObservedExecution
from omnibase_infra.shared.runtime.record_spans import RecordSpans
from omnibase_infra.shared.runtime.records import Origin, PartitionWork, Record
from omnibase_infra.shared.testing.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from omnibase_infra.shared.testing.sample_fleet import order_store

COMMANDS = "onex.cmd.order-store.requests.v1"
INSERT = OperationSpec(
    name="insert_order",
    topic=COMMANDS,
    event_type="onex.cmd.order-store.insert-order.v1",
    completed_type="onex.evt.order-store.insert-order-completed.v1",
    failed_type="onex.evt.order-store.insert-order-failed.v1",
    answer_topic="onex.evt.order-store.results.v1",
    batch_max=100,
)
SPEC = order_store(operations=(INSERT,))
TRACE, SENDER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SENDER}-01", f"00-{TRACE}-{SENDER}-00"


class Order(msgspec.Struct, frozen=True):
    number: int


class Handler:
    """Does what the test wants of a batch."""

    def __init__(self) -> None:
        self.act: Callable[[BatchContext], None] = lambda _: None

    def decode(self, data: msgspec.Raw) -> Order:
        return decode_payload(msgspec.json.Decoder(Order), data)

    def isolation(self, requests: Sequence[Order]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Order]:
        self.act(context)
        return requests


class Store:
    """The execution of one worker that traces to a receiver."""

    def __init__(self, receiver: OtlpReceiver, ratio: float) -> None:
        settings = load_settings(
            Path(os.devnull),
            env="test",
            otlp_endpoint=receiver.endpoint,
            otlp_protocol=receiver.protocol,
            trace_sample_ratio=ratio,
        )
        self.receiver = receiver
        self.registry = MetricsRegistry(process_metrics=False)
        self.metrics = WorkerMetrics(self.registry, SPEC)
        tracing = create_tracing(settings, service=SPEC.worker, registry=self.registry)
        assert tracing is not None
        self.tracing: Tracing = tracing
        self.handler = Handler()
        self.lane = Lane(INSERT, self.handler, cast("Gate", None))
        spans = RecordSpans(tracing, SPEC, "test.group", self.metrics)
        self.execution = ObservedExecution(SPEC, Answers(SPEC, Realm("test")), {}, spans)

    async def deliver(self, *records: Record) -> list[Envelope]:
        settled = await self.execution.run(self.lane, records)
        return [envelopes.decode(one.outputs[0].value) for one in settled]

    async def spans(self, name: str = "process insert_order") -> list[ReceivedSpan]:
        await self.tracing.aclose(10.0)
        return [span for span in self.receiver.spans if span.name == name]


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    with otlp_receiver("http") as receiver:
        made = Store(receiver, 0.0)
        yield made
        await made.tracing.aclose(2.0)


@pytest.fixture
async def curious_store() -> AsyncIterator[Store]:
    """A store that traces whatever nobody has decided on."""
    with otlp_receiver("http") as receiver:
        made = Store(receiver, 1.0)
        yield made
        await made.tracing.aclose(2.0)


def command(traceparent: str | None, *, copy_of: Record | None = None, **attributes: Any) -> Record:
    """Return a record, new or as it is delivered again."""
    if copy_of is None:
        sent = envelopes.original(
            source="/outside",
            event_type=INSERT.event_type,
            data=envelopes.encode_data(Order(1)),
            traceparent=traceparent,
        )
        value = envelopes.encode(msgspec.structs.replace(sent, **attributes))
    else:
        value = copy_of.value or b""
    work = PartitionWork(TopicName.parse(COMMANDS), "test." + COMMANDS, 3)
    record = Record(work, 7, 1_767_225_600_000, b"k", value, None)
    record.envelope = envelopes.decode(value)
    return record


async def test_a_record_that_its_sender_does_not_trace_is_passed_on_byte_for_byte(store: Store) -> None:
    answers = await store.deliver(command(UNSAMPLED, tracestate="a=1"), command(None))
    assert [(one.traceparent, one.tracestate) for one in answers] == [(UNSAMPLED, "a=1"), (None, None)]
    assert await store.spans() == []


async def test_a_traced_record_is_a_span_below_its_sender_and_its_answer_is_below_it(store: Store) -> None:
    record = command(SAMPLED, tracestate="a=1")
    (answer,) = await store.deliver(record)
    (span,) = await store.spans()
    assert (span.trace_id, span.parent_id, span.tracestate) == (TRACE, SENDER, "a=1")
    assert (answer.traceparent, answer.tracestate) == (f"00-{TRACE}-{span.span_id}-01", "a=1")
    assert span.attributes["messaging.message.id"] == record.envelope.id
    assert span.attributes["messaging.destination.name"] == "test." + COMMANDS
    assert span.attributes["omnibase.outcome"] == "completed"
    (handled,) = [one for one in store.receiver.spans if one.name == "handle insert_order"]
    assert handled.parent_id == span.span_id


async def test_a_conversation_that_nobody_decided_on_begins_a_trace_named_like_it(curious_store: Store) -> None:
    record = command(None)
    conversation = uuid.UUID(record.envelope.conversation)
    await curious_store.deliver(record)
    (span,) = await curious_store.spans()
    assert (span.trace_id, span.parent_id) == (conversation.hex, "")


@pytest.mark.parametrize(
    "garbage", ["00-xyz", f"00-{TRACE}-{SENDER}-0?", f"ff-{TRACE}-{SENDER}-01", f"00-{'0' * 32}-{SENDER}-01", "1" * 99]
)
async def test_a_traceparent_that_is_none_harms_nobody(store: Store, garbage: str) -> None:
    (answer,) = await store.deliver(command(garbage))
    assert answer.traceparent == garbage
    assert await store.spans() == []


async def test_a_delivery_that_is_repeated_repeats_its_answer(store: Store) -> None:
    record = command(SAMPLED)
    first = await store.deliver(record)
    again = await store.deliver(command(None, copy_of=record))
    assert first[0].traceparent == again[0].traceparent


async def test_a_later_attempt_is_below_the_sender_and_linked_to_the_first(store: Store) -> None:
    def fail(_: BatchContext) -> None:
        raise TransientError("busy", dependency="postgres")

    record = command(SAMPLED)
    store.handler.act = fail
    with pytest.raises(TransientError):
        await store.deliver(record)
    store.handler.act = lambda _: None
    record.attempts = 1
    await store.deliver(record)
    redriven = command(None, copy_of=record)
    redriven.origin = Origin("test." + COMMANDS, 3, 7, 0, "0190a5c0-0000-7000-8000-000000000001")
    await store.deliver(redriven)
    first, second, third = await store.spans()
    assert (first.failed, first.attributes["error.type"]) == (True, TransientError.code)
    assert {first.parent_id, second.parent_id, third.parent_id} == {SENDER}
    assert len({first.span_id, second.span_id, third.span_id}) == 3
    assert first.links == ()
    assert second.links == third.links == ((TRACE, first.span_id),)
    assert second.attributes["omnibase.attempt"] == 2


async def test_of_a_batch_each_traced_record_is_a_span_and_the_first_leads(store: Store) -> None:
    records = [command(SAMPLED), command(UNSAMPLED), command(f"00-{'ab' * 16}-{SENDER}-01")]
    await store.deliver(*records)
    leader, follower = await store.spans()
    assert (leader.trace_id, follower.trace_id) == (TRACE, "ab" * 16)
    assert follower.links == ((TRACE, leader.span_id),)
    assert leader.attributes["messaging.batch.message_count"] == 3
    (handled,) = [one for one in store.receiver.spans if one.name == "handle insert_order"]
    assert handled.parent_id == leader.span_id


async def test_a_node_adds_spans_and_its_requests_carry_the_trace_on(store: Store) -> None:
    headers: dict[str, str] = {}

    def ask(_: BatchContext) -> None:
        with (
            trace_span("price", items=3),
            outgoing_request("GET", "https://user:pw@prices:8443/v1?token=hunter2", headers) as request,
        ):
            request.answered(503)

    store.handler.act = ask
    await store.deliver(command(SAMPLED))
    await store.spans()
    spans = {span.name: span for span in store.receiver.spans}
    assert spans["price"].parent_id == spans["handle insert_order"].span_id
    assert spans["GET"].parent_id == spans["price"].span_id
    assert headers["traceparent"] == f"00-{TRACE}-{spans['GET'].span_id}-01"
    assert (spans["GET"].failed, spans["GET"].kind) == (True, 3)
    assert spans["GET"].attributes["url.full"] == "https://prices:8443/v1"
    assert "hunter2" not in str(spans["GET"])


async def test_the_traced_batch_is_an_exemplar_in_openmetrics_and_nowhere_else(store: Store) -> None:
    await store.deliver(command(SAMPLED))
    store.metrics.operations["insert_order"].handler_seconds.observe(0.0)
    (span,) = await store.spans()
    page = store.registry.exposition(openmetrics=True).decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]  # type: ignore[no-untyped-call]
    (found,) = [sample.exemplar for sample in samples if sample.exemplar]
    assert found.labels == {"trace_id": TRACE, "span_id": span.span_id}
    assert TRACE not in store.registry.exposition().decode()


async def test_log_lines_say_which_message_and_trace_they_are_about(store: Store) -> None:
    stream = io.BytesIO()
    pipeline = configure_logging(load_settings(Path(os.devnull), env="test"), stream=stream)
    try:
        store.handler.act = lambda _: get_logger().info(LogEvent.BATCH_DONE)
        traced, untraced = command(SAMPLED), command(None)
        await store.deliver(traced)
        await store.deliver(untraced)
        await store.deliver(untraced, traced)
    finally:
        pipeline.close()
        structlog.reset_defaults()
    one, two, both = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert one["correlation_id"] == traced.envelope.conversation
    assert one["message_id"] == traced.envelope.id
    assert one["trace_id"] == TRACE
    assert two["correlation_id"] == untraced.envelope.conversation
    assert "trace_id" not in two
    assert both["correlation_ids"] == [untraced.envelope.conversation, traced.envelope.conversation]
    handled = [span.span_id for span in await store.spans("handle insert_order")]
    assert one["span_id"] == handled[0]
