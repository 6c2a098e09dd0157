"""A contract as plain frozen values. Only the loader makes them, after every check has passed.

Durations are seconds, sizes are bytes, topics are logical names, defaults are filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from omnibase_infra.shared.contracts.statement_file import StatementFile
from omnibase_infra.shared.contracts.units import Rate
from omnibase_infra.shared.core.naming import TopicName, dead_letter_topic, retry_topic

NodeType = Literal["effect", "compute", "reducer", "orchestrator"]
DependencyType = Literal["service", "protocol", "model"]
Guarantee = Literal["at_least_once", "effectively_once", "transactional"]
Ordering = Literal["key", "none"]
Start = Literal["earliest", "latest"]
Jitter = Literal["full", "equal", "none"]
OnDeadLetter = Literal["continue", "hold"]
RateScope = Literal["client", "tenant", "operation"]
OnLimit = Literal["wait", "refuse"]

CONTROL_EVENT: Final = "control"
POSTGRES_POOL: Final = "postgres_pool"
SETTINGS: Final = "settings"


class Version(msgspec.Struct, frozen=True, order=True):
    """A contract's semantic version."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def folder(self) -> str:
        """Return the folder name of this version: `v1_0_0`."""
        return f"v{self.major}_{self.minor}_{self.patch}"


class Capability(msgspec.Struct, frozen=True):
    """Something the node can do, for people and for discovery."""

    name: str
    description: str


class Dependency(msgspec.Struct, frozen=True):
    """What a node is given from outside: a service of the container, a protocol, a shared model."""

    name: str
    type: DependencyType
    class_name: str
    module: str | None = None
    required: bool = True
    description: str = ""


class Subscription(msgspec.Struct, frozen=True):
    """A topic the worker consumes. `external`: its producer has no contract in this fleet."""

    topic: TopicName
    external: bool = False
    partitions: int | None = None
    retention: float | None = None


class Publication(msgspec.Struct, frozen=True):
    """A topic the worker produces to, and owns. `retention` in seconds; None is the kind's default."""

    topic: TopicName
    partitions: int | None = None
    retention: float | None = None


class EventBus(msgspec.Struct, frozen=True):
    """The topics of a worker. `partitions` is the count of every topic that does not state its own."""

    subscribe: tuple[Subscription, ...]
    publish: tuple[Publication, ...] = ()
    reply_topics: tuple[TopicName, ...] = ()
    partitions: int = 6
    start: Start = "earliest"


class Batch(msgspec.Struct, frozen=True):
    """Up to `max` records are handed over at once; a short batch waits `linger` seconds for more."""

    max: int
    linger: float = 0.005


class Operation(msgspec.Struct, frozen=True):
    """One thing a node does with one type of message.

    Attributes:
        topic: where its messages arrive.
        trigger: the CloudEvents type that selects this operation.
        completed: the type of a successful answer.
        failed: the type of a refusal or failure.
        answer: whether an answer is published at all.
        statements: SQL files the operation may run, relative to the contract's folder, sorted.
        request: name of the payload's definition; None when the kit derives it.
        response: name of the answer's definition; None when the kit derives it.
        needs: short names of the services it cannot run without, like `postgres`.
        concurrency: handler calls in parallel: batches for a batched operation, records otherwise.
        timeout: seconds per handler call.
        options: what the contract gives the kit beyond the keys above, defaults filled in.
    """

    name: str
    kit: str
    topic: TopicName
    trigger: TopicName
    completed: TopicName
    failed: TopicName
    description: str = ""
    answer: bool = True
    statements: tuple[str, ...] = ()
    request: str | None = None
    response: str | None = None
    needs: tuple[str, ...] = ()
    batch: Batch | None = None
    concurrency: int = 16
    timeout: float = 10.0
    ordering: Ordering = "key"
    options: Mapping[str, Any] = {}

    @property
    def is_control(self) -> bool:
        """Return whether the operation lives on the worker's control topic."""
        return self.topic.kind == "cmd" and self.topic.event == CONTROL_EVENT


class RetryPolicy(msgspec.Struct, frozen=True):
    """Attempts in the lane, then delays in seconds on the retry topic."""

    in_lane: int = 3
    tiers: tuple[float, ...] = (5.0, 60.0, 600.0)
    jitter: Jitter = "full"


