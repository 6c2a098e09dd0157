"""One request through two workers is one trace at the collector; a collector that dies takes no record with it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import BatchContext, IsolationLevel
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.observability.endpoint_files import announced_endpoints
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.tracer_factory import create_tracing
from omnibase_infra.shared.runtime.worker import Worker
from omnibase_infra.shared.testing.exposition_rules import exposition_problems
from omnibase_infra.shared.testing.fleet import Fleet, eventually
from omnibase_infra.shared.testing.order_load import OrderLoad
from omnibase_infra.shared.testing.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry

pytestmark = [pytest.mark.slow]

TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Result(msgspec.Struct):
    """The part of an answer that the second worker looks at."""

    row_count: int = 0


class Reader:
    """The second worker's handler: takes the first one's answers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def decode(self, data: msgspec.Raw) -> Result:
        return decode_payload(msgspec.json.Decoder(Result), data)

    def isolation(self, requests: Sequence[Result]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Result], context: BatchContext) -> Sequence[Result]:
        self.seen += [envelope.id for envelope in context.envelopes]
        return requests


class ReaderNode:
    """A node as the generator would write it."""

    def __init__(self, first: WorkerSpec) -> None:
        (execute,) = [one for one in first.operations if one.name == "execute_statement"]
        operation = OperationSpec(name="read_result", topic=execute.answer_topic, event_type=execute.completed_type)
        self.spec = order_store(
            node="result_reader",
            worker="result-reader",
            subscribe=(execute.answer_topic,),
            publish=(),
            operations=(operation,),
            topic_settings=(),
        )
        self.handler = Reader()
        self.handlers = {"read_result": self.handler}


@asynccontextmanager
async def reading(node: ReaderNode, settings: Settings) -> AsyncIterator[None]:
    """Run the second worker in this process."""
    registry, group = MetricsRegistry(process_metrics=False), settings.realm.group(node.spec.worker, node.spec.major)

    def make_consumer(on_statistics: Any, on_error: Any, on_commit: Any) -> Any:
        overrides = {"on_commit": on_commit, "enable.partition.eof": True}
        return create_consumer(
            settings,
            group=group,
            purpose="consume",
            client_id=node.spec.worker,
            log=_quiet,
            on_statistics=on_statistics,
            on_error=on_error,
            options=ConsumerOptions(statistics_seconds=1.0, overrides=overrides),
        )

    tracing = create_tracing(settings, service=node.spec.worker, registry=registry)
    assert tracing is not None
    allowed = node.spec.writable_topics()
    async with ProducerPool(settings, client_id=node.spec.worker, log=_quiet, allowed=allowed) as producer:
        worker = Worker(
            node,
            settings,
            producer=producer,
            stores={},
            make_consumer=make_consumer,
            registry=registry,
            log=get_logger(),
            tracing=tracing,
        )
        running = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            worker.request_stop()
            await running
            await tracing.aclose(10.0)


def _quiet(level: int, event: str, /, **fields: Any) -> None:
    """Drop the clients' own lines."""


@pytest.fixture
def over_grpc() -> Iterator[OtlpReceiver]:
    with otlp_receiver("grpc") as receiver:
        yield receiver


@pytest.fixture
def over_http() -> Iterator[OtlpReceiver]:
    with otlp_receiver("http") as receiver:
        yield receiver


