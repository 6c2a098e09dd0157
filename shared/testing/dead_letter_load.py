"""Dead letters as a worker writes them, for tests that list, group and redrive them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.clock import rfc3339
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS, TransportHeader
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.dead_letters import fingerprint

Headers = list[tuple[str, bytes | None]]
FAILED_AT: Final = 1_790_000_000.0


class Failure(NamedTuple):
    """A kind of failure; `{}` in its message stands for what differs from one dead letter to the next."""

    code: str
    error_type: str
    message: str


SIX_FAILURES: Final = (
    Failure("internal-error", "KeyError", "no entry for '{}'"),
    Failure("internal-error", "ZeroDivisionError", "division of {} by zero"),
    Failure("undecodable", "UndecodableError", "not JSON in UTF-8: unexpected end of data at byte {}"),
    Failure("invalid-envelope", "InvalidEnvelopeError", "attribute 'id' is empty, the record has {} bytes"),
    Failure("forbidden", "ForbiddenError", "the tenant '{}' is not the realm's"),
    Failure("transient", "TransientError", "deadlock detected by process {}"),
)


class DeadLetterRecord(NamedTuple):
    """A record of a dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def dead_letter_headers(
    spec: WorkerSpec,
    realm: Realm,
    *,
    offset: int,
    partition: int = 0,
    failure: Failure = SIX_FAILURES[0],
    topic: str = "",
    redrive_id: str = "",
) -> Headers:
    """Return the headers that a worker adds to a record it gives up.

    Args:
        spec / realm: of the worker.
        offset / partition / topic: where the record came from; the topic is logical, default: the worker's first.
        failure: why.
        redrive_id: of the redrive that failed.
    """
    message = failure.message.format(offset)
    headers = {
        TransportHeader.ORIGINAL_TOPIC: TopicName.parse(topic or spec.subscribe[0]).physical(realm),
        TransportHeader.ORIGINAL_PARTITION: str(partition),
        TransportHeader.ORIGINAL_OFFSET: str(offset),
        TransportHeader.ORIGINAL_TIMESTAMP: str(1_780_000_000_000 + offset),
        TransportHeader.WORKER: spec.worker,
        TransportHeader.GROUP: realm.group(spec.worker, spec.major),
        TransportHeader.ATTEMPT: "3",
        TransportHeader.FIRST_FAILED_AT: rfc3339(FAILED_AT),
        TransportHeader.FAILED_AT: rfc3339(FAILED_AT + 1),
        TransportHeader.ERROR_CODE: failure.code,
        TransportHeader.ERROR_TYPE: failure.error_type,
        TransportHeader.ERROR_MESSAGE: message,
        TransportHeader.ERROR_FINGERPRINT: fingerprint(spec.worker, failure.code, failure.error_type, message),
    }
    if redrive_id:
        headers[TransportHeader.REDRIVE_ID] = redrive_id
    return [(str(name), value.encode()) for name, value in headers.items()]


def dead_command(spec: WorkerSpec, realm: Realm, number: int, payload: Any = None, **where: Any) -> DeadLetterRecord:
    """Return a command of the worker's first operation that was given up; `where` as of `dead_letter_headers`.

    Args:
        spec / realm: of the worker.
        number: makes its id, key, and the offset it came from; a key has ten commands in 100.
        payload: of the command.
        where: further facts of the headers.
    """
    operation = spec.operations[0]
    envelope = envelopes.Envelope(
        specversion="1.0",
        id=f"00000000-0000-7000-8000-{number:012}",
        source="/test",
        type=operation.event_type,
        data=envelopes.encode_data({"number": number} if payload is None else payload),
    )
    headers = dead_letter_headers(spec, realm, **({"offset": number} | where))
    return DeadLetterRecord(b"key-%d" % (number % 10), envelopes.encode(envelope), [*STRUCTURED_HEADERS, *headers])


def write_dead_letters(settings: Settings, spec: WorkerSpec, records: Sequence[DeadLetterRecord]) -> None:
    """Write records to a worker's dead-letter topic, in order, and wait for the broker."""
    write_records(settings, spec.dead_letter_topic.physical(settings.realm), records)


def write_records(settings: Settings, topic: str, records: Sequence[DeadLetterRecord]) -> None:
    """Write records to partition 0 of a topic, by its physical name, and wait for the broker.

    Raises:
        AssertionError: not all were confirmed.
    """
    lost: list[str] = []

    def note(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            lost.append(error.str())

    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers or "", "enable.idempotence": True})
    for record in records:
        headers: list[Any] = list(record.headers)
        while True:
            try:
                producer.produce(topic, record.value, record.key, headers=headers, partition=0, on_delivery=note)
                break
            except BufferError:
                producer.poll(0.1)
    left = producer.flush(60)
    assert (left, lost) == (0, []), f"{left} left, failed: {lost[:3]}"