class DeadLetterLimit(msgspec.Struct, frozen=True):
    """When the worker stops rather than draining a topic into its dead letters."""

    consecutive: int = 100
    ratio: float = 0.2
    window: int = 1000


class Delivery(msgspec.Struct, frozen=True):
    """What the runtime promises about each record."""

    guarantee: Guarantee
    retry: RetryPolicy = RetryPolicy()
    dead_letter_limit: DeadLetterLimit = DeadLetterLimit()
    on_dead_letter: OnDeadLetter = "continue"


class RateLimit(msgspec.Struct, frozen=True):
    """A limit per process. `operation` narrows it to one operation; None means all of them together."""

    per: RateScope
    limit: Rate
    burst: int
    operation: str | None = None
    on_limit: OnLimit = "wait"


class Resources(msgspec.Struct, frozen=True):
    """What one process asks of Kubernetes, as Kubernetes writes it, and how many processes there may be."""

    cpu_request: str = "100m"
    memory_request: str = "128Mi"
    cpu_limit: str | None = None
    memory_limit: str = "512Mi"
    replicas_min: int = 1
    replicas_max: int = 1


class Limits(msgspec.Struct, frozen=True):
    """Bounds on one record: bytes of its value, nesting and number of keys of its document."""

    max_record_bytes: int = 1024 * 1024
    max_depth: int = 64
    max_fields: int = 10_000


class Contract(msgspec.Struct, frozen=True):
    """What a worker is.

    Attributes:
        name: class name of the node, like `NodePostgresAdapterEffect`.
        node: folder name, like `postgres_adapter`.
        worker: name on the wire, like `postgres-adapter`.
        path: the contract file.
        definitions: JSON Schema of the payload models the contract itself defines, by name.
        statements: the SQL statements its operations run, by path relative to the contract's folder.
        migrations: SQL files that make the tables, relative to the contract's folder, in order.
        sha256: hash of everything that generated code depends on, see `contract_hash`.
        idempotency: why repeating an effect is harmless, in words.
    """

    name: str
    node: str
    worker: str
    version: Version
    node_type: NodeType
    description: str
    event_bus: EventBus
    operations: tuple[Operation, ...]
    delivery: Delivery
    path: Path
    capabilities: tuple[Capability, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    definitions: Mapping[str, Mapping[str, Any]] = {}
    idempotency: str = ""
    rate_limits: tuple[RateLimit, ...] = ()
    resources: Resources = Resources()
    limits: Limits = Limits()
    statements: Mapping[str, StatementFile] = {}
    migrations: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def folder(self) -> Path:
        """Return the folder that holds the contract, its statements and its migrations."""
        return self.path.parent

    @property
    def answer_topic(self) -> TopicName | None:
        """Return where answers go: the first evt topic the worker publishes; None when it has none."""
        return next((item.topic for item in self.event_bus.publish if item.topic.kind == "evt"), None)

    @property
    def dead_letter_topic(self) -> TopicName:
        """Return the one dead-letter topic of this major version."""
        return dead_letter_topic(self.worker, self.version.major)

    def retry_topic(self, source: TopicName) -> TopicName:
        """Return the retry topic that belongs to a subscribed topic."""
        return retry_topic(self.worker, source)

    def partitions_of(self, topic: TopicName) -> int:
        """Return the partition count this contract states for one of its topics."""
        stated = {item.topic: item.partitions for item in self.event_bus.subscribe}
        stated |= {item.topic: item.partitions for item in self.event_bus.publish}
        return stated.get(topic) or self.event_bus.partitions

    def operation(self, name: str) -> Operation:
        """Return the operation of that name.

        Raises:
            KeyError: the contract has none; the message lists those there are.
        """
        for operation in self.operations:
            if operation.name == name:
                return operation
        raise KeyError(f"{self.node} has no operation {name!r}, only {', '.join(o.name for o in self.operations)}")

    def needs(self, service: str) -> bool:
        """Return whether an operation, or the delivery guarantee, needs the service of that short name."""
        if service == "postgres" and self.delivery.guarantee == "effectively_once":
            return True
        return any(service in operation.needs for operation in self.operations)
