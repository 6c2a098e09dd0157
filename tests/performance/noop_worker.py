"""The no-op worker, a process of its own: the product's Worker with a batch operation that does nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import uvloop
from tests.performance.events import EVENT_TYPE, PARTITIONS, TOPIC, ThingHappened
from tests.performance.figures import BenchmarkError
from tests.performance.processes import quiet, read_request, write_result

from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import BatchContext
from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import configure_logging, get_logger
from omnibase_infra.shared.runtime.garbage_collection import tune_collector
from omnibase_infra.shared.runtime.worker import Worker

_GIVE_UP_SECONDS = 120.0
_LOOK_SECONDS = 0.002


class NoopRequest(msgspec.Struct):
    """How many records the topic holds, whether to answer them, and the round, which makes a group of its own."""

    records: int
    answering: bool
    round: int


class NoopResult(msgspec.Struct):
    """What was worked on: `numbers` is the sum over the payloads; time from the first batch to the last record done."""

    records: int
    numbers: int
    batches: int
    seconds: float
    cpu_seconds: float


class NoopHandler:
    """Decodes and counts; every record is its own answer."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(ThingHappened)
        self.records = self.numbers = self.batches = 0
        self.began = self.cpu_began = 0.0

    def decode(self, data: msgspec.Raw) -> ThingHappened:
        """Return the payload, as a generated handler does."""
        if not self.began:
            self.began, self.cpu_began = time.perf_counter(), time.process_time()
        return decode_payload(self._decoder, data)

    def isolation(self, _requests: Sequence[ThingHappened]) -> None:
        """Ask for no transaction."""

    async def run(self, requests: Sequence[ThingHappened], _context: BatchContext) -> Sequence[ThingHappened]:
        """Count the batch."""
        self.records += len(requests)
        self.numbers += sum([request.number for request in requests])
        self.batches += 1
        return requests


class NoopNode:
    """A node as the generator would write it."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.handler = NoopHandler()
        self.handlers = {spec.operations[0].name: self.handler}


def noop_spec(request: NoopRequest) -> WorkerSpec:
    """Return the worker's spec; its major version is the round."""
    worker = "noop-answering" if request.answering else "noop"
    results = f"onex.evt.{worker}.results.v1"
    answers: dict[str, Any] = {
        "answer_topic": results,
        "completed_type": f"onex.evt.{worker}.take-completed.v1",
        "failed_type": f"onex.evt.{worker}.take-failed.v1",
        "completed_schema": f"urn:omnibase:{worker}:ThingHappened:1.0.0",
    }
    operation = OperationSpec(
        name="take",
        topic=TOPIC,
        event_type=EVENT_TYPE,
        batch_max=500,
        # As the PostgreSQL adapter has it: while one batch waits for its confirmation, others run.
        concurrency=4 if request.answering else 1,
        **(answers if request.answering else {}),
    )
    return WorkerSpec(
        generation=1,
        node=worker.replace("-", "_"),
        worker=worker,
        class_name="NodeNoopEffect",
        version=f"{request.round}.0.0",
        contract_sha256="0" * 64,
        description="Does nothing, quickly.",
        node_type="effect",
        subscribe=(TOPIC,),
        publish=(results,) if request.answering else (),
        partitions=PARTITIONS,
        operations=(operation,),
    )


async def work(request: NoopRequest, settings: Settings) -> NoopResult:
    """Run the worker until every record is finished, then stop it as SIGTERM would."""
    spec = noop_spec(request)
    node = NoopNode(spec)
    group = settings.realm.group(spec.worker, spec.major)
    configure_logging(settings, worker=spec.worker)

    def make_consumer(on_statistics: Any, on_error: Any, on_commit: Any) -> Any:
        return create_consumer(
            settings,
            group=group,
            purpose="consume",
            client_id=spec.worker,
            log=quiet,
            on_statistics=on_statistics,
            on_error=on_error,
            options=ConsumerOptions(
                statistics_seconds=1.0, overrides={"on_commit": on_commit, "enable.partition.eof": True}
            ),
        )

    async with ProducerPool(settings, client_id=spec.worker, log=quiet, allowed=spec.writable_topics()) as producer:
        worker = Worker(
            node,
            settings,
            producer=producer,
            stores={},
            make_consumer=make_consumer,
            registry=MetricsRegistry(),
            log=get_logger(),
        )
        tune_collector()  # as `omninode run` does
        running = asyncio.create_task(worker.run())
        try:
            seconds, cpu = await _until_finished(worker, node.handler, request.records, running)
        finally:
            worker.request_stop()
            await running
    handler = node.handler
    return NoopResult(handler.records, handler.numbers, handler.batches, seconds, cpu)


async def _until_finished(
    worker: Worker, handler: NoopHandler, records: int, running: asyncio.Task[None]
) -> tuple[float, float]:
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    # A record leaves the worker when its answer is confirmed and its offset may be committed.
    while handler.records < records or worker.info()["in_flight"]["records"]:
        if running.done() or time.monotonic() > give_up_at:
            raise BenchmarkError(f"{handler.records} of {records} records were worked on; ready: {worker.ready()}")
        await asyncio.sleep(_LOOK_SECONDS)
    return time.perf_counter() - handler.began, time.process_time() - handler.cpu_began


if __name__ == "__main__":
    asked = read_request(NoopRequest)
    write_result(uvloop.run(work(asked, load_settings(log_level="warning"))))