def _one(spans: Sequence[ReceivedSpan], name: str) -> ReceivedSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_request_through_two_workers_is_one_trace(
    fleet: Fleet, over_grpc: OtlpReceiver, over_http: OtlpReceiver
) -> None:
    node = ReaderNode(fleet.spec)
    registry = TopicRegistry.from_specs([fleet.spec, node.spec], fleet.realm)
    await asyncio.to_thread(provision, KafkaTopicAdmin(fleet.settings, log=_quiet), registry.catalogue, fleet.realm)
    traced = fleet.settings.model_copy(
        update={"otlp_endpoint": over_http.endpoint, "otlp_protocol": "http", "trace_sample_ratio": 0.0}
    )
    adapter = await fleet.start_ready(
        OMNIBASE_OTLP_ENDPOINT=over_grpc.endpoint, OMNIBASE_OTLP_PROTOCOL="grpc", OMNIBASE_TRACE_SAMPLE_RATIO="0"
    )
    order = str(uuid.uuid4())
    event = {"order_id": order, "sequence": 1, "kind": "amended"}
    payload = {"statement": "append_order_event", "parameters": event}
    request = fleet.command("execute_statement", payload, subject=order, traceparent=f"00-{TRACE}-{CLIENT}-01")
    untraced = fleet.command("execute_statement", payload | {"parameters": event | {"sequence": 2}}, subject=order)
    async with reading(node, traced):
        await fleet.send([request, untraced])
        await eventually(lambda: len(node.handler.seen) == 2, "the second worker has both answers")
    (first,) = await asyncio.to_thread(over_grpc.wait_for, 1, 20.0, "process execute_statement")
    assert await asyncio.to_thread(adapter.terminate) == 0
    spans = over_grpc.spans

    assert {span.trace_id for span in (*spans, *over_http.spans)} == {TRACE}
    assert (first.parent_id, first.resource["service.name"]) == (CLIENT, "postgres-adapter")
    handled = _one(spans, "handle execute_statement")
    assert handled.parent_id == first.span_id
    assert _one(spans, "append_order_event").parent_id == handled.span_id
    assert _one(spans, "claim_inbox").parent_id == first.span_id
    assert _one(spans, "append_order_event").attributes["db.system.name"] == "postgresql"
    second = _one(over_http.spans, "process read_result")
    assert (second.parent_id, second.resource["service.name"]) == (first.span_id, "result-reader")
    assert second.attributes["messaging.message.conversation_id"] == request.conversation
    assert order not in str(spans), "keys and parameters are nobody's business at the collector"


async def test_a_collector_that_dies_under_load_takes_nothing_with_it(
    fleet: Fleet, over_grpc: OtlpReceiver, tmp_path: Path
) -> None:
    worker = await fleet.start_ready(
        OMNIBASE_OTLP_ENDPOINT=over_grpc.endpoint,
        OMNIBASE_TRACE_SAMPLE_RATIO="1",
        OMNIBASE_TRACE_QUEUE_SPANS="200",
        OMNIBASE_OTLP_TIMEOUT_SECONDS="1",
    )
    load = OrderLoad(fleet)
    await load.publish(1000, 2000)
    await asyncio.to_thread(over_grpc.wait_for, 1)
    over_grpc.stop()
    await load.publish(1000, 2000)
    await load.assert_done_once_in_order()

    async def lost() -> float:
        return _dropped(await asyncio.to_thread(worker.metrics))

    await eventually(lost, "lost spans are counted")
    for accept in ("text/plain", "application/openmetrics-text"):
        page = await asyncio.to_thread(worker.metrics, accept)
        assert ("# EOF" in page, "trace_id=" in page) == (accept != "text/plain",) * 2
    assert exposition_problems(await asyncio.to_thread(worker.metrics)) == []
    assert [one.address for one in announced_endpoints(tmp_path)] == [worker.address]
    assert worker.is_ready()
    over_grpc.start()
    before = len(over_grpc.spans)
    deadline = time.monotonic() + 30
    while len(over_grpc.spans) == before and time.monotonic() < deadline:
        await load.publish(50, 500)
    assert len(over_grpc.spans) > before, "spans arrive again once the collector is back"
    await load.assert_done_once_in_order()
    assert await asyncio.to_thread(worker.terminate) == 0
    assert announced_endpoints(tmp_path) == []


def _dropped(page: str) -> float:
    lines = [line for line in page.splitlines() if line.startswith("omnibase_spans_dropped_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
