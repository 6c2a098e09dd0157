"""The yardstick of the no-op worker, a process of its own: `consume(500)` and decode, nothing else."""

from __future__ import annotations

import time

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from tests.performance.events import ThingEnvelope
from tests.performance.processes import read_request, write_result

_GIVE_UP_SECONDS = 30.0


class BareRequest(msgspec.Struct):
    """What to read: all of a topic, with these client properties."""

    topic: str
    partitions: int
    records: int
    properties: dict[str, str | int]


class BareResult(msgspec.Struct):
    """What was read: `numbers` is the sum over the payloads; time from the first batch to the last record."""

    records: int
    numbers: int
    seconds: float
    cpu_seconds: float


def read_all(request: BareRequest) -> BareResult:
    """Read the topic to the wanted count, or as far as it comes."""
    consumer = Consumer(dict(request.properties))
    consumer.assign([TopicPartition(request.topic, number, OFFSET_BEGINNING) for number in range(request.partitions)])
    decode = msgspec.json.Decoder(ThingEnvelope).decode
    records = numbers = 0
    began = cpu_began = 0.0
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    while records < request.records and time.monotonic() < give_up_at:
        messages = consumer.consume(500, 0.1)
        if not records:
            began, cpu_began = time.perf_counter(), time.process_time()
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            numbers += decode(message.value() or b"").data.number
        records += len(messages)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    consumer.close()
    return BareResult(records, numbers, seconds, cpu_seconds)


if __name__ == "__main__":
    write_result(read_all(read_request(BareRequest)))
