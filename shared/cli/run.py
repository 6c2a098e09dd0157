"""`omninode run`: start one worker. The only place that wires real servers to the runtime's ports."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import EffectStore, RecordProducer
from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec

if TYPE_CHECKING:
    from omnibase_infra.shared.kafka.client_log import LogFunction
    from omnibase_infra.shared.kafka.producer_pool import ProducerPool
    from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
    from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
    from omnibase_infra.shared.registry.container import ONEXContainer
    from omnibase_infra.shared.runtime.transactional_commits import TransactionSupport
    from omnibase_infra.shared.runtime.worker import Worker

_TOPIC_CHECK_SECONDS: Final = 5.0
# The drain has waited for what was under way; the rest is sent again by whoever runs its input again.
_CLOSE_SECONDS: Final = 2.0


def run(
    node: Annotated[str, typer.Argument(help="Node folder, for example postgres_adapter.")],
    version: Annotated[str | None, typer.Option(help="Version such as 1.0.0; default: the newest.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check that the node exists and loads.")] = False,
) -> None:
    """Run a node's worker until SIGTERM or Ctrl-C; then drain, commit and leave the group.

    Settings come from OMNIBASE_* variables and from what `omninode infra up` wrote. Exit codes: 0 stopped as asked,
    1 stopped by a failure a restart may cure, 2 settings, topics, offsets or schema are wrong.
    """
    from omnibase_infra.shared.registry.nodes import load_spec

    spec = load_spec(node, version)
    if check:
        return
    settings = load_settings()
    try:
        import uvloop
    except ImportError:  # not built for this platform; asyncio's own loop does the same, slower
        asyncio.run(_run(spec, settings))
    else:
        uvloop.run(_run(spec, settings))


async def _run(spec: WorkerSpec, settings: Settings) -> None:
    from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
    from omnibase_infra.shared.kafka.topic_check import brokers_answer
    from omnibase_infra.shared.observability.log_events import LogEvent
    from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
    from omnibase_infra.shared.observability.structured_logger import configure_logging, get_logger
    from omnibase_infra.shared.registry.container import ONEXContainer
    from omnibase_infra.shared.registry.nodes import load_node
    from omnibase_infra.shared.runtime.garbage_collection import tune_collector
    from omnibase_infra.shared.runtime.health_server import HealthServer
    from omnibase_infra.shared.runtime.watchdog import Watchdog
    from omnibase_infra.shared.runtime.worker import Worker

    registry = MetricsRegistry()
    pipeline = configure_logging(settings, worker=spec.worker, metrics=registry)
    log = get_logger()
    client_log = _client_log(log)
    log.info(LogEvent.WORKER_STARTING, node=spec.node, version=spec.version, realm=str(settings.realm), pid=os.getpid())
    async with AsyncExitStack() as stack:
        stack.callback(pipeline.close)
        client_id = f"{spec.worker}-{os.getpid()}"
        producer, producer_is_cut_off = _open_producer(spec, settings, client_id, client_log, stack)
        container = ONEXContainer()
        stack.push_async_callback(container.aclose)
        container.register_value(Settings, settings)
        stores = await _open_stores(spec, settings, container, registry, stack)
        node = load_node(spec.node, container, spec.version)

        def make_consumer(on_statistics: Any, on_error: Any, on_commit: Any) -> Any:
            return create_consumer(
                settings,
                group=settings.realm.group(spec.worker, spec.major),
                purpose="consume",
                client_id=client_id,
                log=client_log,
                on_statistics=on_statistics,
                on_error=on_error,
                options=ConsumerOptions(
                    statistics_seconds=1.0, overrides={"on_commit": on_commit, "enable.partition.eof": True}
                ),
            )

        worker = Worker(
            node,
            settings,
            producer=producer,
            stores=stores,
            make_consumer=make_consumer,
            registry=registry,
            log=log,
            brokers_answer=partial(brokers_answer, settings, log=client_log, timeout_seconds=_TOPIC_CHECK_SECONDS),
            topic_ids=_topic_ids(spec, settings, client_log),
            producer_is_cut_off=producer_is_cut_off,
        )
        _show_pools(container, worker)
        server = HealthServer(worker, host=settings.health_host, port=settings.health_port)
        await server.start()
        stack.push_async_callback(server.close)
        log.info(LogEvent.HEALTH_SERVER_STARTED, address=f"http://{settings.health_host}:{server.port}")
        watchdog = Watchdog(worker.instruments, log)
        watchdog.start()
        stack.callback(watchdog.stop)
        worker.watched_by(lambda: watchdog.blocked_seconds)
        _stop_on_signals(worker.request_stop)
        await _check_topics(spec, settings, client_log)
        tune_collector()
        await worker.run()
        log.info(LogEvent.WORKER_STOPPED)


def _open_producer(
    spec: WorkerSpec, settings: Settings, client_id: str, log: LogFunction, stack: AsyncExitStack
) -> tuple[RecordProducer | TransactionSupport, Callable[[], bool]]:
    """Return what the worker's outputs go through, and what says whether it is cut off from the brokers."""
    allowed = spec.writable_topics()
    contract = f"workers/{spec.node}/v{spec.version.replace('.', '_')}/contract.yaml"
    if spec.guarantee == "transactional":
        from omnibase_infra.shared.runtime.transaction_setup import open_transactions

        support, transactions = open_transactions(
            spec, settings, client_id=client_id, log=log, allowed=allowed, contract=contract
        )
        stack.push_async_callback(transactions.close, _CLOSE_SECONDS)
        return support, lambda: transactions.is_cut_off
    from omnibase_infra.shared.kafka.producer_pool import ProducerPool

    producer = ProducerPool(settings, client_id=client_id, log=log, allowed=allowed, contract=contract)
    producer.start()
    stack.push_async_callback(producer.close, _CLOSE_SECONDS)
    return producer, partial(_is_cut_off, producer)


