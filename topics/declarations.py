"""What a worker says about topics, read from its generated spec or from its contract: the same value from both.

A running fleet is planned from specs, so that no YAML is read; lint reads contracts, which are the source of truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import StartPosition, TopicSettings, WorkerSpec

if TYPE_CHECKING:  # a running worker reads its spec, and loads no rules of contracts
    from omnibase_infra.shared.contracts.model import Contract, Publication, Subscription


class MessageType(msgspec.Struct, frozen=True, order=True):
    """A type of message on a topic. `model` is the payload's class name; empty where only the generator knows it."""

    event_type: str
    model: str = ""


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """The topics of one version of a worker.

    Attributes:
        version: major, minor, patch; the newest version speaks for a topic.
        partitions: of each topic without settings of its own.
        settings: what the contract says about single topics.
        messages: types of messages by topic, as far as this worker handles or answers with them.
        unordered: subscribed topics on which every operation does without order.
        max_record_bytes: the largest value its topics take.
        holds: whether keys of dead letters are held until somebody decides, however long that takes.
    """

    worker: str
    node: str
    version: tuple[int, int, int]
    subscribe: tuple[TopicName, ...]
    publish: tuple[TopicName, ...] = ()
    reply_topics: tuple[TopicName, ...] = ()
    partitions: int = 6
    settings: tuple[TopicSettings, ...] = ()
    start: StartPosition = "earliest"
    messages: tuple[tuple[TopicName, MessageType], ...] = ()
    unordered: frozenset[TopicName] = frozenset()
    max_record_bytes: int = 1024 * 1024
    holds: bool = False

    @property
    def major(self) -> int:
        """Return the major version, which is part of the consumer group."""
        return self.version[0]

    @property
    def contract(self) -> str:
        """Return where the contract lies, as people write it."""
        return f"workers/{self.node}/v{'_'.join(map(str, self.version))}/contract.yaml"

    def settings_of(self, topic: TopicName) -> TopicSettings:
        """Return what is said about a topic; empty settings where nothing is."""
        name = str(topic)
        return next((item for item in self.settings if item.topic == name), TopicSettings(topic=name))


def from_spec(spec: WorkerSpec) -> Declaration:
    """Return what a generated spec declares."""
    messages: list[tuple[TopicName, MessageType]] = []
    for operation in spec.operations:
        messages.append(_message(operation.topic, operation.event_type, operation.request_schema))
        if operation.answer_topic:
            messages.append(_message(operation.answer_topic, operation.completed_type, operation.completed_schema))
            messages.append(_message(operation.answer_topic, operation.failed_type, operation.failed_schema))
    major, minor, patch = (int(part) for part in spec.version.split("."))
    return Declaration(
        worker=spec.worker,
        node=spec.node,
        version=(major, minor, patch),
        subscribe=_parsed(spec.subscribe),
        publish=_parsed(spec.publish),
        reply_topics=_parsed(spec.reply_topics),
        partitions=spec.partitions,
        settings=spec.topic_settings,
        start=spec.start,
        messages=tuple(messages),
        unordered=_unordered((TopicName.parse(item.topic), item.ordering) for item in spec.operations),
        max_record_bytes=spec.max_record_bytes,
        holds=spec.dead_letters.then == "hold",
    )


def from_contract(contract: Contract) -> Declaration:
    """Return what a contract declares."""
    bus = contract.event_bus
    messages: list[tuple[TopicName, MessageType]] = []
    for operation in contract.operations:
        messages.append((operation.topic, MessageType(str(operation.trigger), operation.request or "")))
        if operation.answer and contract.answer_topic is not None:
            completed = MessageType(str(operation.completed), operation.response or "")
            messages.append((contract.answer_topic, completed))
            messages.append((contract.answer_topic, MessageType(str(operation.failed))))
    return Declaration(
        worker=contract.worker,
        node=contract.node,
        version=(contract.version.major, contract.version.minor, contract.version.patch),
        subscribe=tuple(item.topic for item in bus.subscribe),
        publish=tuple(item.topic for item in bus.publish),
        reply_topics=bus.reply_topics,
        partitions=bus.partitions,
        settings=topic_settings(contract),
        start=bus.start,
        messages=tuple(messages),
        unordered=_unordered((item.topic, item.ordering) for item in contract.operations),
        max_record_bytes=contract.limits.max_record_bytes,
        holds=contract.delivery.on_dead_letter == "hold",
    )


def topic_settings(contract: Contract) -> tuple[TopicSettings, ...]:
    """Return what a contract says about single topics, as the generated spec carries it; sorted by topic."""
    bus = contract.event_bus
    listed: list[tuple[Subscription | Publication, bool]] = [(item, item.external) for item in bus.subscribe]
    listed += [(item, False) for item in bus.publish]
    stated = [
        TopicSettings(
            topic=str(item.topic),
            partitions=item.partitions,
            retention_seconds=item.retention,
            external=external,
        )
        for item, external in listed
        if item.partitions is not None or item.retention is not None or external
    ]
    return tuple(sorted(stated, key=lambda settings: settings.topic))


def _message(topic: str, event_type: str, schema: str) -> tuple[TopicName, MessageType]:
    """Read the model's name out of `urn:omnibase:<worker>:<Model>:<version>`."""
    parts = schema.split(":")
    return TopicName.parse(topic), MessageType(event_type, parts[3] if len(parts) == 5 else "")


def _parsed(names: Iterable[str]) -> tuple[TopicName, ...]:
    return tuple(TopicName.parse(name) for name in names)


def _unordered(orderings: Iterable[tuple[TopicName, str]]) -> frozenset[TopicName]:
    by_topic: dict[TopicName, set[str]] = {}
    for topic, ordering in orderings:
        by_topic.setdefault(topic, set()).add(ordering)
    return frozenset(topic for topic, found in by_topic.items() if found == {"none"})
