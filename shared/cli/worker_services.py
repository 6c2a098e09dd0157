"""The services of one worker process: what is opened for its spec, in which order, and what stands for which protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from omnibase_infra.shared.core.errors import ConfigurationError, DependencyUnavailableError
from omnibase_infra.shared.core.ports import EffectStore, OutboundRecord, RecordProducer
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.registry.container import ONEXContainer
from omnibase_infra.shared.registry.service_registry import ServiceDefinition
from omnibase_infra.shared.secrets.resolution import described

if TYPE_CHECKING:
    from omnibase_infra.shared.kafka.client_log import LogFunction
    from omnibase_infra.shared.kafka.producer_counters import ProducerHealth
    from omnibase_infra.shared.kafka.producer_pool import ProducerPool
    from omnibase_infra.shared.kafka.sasl_login import SaslLogin
    from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
    from omnibase_infra.shared.postgres.credentials import RotatingCredentials
    from omnibase_infra.shared.runtime.transactional_commits import TransactionSupport
    from omnibase_infra.shared.secrets import RotatingSecrets

# The drain has waited for what was under way; the rest is sent again by whoever runs its input again.
CLOSE_SECONDS: Final = 2.0
_POSTGRES_LOGIN: Final = ("postgres_dsn", "postgres_user", "postgres_password")
# Closing a client waits for its threads beyond the time that records are given.
_STOP_SECONDS: Final = 15.0


class Surroundings(msgspec.Struct, frozen=True):
    """What services are made from, besides one another."""

    spec: WorkerSpec
    settings: Settings
    registry: MetricsRegistry
    client_id: str
    log: LogFunction
    login: SaslLogin
    secrets: RotatingSecrets


class WorkerServices(msgspec.Struct, frozen=True):
    """What the runtime takes from the started services."""

    producer: RecordProducer | TransactionSupport
    producer_is_cut_off: Callable[[], bool]
    producer_health: Callable[[], ProducerHealth]
    stores: dict[str, EffectStore]


async def start_services(container: ONEXContainer, around: Surroundings) -> WorkerServices:
    """Register and start what the worker's spec asks for; closing the container stops it, in reverse order.

    A server that is down makes the worker unready, not dead.

    Raises:
        ServiceStartError: names the service that did not start; those that did are stopped.
        SettingsError: what a service needs is not set.
    """
    container.register_value(Settings, around.settings)
    producer, is_cut_off, health = _register_producer(container, around)
    with_postgres = "postgres" in around.spec.dependencies
    if with_postgres:
        _register_postgres(container, around)
    await container.start()
    stores: dict[str, EffectStore] = {}
    if with_postgres:
        from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore

        stores["postgres"] = container.get(PostgresEffectStore)
    return WorkerServices(producer, is_cut_off, health, stores)


async def tolerating_outage(check: Callable[[], Awaitable[None]]) -> None:
    """Run a start-up check; an unreachable server is the breaker's and readiness' business later."""
    try:
        await check()
    except DependencyUnavailableError as error:
        from omnibase_infra.shared.observability.log_events import LogEvent
        from omnibase_infra.shared.observability.structured_logger import get_logger

        get_logger().warning(LogEvent.DEPENDENCY_UNAVAILABLE, dependency=error.dependency, error=error.message)


async def _asking_again(check: Callable[[], Awaitable[None]], dependency: str, total_seconds: float) -> None:
    """Run a check, some more times while the server is unreachable, within the budget of this process."""
    from omnibase_infra.shared.resilience.process_wide import process_resilience
    from omnibase_infra.shared.resilience.retry_policy import RetryOptions, RetryPolicy, retrying

    process = process_resilience()
    await retrying(
        check,
        RetryPolicy(attempts=3, base=0.1, cap=0.3, jitter="equal", total_seconds=total_seconds),
        dependency=dependency,
        options=RetryOptions(budget=process.budget(dependency), metrics=process.retry_metrics(dependency)),
    )


def _register_producer(
    container: ONEXContainer, around: Surroundings
) -> tuple[RecordProducer | TransactionSupport, Callable[[], bool], Callable[[], ProducerHealth]]:
    """Return what the worker's outputs go through, what says whether it is cut off from the brokers, and its state."""
    spec, settings = around.spec, around.settings
    allowed = spec.writable_topics()
    contract = f"workers/{spec.node}/v{spec.version.replace('.', '_')}/contract.yaml"
    if spec.guarantee == "transactional":
        from omnibase_infra.shared.runtime.transaction_setup import open_transactions
        from omnibase_infra.shared.runtime.transactional_commits import TransactionSupport

        support, transactions = open_transactions(
            spec,
            settings,
            client_id=around.client_id,
            log=around.log,
            allowed=allowed,
            contract=contract,
            login=around.login,
        )
        container.register_value(TransactionSupport, support, close=partial(transactions.close, CLOSE_SECONDS))
        container.register_value(TransactionalEventBus, TransactionalEventBus(contract))
        container.bind_protocol("ProtocolEventBus", TransactionalEventBus)
        return support, lambda: transactions.is_cut_off, transactions.health
    from omnibase_infra.shared.kafka.producer_pool import ProducerPool

    producer = ProducerPool(
        settings,
        client_id=around.client_id,
        log=around.log,
        allowed=allowed,
        contract=contract,
        login=around.login,
    )

    async def start(pool: ProducerPool) -> None:
        pool.start()

    container.register_service(
        ServiceDefinition(
            ProducerPool,
            lambda _: producer,
            start=start,
            stop=lambda pool: pool.close(CLOSE_SECONDS),
            stop_seconds=_STOP_SECONDS,
        )
    )
    container.bind_protocol("ProtocolEventBus", ProducerPool)
    return producer, partial(_is_cut_off, producer), producer.health


