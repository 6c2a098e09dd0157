"""pytest fixtures on a real Kafka broker: one broker per test process, one realm per test.

Name this module in `pytest_plugins`, or import the fixtures into a `conftest.py`. The broker is a local one from wheels,
or the one of OMNIBASE_KAFKA_BOOTSTRAP_SERVERS, with the security settings of the environment.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from confluent_kafka.cimpl import NewTopic

from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.settings import ENV_FILE, Settings, load_settings
from omnibase_infra.shared.kafka.client_log import ClientLog
from omnibase_infra.shared.kafka.consumer_factory import (
    DEFAULT_OPTIONS,
    ConsumePurpose,
    ConsumerOptions,
    create_consumer,
)
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.kafka.security import security_config
from omnibase_infra.shared.local_services import KafkaService, down, up
from omnibase_infra.shared.testing.docker_services import docker_kafka, in_docker

REQUEST_SECONDS = 30.0


@dataclass(frozen=True)
class KafkaServer:
    """A running broker.

    Attributes:
        bootstrap_servers: its address.
        env_file: file of `OMNIBASE_*` lines that reach it.
    """

    bootstrap_servers: str
    env_file: Path

    def settings(self, realm: Realm, **overrides: Any) -> Settings:
        """Return the settings of a process of this realm."""
        values = {"env": realm.environment, "tenant": realm.tenant, "kafka_bootstrap_servers": self.bootstrap_servers}
        return load_settings(self.env_file, **(values | overrides))


@dataclass(frozen=True)
class LogLine:
    """One structured log line."""

    level: int
    event: str
    fields: Mapping[str, Any]


class RecordedLog(list[LogLine]):
    """A log function that keeps its lines, for `log=` of the clients."""

    def __call__(self, level: int, event: str, /, **fields: Any) -> None:
        """Keep a line."""
        self.append(LogLine(level, event, fields))


class TopicCreator:
    """Creates topics of one realm and removes them again."""

    def __init__(self, settings: Settings) -> None:
        self._realm = settings.realm
        self._admin = _admin(settings)
        self._created: list[str] = []

    def __call__(self, *topics: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> list[str]:
        """Create topics by their logical names and return their physical ones."""
        names = [TopicName.parse(topic).physical(self._realm) for topic in topics]
        wanted = [NewTopic(name, num_partitions=partitions, config=dict(config or {})) for name in names]
        for future in self._admin.create_topics(wanted, request_timeout=REQUEST_SECONDS).values():
            future.result(REQUEST_SECONDS)
        self._created += names
        self._wait_until_served([TopicPartition(name, number) for name in names for number in range(partitions)])
        return names

    def _wait_until_served(self, partitions: list[TopicPartition]) -> None:
        """Wait until every partition has its leader: brokers learn of a new topic a little after its creator does."""
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        deadline = time.monotonic() + REQUEST_SECONDS
        while True:
            asked = self._admin.list_offsets(dict.fromkeys(partitions, latest), request_timeout=5.0)
            if all(future.exception(REQUEST_SECONDS) is None for future in asked.values()):
                return
            assert time.monotonic() < deadline, f"{partitions} are not served after {REQUEST_SECONDS:g} s"
            time.sleep(0.02)

    def delete(self, *names: str) -> None:
        """Delete topics by their physical names."""
        for future in self._admin.delete_topics(list(names), request_timeout=REQUEST_SECONDS).values():
            future.result(REQUEST_SECONDS)
        self._created = [name for name in self._created if name not in names]

    def delete_all(self) -> None:
        """Delete what was created."""
        if self._created:
            self.delete(*self._created)


class ConsumerFactory:
    """Creates consumers with the product's settings and closes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumers: list[Consumer] = []

    def __call__(
        self,
        *,
        purpose: ConsumePurpose = "consume",
        group: str | None = None,
        options: ConsumerOptions = DEFAULT_OPTIONS,
        settings: Settings | None = None,
        **callbacks: Any,
    ) -> Consumer:
        """Create a consumer; `callbacks` are `on_statistics`, `on_error` and `log` of `create_consumer`."""
        settings = settings or self._settings
        consumer = create_consumer(
            settings,
            group=group or settings.realm.group("test-reader", 1),
            purpose=purpose,
            client_id="test-reader",
            options=options,
            **({"log": RecordedLog()} | callbacks),
        )
        self._consumers.append(consumer)
        return consumer

    def read(self, topic: str) -> list[Message]:
        """Return everything that is in a topic, by its physical name: partition by partition, in order of offsets."""
        consumer = self(purpose="replay", options=ConsumerOptions(statistics_seconds=0))
        try:
            return read_topic(consumer, topic)
        finally:
            self.close(consumer)

    def close(self, consumer: Consumer) -> None:
        """Close one consumer before the end of the test."""
        self._consumers.remove(consumer)
        consumer.close()

    def close_all(self) -> None:
        """Close the consumers that are left."""
        for consumer in list(self._consumers):
            self.close(consumer)


