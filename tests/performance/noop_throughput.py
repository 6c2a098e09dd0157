"""Records per second of a worker that does nothing, against a bare loop over the same records."""

from __future__ import annotations

from typing import Final

from tests.performance.bare_consumer import BareRequest, BareResult
from tests.performance.events import PARTITIONS, TOPIC, event_batches
from tests.performance.figures import Figure, Floor, Section, expect, ratios
from tests.performance.noop_worker import NoopRequest, NoopResult, noop_spec
from tests.performance.processes import quiet, run_child
from tests.performance.scale import Scale
from tests.performance.servers import (
    Say,
    Servers,
    committed_in,
    partitions_of,
    records_in,
    topic_admin,
    variables_of,
)

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.producer_pool import ProducerPool

# The property of the worker's consumers that matters most: librdkafka's default of a second makes the fetcher sleep.
_TUNED: Final[dict[str, str | int]] = {"fetch.queue.backoff.ms": 10}

_Result = BareResult | NoopResult


async def measure(servers: Servers, scale: Scale, say: Say) -> Section:
    """Read one topic in turns by two bare loops and two workers.

    Raises:
        BenchmarkError: one of them did not read all of it, did not answer or did not commit.
    """
    settings = servers.settings("noop")
    admin = topic_admin(settings)
    topic = TopicName.parse(TOPIC).physical(settings.realm)
    admin.create(topic, PARTITIONS, 1, {})
    say(f"publishing {scale.records:,} events")
    async with ProducerPool(settings, client_id="bench", log=quiet) as producer:
        size = 0
        for batch in event_batches(settings.realm, scale.records):
            await producer.send(batch)
            size += sum(len(record.value or b"") for record in batch)
    expect(records_in(admin, topic) == scale.records, "not all events were published")

    rounds: dict[str, list[_Result]] = {"default": [], "tuned": [], "noop": [], "answering": []}
    for number in range(1, scale.rounds + 1):
        rounds["default"].append(await _bare(settings, topic, scale, {}))
        rounds["noop"].append(await _worker(settings, admin, topic, NoopRequest(scale.records, False, number)))
        rounds["tuned"].append(await _bare(settings, topic, scale, _TUNED))
        rounds["answering"].append(await _worker(settings, admin, topic, NoopRequest(scale.records, True, number)))
        say(f"round {number}: " + ", ".join(f"{name} {_rate(done[-1]):,.0f}/s" for name, done in rounds.items()))
    return _section(rounds, scale, size // scale.records)


async def _bare(settings: Settings, topic: str, scale: Scale, properties: dict[str, str | int]) -> BareResult:
    request = BareRequest(
        topic=topic,
        partitions=PARTITIONS,
        records=scale.records,
        properties={
            "bootstrap.servers": require_kafka(settings),
            "group.id": f"{settings.realm}.bare",
            "enable.auto.commit": "false",
            **properties,
        },
    )
    result = await run_child("bare_consumer", request, BareResult, variables_of(settings))
    _check(result, scale.records, "the bare loop")
    return result


async def _worker(settings: Settings, admin: KafkaTopicAdmin, topic: str, request: NoopRequest) -> NoopResult:
    spec = noop_spec(request)
    group = settings.realm.group(spec.worker, spec.major)
    written = [TopicName.parse(name).physical(settings.realm) for name in (*spec.publish, str(spec.dead_letter_topic))]
    for name in written:
        admin.create(name, PARTITIONS, 1, {})
    retries = [retry.physical(settings.realm) for retry in spec.retry_topics.values()]
    for name in retries:
        admin.create(name, PARTITIONS, 1, {})
    for name in (topic, *retries):
        admin.commit(group, dict.fromkeys(partitions_of(name, PARTITIONS), 0))
    before = [records_in(admin, name) for name in written]
    result = await run_child("noop_worker", request, NoopResult, variables_of(settings))
    _check(result, request.records, f"the {spec.worker} worker")
    *answers, dead = [records_in(admin, name) - count for name, count in zip(written, before, strict=True)]
    expect(not dead, f"{dead} records became dead letters")
    expect(not answers or answers == [request.records], f"{answers} answers to {request.records} records")
    committed = committed_in(admin, group, topic)
    expect(committed == request.records, f"{spec.worker} committed {committed} of {request.records} records")
    return result


def _check(result: _Result, records: int, who: str) -> None:
    expect(result.records == records, f"{who} read {result.records} of {records} records")
    expect(result.numbers == records * (records - 1) // 2, f"{who} read other payloads than were published")


def _rate(result: _Result) -> float:
    return result.records / result.seconds


def _section(rounds: dict[str, list[_Result]], scale: Scale, size: int) -> Section:
    def figure(name: str, key: str, floor: Floor | None = None) -> Figure:
        return Figure(
            name=name,
            unit="records/s",
            values=tuple(_rate(result) for result in rounds[key]),
            cpu_microseconds=tuple(result.cpu_seconds / result.records * 1e6 for result in rounds[key]),
            floor=floor,
        )

    default = figure("bare loop, default settings", "default")
    tuned = figure("bare loop, fetch.queue.backoff.ms=10", "tuned")
    noop = figure("no-op worker", "noop", Floor(40_000))
    answering = figure("no-op worker with answers", "answering")
    return Section(
        name="noop",
        title=f"A worker that does nothing, on {scale.records:,} events of {size} bytes, {PARTITIONS} partitions, "
        "500 keys; the bare loop is `consume(500)` and one msgspec decode of envelope and payload",
        figures=(
            default,
            tuned,
            noop,
            answering,
            ratios("no-op worker / bare loop, default", noop, default, Floor(0.3)),
            ratios("no-op worker / bare loop, tuned", noop, tuned, Floor(0.3)),
        ),
        checks=(
            "every loop and worker read all payloads (their numbers add up)",
            "workers committed every offset and wrote no dead letter",
            "the answering worker wrote one answer per event",
        ),
    )
