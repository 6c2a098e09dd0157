"""`omninode run`: start one worker. With `worker_services`, the only place that wires real servers to the runtime."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.settings import Settings, load_settings, state_directory
from omnibase_infra.shared.core.worker_spec import WorkerSpec

if TYPE_CHECKING:
    from omnibase_infra.shared.kafka.client_log import LogFunction
    from omnibase_infra.shared.kafka.sasl_login import SaslLogin
    from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
    from omnibase_infra.shared.observability.tracer_factory import Tracing
    from omnibase_infra.shared.registry.container import ONEXContainer
    from omnibase_infra.shared.runtime.worker import Worker

_TOPIC_CHECK_SECONDS: Final = 5.0
_LAST_SPANS_SECONDS: Final = 2.0


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
    from omnibase_infra.shared.cli.worker_services import Surroundings, start_services
    from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
    from omnibase_infra.shared.kafka.sasl_login import LOGIN_SETTINGS, SaslLogin
    from omnibase_infra.shared.kafka.topic_check import brokers_let_us_in
    from omnibase_infra.shared.observability.log_events import LogEvent
    from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
    from omnibase_infra.shared.observability.structured_logger import configure_logging, get_logger
    from omnibase_infra.shared.registry.container import ONEXContainer
    from omnibase_infra.shared.registry.nodes import load_node
    from omnibase_infra.shared.resilience.process_wide import process_resilience
    from omnibase_infra.shared.runtime.garbage_collection import tune_collector
    from omnibase_infra.shared.runtime.worker import Worker
    from omnibase_infra.shared.secrets import RotatingSecrets

    registry = MetricsRegistry()
    process_resilience().show_in(registry, spec.worker)
    pipeline = configure_logging(settings, worker=spec.worker, metrics=registry)
    log = get_logger()
    client_log = _client_log(log)
    log.info(LogEvent.WORKER_STARTING, node=spec.node, version=spec.version, realm=str(settings.realm), pid=os.getpid())
    async with AsyncExitStack() as stack:
        stack.callback(pipeline.close)
        client_id = f"{spec.worker}-{os.getpid()}"
        secrets = RotatingSecrets(settings, worker=spec.worker, registry=registry)
        stack.push_async_callback(secrets.close)
        settings = await secrets.open()
        tracing = _tracing(spec, settings, registry, stack)
        login = SaslLogin(settings)
        secrets.on_change(LOGIN_SETTINGS, login.renew)
        container = await stack.enter_async_context(ONEXContainer())
        container.register_value(MetricsRegistry, registry)
        services = await start_services(
            container, Surroundings(spec, settings, registry, client_id, client_log, login, secrets)
        )
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
                login=login,
            )

        async def let_us_in() -> bool:
            return await brokers_let_us_in(login.settings, log=client_log, timeout_seconds=_TOPIC_CHECK_SECONDS)

        worker = Worker(
            node,
            settings,
            producer=services.producer,
            stores=services.stores,
            make_consumer=make_consumer,
            registry=registry,
            log=log,
            brokers_answer=let_us_in,
            topic_ids=_topic_ids(spec, login, client_log),
            producer_is_cut_off=services.producer_is_cut_off,
            producer_health=services.producer_health,
            tracing=tracing,
        )
        _show_pools(container, worker)
        log.info(LogEvent.HEALTH_SERVER_STARTED, address=await _listen(worker, settings, stack))
        _watch(worker, log, stack)
        _stop_on_signals(worker.request_stop)
        await _check_topics(spec, settings, client_log)
        tune_collector()
        await worker.run()
        log.info(LogEvent.WORKER_STOPPED)


def _tracing(spec: WorkerSpec, settings: Settings, registry: MetricsRegistry, stack: AsyncExitStack) -> Tracing | None:
    """Return the traces of the process, exported to the end; without a collector their library is not even loaded."""
    if settings.otlp_endpoint is None:
        return None
    from omnibase_infra.shared.observability.tracer_factory import create_tracing

    tracing = create_tracing(
        settings, service=spec.worker, registry=registry, attributes={"service.version": spec.version}
    )
    if tracing is not None:
        stack.push_async_callback(tracing.aclose, _LAST_SPANS_SECONDS)
    return tracing


async def _listen(worker: Worker, settings: Settings, stack: AsyncExitStack) -> str:
    """Serve the endpoints, and leave word on this machine of where; return the address."""
    from omnibase_infra.shared.observability.endpoint_files import WorkerEndpoint, announced
    from omnibase_infra.shared.runtime.health_server import HealthServer

    server = await stack.enter_async_context(HealthServer(worker, host=settings.health_host, port=settings.health_port))
    address = f"http://{settings.health_host}:{server.port}"
    here = WorkerEndpoint(worker.spec.worker, str(settings.realm), os.getpid(), address)
    stack.enter_context(announced(state_directory(), here))
    return address


def _watch(worker: Worker, log: Any, stack: AsyncExitStack) -> None:
    """Have a thread notice when the event loop is blocked."""
    from omnibase_infra.shared.runtime.watchdog import Watchdog

    watchdog = Watchdog(worker.instruments, log)
    watchdog.start()
    stack.callback(watchdog.stop)
    worker.watched_by(lambda: watchdog.blocked_seconds)


def _show_pools(container: ONEXContainer, worker: Worker) -> None:
    """Let the pools' gauges be read at each scrape."""
    if "postgres" in worker.spec.dependencies:
        from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
        from omnibase_infra.shared.postgres.metrics_export import show_pool

        show_pool(container.get(PostgresConnectionPool), worker.instruments.dependencies["postgres"].pool)