async def _open_stores(
    spec: WorkerSpec,
    settings: Settings,
    container: ONEXContainer,
    registry: MetricsRegistry,
    stack: AsyncExitStack,
) -> dict[str, EffectStore]:
    """Open what the contract's dependencies name; a server that is down makes the worker unready, not dead."""
    stores: dict[str, EffectStore] = {}
    if "postgres" in spec.dependencies:
        from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
        from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
        from omnibase_infra.shared.postgres.metrics_export import MetricsQuerySink
        from omnibase_infra.shared.postgres.query_metrics import QueryMetrics
        from omnibase_infra.shared.postgres.statements import require_statements
        from omnibase_infra.shared.registry.nodes import load_statements

        pool = PostgresConnectionPool.from_settings(
            settings,
            application_name=spec.worker,
            query_metrics=QueryMetrics(sink=MetricsQuerySink(registry, spec.worker)),
        )
        await pool.open()
        stack.push_async_callback(pool.close)
        container.register_value(PostgresConnectionPool, pool)
        store = PostgresEffectStore(pool, settings.realm.group(spec.worker, spec.major))

        async def check() -> None:
            await store.check_schema()
            async with pool.acquire() as connection:
                await require_statements(connection, load_statements(spec.node, spec.version))

        await _tolerating_outage(check)
        stores["postgres"] = store
        await _look_after_days(pool, spec, settings, registry, stack)
    return stores


async def _look_after_days(
    pool: PostgresConnectionPool, spec: WorkerSpec, settings: Settings, registry: MetricsRegistry, stack: AsyncExitStack
) -> None:
    """Add and drop the days of inbox and outbox beside the work, until the worker has stopped."""
    from omnibase_infra.shared.postgres.inbox_retention import InboxRetention, RetentionOptions

    retention = InboxRetention(
        pool,
        group=settings.realm.group(spec.worker, spec.major),
        spec=spec,
        options=RetentionOptions(keep_days=settings.postgres_inbox_keep_days),
        registry=registry,
    )
    task = asyncio.create_task(retention.maintain_forever(), name="inbox-retention")

    async def stop() -> None:
        task.cancel()
        await asyncio.wait([task], timeout=_CLOSE_SECONDS)

    stack.push_async_callback(stop)


def _show_pools(container: ONEXContainer, worker: Worker) -> None:
    """Let the pools' gauges be read at each scrape."""
    if "postgres" in worker.spec.dependencies:
        from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
        from omnibase_infra.shared.postgres.metrics_export import show_pool

        show_pool(container.get(PostgresConnectionPool), worker.instruments.dependencies["postgres"].pool)


async def _tolerating_outage(check: Callable[[], Awaitable[None]]) -> None:
    """Run a start-up check; an unreachable server is the breaker's and readiness' business later."""
    try:
        await check()
    except DependencyUnavailableError as error:
        from omnibase_infra.shared.observability.log_events import LogEvent
        from omnibase_infra.shared.observability.structured_logger import get_logger

        get_logger().warning(LogEvent.DEPENDENCY_UNAVAILABLE, dependency=error.dependency, error=error.message)


async def _check_topics(spec: WorkerSpec, settings: Settings, log: LogFunction) -> None:
    """Stop with one clear line when a topic is missing; with brokers away, start and wait for them.

    Raises:
        TopicMissingError: names every topic that is missing.
    """
    from omnibase_infra.shared.kafka.topic_check import require_topics

    names = sorted({*spec.subscribe, *spec.writable_topics()})
    physical = [TopicName.parse(name).physical(settings.realm) for name in names]

    async def check() -> None:
        await asyncio.to_thread(require_topics, settings, physical, log=log, timeout_seconds=_TOPIC_CHECK_SECONDS)

    await _tolerating_outage(check)


def _topic_ids(
    spec: WorkerSpec, settings: Settings, log: LogFunction
) -> Callable[[], Awaitable[Mapping[str, str | None]]]:
    """Return what asks for the ids of the topics that the worker reads."""
    from omnibase_infra.shared.kafka.topic_identity import TopicIdentity

    topics = [*map(TopicName.parse, spec.subscribe), *spec.retry_topics.values()]
    identity = TopicIdentity(settings, [topic.physical(settings.realm) for topic in topics], log=log)
    return partial(asyncio.to_thread, identity.look)


def _is_cut_off(producer: ProducerPool) -> bool:
    """Return whether the producer has something to send and no broker to send it to."""
    health = producer.health()
    return health.connected_brokers == 0 and bool(health.queued or health.waiting_sends)


def _client_log(log: Any) -> LogFunction:
    """Return the logger as the Kafka clients call it, whose fields may have any name."""

    def write(level: int, event: str, /, **fields: Any) -> None:
        log.log(level, event, **fields)

    return write


def _stop_on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop)
