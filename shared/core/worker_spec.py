"""What the runtime needs to know about a worker: plain data that the generator writes into each node.

A running worker reads this and not the contract file, so starting one parses no YAML.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from omnibase_infra.shared.core.errors import GenerationDriftError
from omnibase_infra.shared.core.naming import TopicName, dead_letter_topic, retry_topic

# Raised when generated code of an older generator no longer fits this runtime.
RUNTIME_GENERATION: Final = 2

Guarantee = Literal["at_least_once", "effectively_once", "transactional"]
EffectPlace = Literal["transaction", "journal"]
Ordering = Literal["key", "none"]
StartPosition = Literal["earliest", "latest"]
RateScope = Literal["client", "tenant", "operation"]
OnLimit = Literal["wait", "refuse"]


class OperationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a worker.

    Attributes:
        name: snake case, as the contract writes it.
        topic: logical topic its commands or events arrive on.
        event_type: CloudEvents type that selects it.
        completed_type / failed_type: CloudEvents types of its answers; empty for a one-way operation.
        completed_schema / failed_schema: `dataschema` of its answers.
        request_schema: `dataschema` of its requests.
        answer_topic: logical topic of its answers; empty for a one-way operation.
        needs: names of the dependencies it cannot run without, for example `("postgres",)`.
        batch_max: records handed to the handler at once; 1 is one by one.
        linger_seconds: how long a batch that is not full may wait for more.
        concurrency: batches of this operation that run at the same time.
        timeout_seconds: deadline of one batch.
        keeps_order_in_batch: whether a batch may hold several records of one key.
        effect: where an effect that happens once is made: in the `transaction` of its inbox row, or elsewhere, with a
            `journal` of intents and results.
        repeatable: whether an effect of the second kind may be made again when nobody knows how it ended.
    """

    name: str
    topic: str
    event_type: str
    completed_type: str = ""
    failed_type: str = ""
    request_schema: str = ""
    completed_schema: str = ""
    failed_schema: str = ""
    answer_topic: str = ""
    needs: tuple[str, ...] = ()
    guarantee: Guarantee = "at_least_once"
    ordering: Ordering = "key"
    batch_max: int = 1
    linger_seconds: float = 0.0
    concurrency: int = 16
    timeout_seconds: float = 10.0
    keeps_order_in_batch: bool = False
    effect: EffectPlace = "transaction"
    repeatable: bool = False


class RetrySpec(msgspec.Struct, frozen=True, kw_only=True):
    """Retries of one record: `in_lane` attempts in place, then one per tier (seconds)."""

    in_lane: int = 3
    tiers: tuple[float, ...] = ()
    jitter: Literal["full", "equal", "none"] = "full"


class DeadLetterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When dead letters stop a worker: so many in a row, or this share of the last `window` records.

    `then` says what happens to the later records of a dead record's key: they run, or they are held until somebody
    has redriven or discarded the dead letter.
    """

    consecutive: int = 100
    ratio: float = 0.2
    window: int = 1000
    then: Literal["continue", "hold"] = "continue"


class RateLimitSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one process takes work: `count` in `seconds` for each client, tenant or operation.

    Attributes:
        per: what is counted apart: `client` by the message's source, `tenant` by its tenant, `operation` by operation.
        burst: how many may come at once after a pause.
        operation: the one operation it is about; empty is all, which clients and tenants share one count for.
        on_limit: whether a record beyond it waits, or is answered `failed` with code `rate-limited`.
    """

    per: RateScope
    count: int
    seconds: int
    burst: int
    operation: str = ""
    on_limit: OnLimit = "wait"


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a contract says about one of its topics beyond the worker's defaults.

    Attributes:
        topic: logical name.
        partitions: None is the worker's `partitions`.
        retention_seconds: None is the default of the topic's kind.
        external: its producer has no contract in this fleet.
    """

    topic: str
    partitions: int | None = None
    retention_seconds: float | None = None
    external: bool = False


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, as its contract declares it.

    Attributes:
        node: folder name, snake case; `worker` is the same in kebab case.
        version: `1.0.0`; its major is part of the consumer group.
        contract_sha256: hash of the contract and the files it names.
        subscribe / publish / reply_topics: logical topic names.
        partitions: of each topic the worker owns.
        topic_settings: the topics that differ from the defaults, in the order of their names.
        dependencies: dependency names as the runtime uses them, for example `("postgres",)`.
    """

    generation: int
    node: str
    worker: str
    class_name: str
    version: str
    contract_sha256: str
    description: str
    node_type: Literal["effect", "compute", "reducer", "orchestrator"]
    subscribe: tuple[str, ...]
    publish: tuple[str, ...]
    reply_topics: tuple[str, ...] = ()
    partitions: int = 6
    topic_settings: tuple[TopicSettings, ...] = ()
    start: StartPosition = "earliest"
    guarantee: Guarantee = "at_least_once"
    dependencies: tuple[str, ...] = ()
    operations: tuple[OperationSpec, ...] = ()
    retry: RetrySpec = RetrySpec()
    dead_letters: DeadLetterSpec = DeadLetterSpec()
    rate_limits: tuple[RateLimitSpec, ...] = ()
    max_record_bytes: int = 1024 * 1024
    max_depth: int = 64
    max_fields: int = 10_000

    @property
    def major(self) -> int:
        """Return the major version."""
        return int(self.version.split(".", 1)[0])

    @property
    def dead_letter_topic(self) -> TopicName:
        """Return the one dead-letter topic of this major version: its own consumer group gave these records up."""
        return dead_letter_topic(self.worker, self.major)

    @property
    def retry_topics(self) -> dict[TopicName, TopicName]:
        """Return the retry topic of each subscribed topic."""
        sources = (TopicName.parse(topic) for topic in self.subscribe)
        return {source: retry_topic(self.worker, source) for source in sources}

    def writable_topics(self) -> frozenset[str]:
        """Return the logical topics this worker may produce to."""
        retries = (str(topic) for topic in self.retry_topics.values())
        return frozenset((*self.publish, *self.reply_topics, str(self.dead_letter_topic), *retries))


def require_generation(generation: int, node: str) -> None:
    """Refuse generated code that does not fit this runtime.

    Raises:
        GenerationDriftError: names the node and the command that repairs it.
    """
    if generation != RUNTIME_GENERATION:
        raise GenerationDriftError(
            f"{node}: generated for runtime generation {generation}, this runtime is {RUNTIME_GENERATION}",
            hint=f"run `omninode generate {node}`",
        )