async def _check_topics(spec: WorkerSpec, settings: Settings, log: LogFunction) -> None:
    """Stop with one clear line when a topic or a right is missing; with brokers away, start and wait for them.

    Raises:
        TopicMissingError: names every topic that is missing.
        KafkaAccessError: a broker does not let us in.
        ClusterRefusedError: it does, and does not let us work.
    """
    from omnibase_infra.shared.cli.worker_services import tolerating_outage
    from omnibase_infra.shared.kafka.topic_check import require_topics

    def physical(names: Iterable[str]) -> list[str]:
        return sorted(TopicName.parse(name).physical(settings.realm) for name in names)

    reads = physical([*spec.subscribe, *map(str, spec.retry_topics.values())])
    writes = physical(spec.writable_topics())

    async def check() -> None:
        await asyncio.to_thread(
            require_topics, settings, sorted({*reads, *writes}), log=log, timeout_seconds=_TOPIC_CHECK_SECONDS
        )
        if settings.kafka_security_protocol != "PLAINTEXT":
            from omnibase_infra.shared.kafka.permissions import require_permissions

            group = settings.realm.group(spec.worker, spec.major)
            await asyncio.to_thread(require_permissions, settings, reads=reads, writes=writes, group=group, log=log)

    await tolerating_outage(check)


def _topic_ids(
    spec: WorkerSpec, login: SaslLogin, log: LogFunction
) -> Callable[[], Awaitable[Mapping[str, str | None]]]:
    """Return what asks for the ids of the topics that the worker reads."""
    from omnibase_infra.shared.kafka.topic_identity import TopicIdentity

    topics = [*map(TopicName.parse, spec.subscribe), *spec.retry_topics.values()]
    names = [topic.physical(login.settings.realm) for topic in topics]
    identity = TopicIdentity(login.settings, names, log=log, login=login)
    return partial(asyncio.to_thread, identity.look)


def _client_log(log: Any) -> LogFunction:
    """Return the logger as the Kafka clients call it, whose fields may have any name."""

    def write(level: int, event: str, /, **fields: Any) -> None:
        log.log(level, event, **fields)

    return write


def _stop_on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop)