def _is_cut_off(producer: ProducerPool) -> bool:
    """Return whether the producer has something to send and no broker to send it to."""
    health = producer.health()
    return health.connected_brokers == 0 and bool(health.queued or health.waiting_sends)


def _register_postgres(container: ONEXContainer, around: Surroundings) -> None:
    from omnibase_infra.shared.observability.statement_spans import StatementSpans
    from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
    from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
    from omnibase_infra.shared.postgres.health_monitor import PostgresHealthMonitor
    from omnibase_infra.shared.postgres.inbox_retention import InboxRetention, RetentionOptions
    from omnibase_infra.shared.postgres.metrics_export import MetricsHealthSink, MetricsPoolSink, MetricsQuerySink
    from omnibase_infra.shared.postgres.query_metrics import QueryMetrics
    from omnibase_infra.shared.postgres.statements import require_statements
    from omnibase_infra.shared.registry.nodes import load_statements

    spec, settings = around.spec, around.settings
    group = settings.realm.group(spec.worker, spec.major)
    queries = MetricsQuerySink(around.registry, spec.worker)

    def make_pool(_: ONEXContainer) -> PostgresConnectionPool:
        pool = PostgresConnectionPool.from_settings(
            settings,
            application_name=spec.worker,
            credentials=_rotating_login(around.secrets),
            query_metrics=QueryMetrics(
                slow_seconds=settings.postgres_slow_query_seconds,
                sink=StatementSpans(queries, "postgresql"),
            ),
            sink=MetricsPoolSink(around.registry, spec.worker),
        )

        async def take(_: Settings) -> None:
            await pool.take_new_credentials()

        around.secrets.on_change(_POSTGRES_LOGIN, take)
        return pool

    def make_store(services: ONEXContainer) -> PostgresEffectStore:
        health = MetricsHealthSink(around.registry, spec.worker)
        pool = services.get(PostgresConnectionPool)
        return PostgresEffectStore(pool, group, PostgresHealthMonitor(pool, on_check=health.checked))

    async def check_store(store: PostgresEffectStore) -> None:
        statements = load_statements(spec.node, spec.version)
        queries.show_patterns(statements)

        async def check() -> None:
            await store.check_schema()
            async with container.get(PostgresConnectionPool).acquire() as connection:
                await require_statements(connection, statements)

        # A server that is just starting is asked again; one that is silent costs no more than one attempt and a bit.
        patience = settings.postgres_acquire_timeout_seconds + 1
        await tolerating_outage(partial(_asking_again, check, "postgres", patience))

    def make_retention(services: ONEXContainer) -> _Background:
        retention = InboxRetention(
            services.get(PostgresConnectionPool),
            group=group,
            spec=spec,
            options=RetentionOptions(keep_days=settings.postgres_inbox_keep_days),
            registry=around.registry,
        )
        return _Background(retention.maintain_forever, "inbox-retention")

    container.register_service(
        ServiceDefinition(
            PostgresConnectionPool,
            make_pool,
            start=PostgresConnectionPool.open,
            stop=PostgresConnectionPool.close,
            stop_seconds=_STOP_SECONDS,
        )
    )
    container.register_service(
        ServiceDefinition(
            PostgresEffectStore,
            make_store,
            depends_on=(PostgresConnectionPool,),
            start=check_store,
        )
    )
    container.register_service(
        ServiceDefinition(
            _Background,
            make_retention,
            depends_on=(PostgresEffectStore,),
            start=_Background.start,
            stop=_Background.stop,
        )
    )
    container.bind_protocol("ProtocolEffectStore", PostgresEffectStore)
    container.bind_protocol("ProtocolEffectJournal", PostgresEffectStore)


def _rotating_login(secrets: RotatingSecrets) -> RotatingCredentials | None:
    """Return what follows the secrets of the process to another login; None where the login cannot change."""
    names = [name for name in _POSTGRES_LOGIN if name in secrets.references]
    if not names:
        return None
    from omnibase_infra.shared.postgres.credentials import Credentials, FixedCredentials, RotatingCredentials

    async def read() -> Credentials:
        return await FixedCredentials(require_postgres(secrets.settings)).read()

    return RotatingCredentials(read, ", ".join(described(name, secrets.references[name]) for name in names))


class TransactionalEventBus:
    """The event bus of a transactional worker: there is one, and handlers send by returning their outputs.

    What they sent beside the transaction would be there twice after it was aborted and its input ran again.
    """

    def __init__(self, contract: str) -> None:
        self._contract = contract

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        """Refuse.

        Raises:
            ConfigurationError: always; says what to do instead.
        """
        raise ConfigurationError(
            f"{self._contract} is transactional: {len(records)} records cannot be sent beside the transaction",
            hint="return them from the handler, or choose another delivery guarantee",
        )


class _Background:
    """Work beside the worker's own, until the worker has stopped."""

    def __init__(self, run: Callable[[], Awaitable[None]], name: str) -> None:
        self._run = run
        self._name = name
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""

        async def run() -> None:
            await self._run()

        self._task = asyncio.create_task(run(), name=self._name)

    async def stop(self) -> None:
        """End it, and wait for a moment until it has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