def read_topic(consumer: Consumer, topic: str, timeout_seconds: float = REQUEST_SECONDS) -> list[Message]:
    """Return everything that is in a topic now, partition by partition, with a consumer for `replay`."""
    numbers = consumer.list_topics(topic, timeout=timeout_seconds).topics[topic].partitions
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=timeout_seconds)[1]
        for number in numbers
    }
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
    found: dict[int | None, list[Message]] = {number: [] for number in numbers}
    deadline = time.monotonic() + timeout_seconds
    while any(
        position.offset < ends[position.partition]
        for position in consumer.position([TopicPartition(topic, number) for number in numbers if ends[number]])
    ):
        assert time.monotonic() < deadline, f"{topic} was not read to its end in {timeout_seconds:g} s"
        for message in consumer.consume(500, 0.1):
            error = message.error()
            if error is None:
                found[message.partition()].append(message)
            elif error.code() != error._PARTITION_EOF:
                raise KafkaException(error)
    consumer.unassign()
    return [message for number in sorted(numbers) for message in found[number]]


@pytest.fixture(scope="session")
def kafka_container(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A real broker for the whole test process: a local one, or in a container with `--services=docker`."""
    folder = tmp_path_factory.mktemp("kafka") / ".omnibase"
    if in_docker(request.config):
        with docker_kafka() as address:
            yield KafkaServer(address, folder / ENV_FILE)
        return
    variables = up(folder, only=["kafka"])
    yield KafkaServer(variables["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"], folder / ENV_FILE)
    down(folder, delete_data=True)


@pytest.fixture
def realm() -> Realm:
    """A realm of this test alone."""
    return Realm("test", secrets.token_hex(6))


@pytest.fixture
def kafka_settings(kafka_container: KafkaServer, realm: Realm) -> Settings:
    """Settings of a process of the test's realm."""
    return kafka_container.settings(realm)


@pytest.fixture
def kafka_topics_created(kafka_settings: Settings) -> Iterator[TopicCreator]:
    """Creates topics by logical name: `kafka_topics_created("onex.evt.a.b.v1", partitions=6)`; gone after the test."""
    creator = TopicCreator(kafka_settings)
    yield creator
    creator.delete_all()


@pytest.fixture
def kafka_consumer_factory(kafka_settings: Settings) -> Iterator[ConsumerFactory]:
    """Creates consumers: `kafka_consumer_factory(purpose="tail")`; `.read(topic)` returns a topic's records."""
    factory = ConsumerFactory(kafka_settings)
    yield factory
    factory.close_all()


@pytest.fixture
def kafka_log() -> RecordedLog:
    """What the clients of the test logged."""
    return RecordedLog()


@pytest.fixture
async def kafka_producer_pool(kafka_settings: Settings, kafka_log: RecordedLog) -> AsyncIterator[ProducerPool]:
    """A started pool of the test's realm that may produce to any topic."""
    async with ProducerPool(kafka_settings, client_id="test-writer", log=kafka_log) as pool:
        yield pool


@pytest.fixture
def kafka_own_broker(tmp_path: Path, realm: Realm) -> Iterator[tuple[KafkaService, Settings]]:
    """A broker of this test alone, to be stopped or killed, and the settings that reach it."""
    service = KafkaService(tmp_path / "kafka", brokers=1)
    service.prepare()
    service.start()
    address = service.variables()["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"]
    yield service, KafkaServer(address, tmp_path / ENV_FILE).settings(realm)
    service.kill()
    service.delete_data()


def _admin(settings: Settings) -> AdminClient:
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        # What it says of itself would end up on the stderr of a test that looks at it.
        "logger": ClientLog(RecordedLog(), "test-admin"),
        "log_level": 3,
        # Otherwise a topic that was asked for too early counts as unknown for half a minute.
        "topic.metadata.propagation.max.ms": 0,
    }
    return AdminClient(config | security_config(settings))
