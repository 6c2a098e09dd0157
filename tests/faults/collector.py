"""Takes from real topics and tables what the checker compares. Every look is by clients of its own.

A client that has lived through a broker's fault may have lost its brokers for good (librdkafka's issue 5301), and then
would find everything missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg
from confluent_kafka import Message
from tests.faults.checker import Answer, Effect, Input, Run

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import RecordRefusedError
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
from omnibase_infra.shared.testing.kafka_fixtures import read_topic
from omnibase_infra.topics.cluster import Partition

# Names a record that no envelope can: dead letters keep the headers of the record.
FAULT_ID: Final = "fault-id"
PARKED_STATE: Final = "onex-parked-state"
_EFFECTS: Final = """SELECT message_id, key, sequence FROM faults.commits JOIN faults.effects USING (position)
    ORDER BY number"""
_READ_SECONDS: Final = 30.0


class Collector:
    """Collects the runs of one worker in one realm."""

    def __init__(self, spec: WorkerSpec, settings: Settings) -> None:
        """Args:
        spec: of the worker.
        settings: that reach its brokers and its database.
        """
        self.spec = spec
        self._settings = settings
        self._realm = settings.realm

    async def collect(self, inputs: Sequence[Input]) -> Run:
        """Return what has become of these inputs. What changes meanwhile is in the result or is not."""
        # Offsets first: what is finished after this look is in the effects below as well.
        uncommitted = await asyncio.to_thread(self.uncommitted)
        parked = await asyncio.to_thread(self._parked)
        answers = await asyncio.to_thread(self._answers)
        dead = [record_id(message) for message in await asyncio.to_thread(self._dead_letters)]
        return Run(
            inputs=inputs,
            effects=await self._effects(),
            answers=answers,
            dead=dead,
            parked=parked,
            uncommitted=uncommitted,
        )

    async def _effects(self) -> list[Effect]:
        connection = await asyncpg.connect(require_postgres(self._settings), timeout=10)
        try:
            rows = await connection.fetch(_EFFECTS, timeout=60)
        finally:
            await connection.close(timeout=5)
        return [Effect(row["message_id"], row["key"], row["sequence"]) for row in rows]

    def _answers(self) -> list[Answer]:
        found = []
        for message in self.read(self.spec.publish[0]):
            answer = envelopes.decode(message.value(), None)
            outcome = "completed" if "-completed." in answer.type else "failed"
            found.append(Answer(answer.id, answer.causationid or "", outcome))  # type: ignore[arg-type]
        return found

    def _dead_letters(self) -> list[Message]:
        name = str(self.spec.dead_letter_topic)
        # Some scenarios take the topic away.
        return self.read(name) if self._exists(name) else []

    def _parked(self) -> list[str]:
        """Return the ids of the unfinished entries of the retry topics: parked, and without a `done` marker."""
        found: list[str] = []
        for topic in self.spec.retry_topics.values():
            if self._exists(str(topic)):
                found += unfinished_entries(self.read(str(topic)))
        return found

    def uncommitted(self) -> list[str]:
        """Return the ids of the records at or above the committed offsets. Blocks."""
        admin = KafkaTopicAdmin(self._settings, log=_quiet)
        found: list[str] = []
        for topic in self.spec.subscribe:
            if not self._exists(topic):
                continue
            name = self._physical(topic)
            partitions = [Partition(name, number) for number in range(admin.topics(name)[name])]
            group = self._realm.group(self.spec.worker, self.spec.major)
            committed = admin.group(group, partitions).committed
            for message in self.read(topic):
                partition = Partition(name, message.partition() or 0)
                if (message.offset() or 0) >= committed.get(partition, 0):
                    found.append(record_id(message))
        return found

    def _exists(self, topic: str) -> bool:
        name = self._physical(topic)
        return name in KafkaTopicAdmin(self._settings, log=_quiet).topics(name)

    def _physical(self, topic: str) -> str:
        return TopicName.parse(topic).physical(self._realm)

    def read(self, topic: str) -> list[Message]:
        """Return everything in a topic, by its logical name, partition by partition. Blocks."""
        consumer = create_consumer(
            self._settings,
            group=f"{self._realm}.fault-bench",
            purpose="replay",
            client_id="fault-bench",
            log=_quiet,
            options=ConsumerOptions(statistics_seconds=0),
        )
        try:
            return read_topic(consumer, self._physical(topic), _READ_SECONDS)
        finally:
            consumer.close()


def unfinished_entries(messages: Sequence[Message]) -> list[str]:
    """Return the ids of a retry topic's records that no `done` marker ends, one per entry."""
    open_entries: dict[tuple[int | None, bytes, bytes], str] = {}
    for message in messages:
        headers = header_values(message)
        identity = (
            message.partition(),
            headers.get(TransportHeader.ORIGINAL_OFFSET, b""),
            headers.get(TransportHeader.REDRIVE_ID, b""),
        )
        if headers.get(PARKED_STATE) == b"done":
            open_entries.pop(identity, None)
        elif message.value() is not None:
            open_entries[identity] = record_id(message)
    return list(open_entries.values())


def record_id(message: Message) -> str:
    """Return the id of the input that a record is, or once was."""
    if (given := header_values(message).get(FAULT_ID)) is not None:
        return given.decode()
    try:
        return envelopes.decode(message.value(), message.headers()).id  # type: ignore[arg-type]
    except RecordRefusedError:
        return f"unreadable record {message.topic()}[{message.partition()}]@{message.offset()}"


def header_values(message: Message) -> Mapping[str, bytes]:
    """Return a record's headers by name; of two with one name the last, since the runtime's come after the sender's."""
    pairs: Any = message.headers() or ()  # consumed headers are a list of (name, bytes)
    return {name: bytes(value or b"") for name, value in pairs}


def _quiet(level: int, event: str, /, **fields: object) -> None:
    """Drop client log lines: a look that fails raises."""
