"""The stage of one run: a realm and a database of its own on the local or given servers, and their removal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from omnibase_infra import workers
from omnibase_infra.shared.cli.console import quiet
from omnibase_infra.shared.cli.demo_steps.narration import Narrator
from omnibase_infra.shared.cli.demo_steps.plan import NODE, DemoError, DemoPlan
from omnibase_infra.shared.core.errors import (
    ClusterRefusedError,
    ConfigurationError,
    DependencyUnavailableError,
    OmnibaseError,
)
from omnibase_infra.shared.core.settings import ENV_FILE, Settings, load_settings, require_kafka, require_postgres
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.client_log import ClientLog
from omnibase_infra.shared.kafka.security import security_config
from omnibase_infra.shared.postgres.errors import classify_connect
from omnibase_infra.shared.postgres.migrations import (
    infrastructure_migrations,
    migrate,
    newest_node_folders,
    read_migrations,
)
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry, replication_factor

T = TypeVar("T")

# The smallest that brokers accept by default: it is how long the work of a killed worker waits for another.
SESSION_SECONDS: Final = 6.0
_REQUEST_SECONDS: Final = 10.0
# A group in which brokers still count a killed worker, too: without its topics' offsets it goes by itself.
_GONE: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP)


class Stage:
    """What one run has for itself.

    Attributes:
        settings: of the run's realm and database.
        spec: of the worker it shows.
    """

    def __init__(self, plan: DemoPlan) -> None:
        """Read the settings.

        Raises:
            SettingsError: an address is missing or malformed.
        """
        self._database = plan.database
        given = {
            "env": "local",
            "tenant": plan.tenant,
            "kafka_session_timeout_seconds": SESSION_SECONDS,
            # Several processes with one static identity would throw each other out of the group.
            "kafka_group_instance_id": None,
        }
        settings = load_settings(plan.state / ENV_FILE, **given)
        require_kafka(settings)
        self._server = require_postgres(settings)
        self._dsn = urlunsplit(urlsplit(self._server)._replace(path=f"/{plan.database}"))
        self.settings: Settings = load_settings(plan.state / ENV_FILE, **given, postgres_dsn=self._dsn)
        self.spec: WorkerSpec = load_spec(NODE)
        self._registry = TopicRegistry.from_specs([self.spec], self.settings.realm, replication_factor(self.settings))

    @property
    def realm(self) -> str:
        """Return the name before everything on the cluster."""
        return str(self.settings.realm)

    async def check_servers(self) -> None:
        """Make sure that both servers answer, before anything is made.

        Raises:
            DependencyUnavailableError, ClusterRefusedError: one does not, or refuses this user.
        """
        admin = KafkaTopicAdmin(self.settings, log=quiet)
        await asyncio.to_thread(admin.topics, f"{self.realm}.")
        await self._execute("SELECT 1")

    async def create_topics(self) -> int:
        """Create the worker's topics, commit its group's first offsets, and return how many topics there are.

        Raises:
            DemoError: the cluster refused something; says what.
            DependencyUnavailableError, ClusterRefusedError: the cluster cannot be asked.
        """
        catalogue = self._registry.catalogue
        admin = KafkaTopicAdmin(self.settings, log=quiet)
        report = await _to_its_end(asyncio.to_thread(provision, admin, catalogue, self.settings.realm))
        if not report.is_complete:
            reasons = [item.reason for item in report.failed] + [str(item) for item in report.refusals]
            raise DemoError("the topics could not be created: " + "; ".join(reasons or ["the cluster went away"]))
        return len(catalogue.entries)

    def partitions(self) -> dict[str, int]:
        """Return how many partitions each topic that the worker subscribes to has, by its physical name."""
        entries = [self._registry.entry(topic) for topic in self.spec.subscribe]
        return {entry.topic.physical(self.settings.realm): entry.partitions for entry in entries}

    async def create_database(self) -> int:
        """Create the database, bring it to its schema, and return how many migrations that took.

        Raises:
            ConfigurationError: the user may not create databases, or a migration is wrong.
            DependencyUnavailableError: PostgreSQL cannot be reached.
        """
        try:
            await self._execute(
                f'CREATE DATABASE "{self._database}" TEMPLATE template0'
            )  # sql: our own, of letters and digits
        except asyncpg.InsufficientPrivilegeError:
            raise ConfigurationError(
                "the user of OMNIBASE_POSTGRES_DSN may not create a database, and the demo wants one of its own",
                hint="give it CREATEDB, or unset the variable to use a local server",
            ) from None
        folder = newest_node_folders(Path(str(workers.__file__)).parent)[NODE]
        plan = [infrastructure_migrations(), read_migrations(NODE, folder / "migrations")]
        return len(await migrate(self._dsn, plan))

    async def stored_events(self) -> dict[str, list[int]]:
        """Return the sequences of every order's events, in the order in which they were stored."""
        connection = await _connect(self._dsn)
        try:
            rows = await connection.fetch(
                "SELECT order_id::text, array_agg(sequence ORDER BY position) FROM orders.order_events GROUP BY order_id"
            )
        finally:
            await connection.close(timeout=5)
        return {order: list(sequences) for order, sequences in rows}

    async def remove(self) -> list[str]:
        """Drop the database and delete the topics; return what could not be removed, and why."""
        left: list[str] = []
        try:
            await self._execute(
                f'DROP DATABASE IF EXISTS "{self._database}" WITH (FORCE)'
            )  # sql: our own, of letters and digits
        except (OmnibaseError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            left.append(f"the database {self._database}: {error}")
        try:
            await _to_its_end(asyncio.to_thread(self._delete_topics))
        except (OmnibaseError, KafkaException) as error:
            left.append(f"the topics {self.realm}.*: {error}")
        return left

    def _delete_topics(self) -> None:
        """Delete the topics and the consumer group of the realm, which is this run's alone."""
        names = list(KafkaTopicAdmin(self.settings, log=quiet).topics(f"{self.realm}."))
        group = self.settings.realm.group(self.spec.worker, self.spec.major)
        config: dict[str, Any] = {
            "bootstrap.servers": require_kafka(self.settings),
            "log.connection.close": False,
            **security_config(self.settings),
            "logger": ClientLog(quiet, "demo"),
        }
        client = AdminClient(config)
        groups = client.delete_consumer_groups([group], request_timeout=_REQUEST_SECONDS)
        topics = client.delete_topics(names, request_timeout=_REQUEST_SECONDS) if names else {}
        for name, future in [*groups.items(), *topics.items()]:
            try:
                future.result(_REQUEST_SECONDS + 5.0)
            except KafkaException as error:
                if error.args[0].code() not in _GONE:
                    raise ClusterRefusedError(f"{name} cannot be deleted: {error.args[0].str()}") from error

    async def _execute(self, sql: str) -> None:
        connection = await _connect(self._server)
        try:
            await connection.execute(sql)
        finally:
            await connection.close(timeout=5)


@asynccontextmanager
async def prepared_stage(plan: DemoPlan, narrator: Narrator) -> AsyncIterator[Stage]:
    """Provide topics and database for the length of the block, or for ever with `keep`."""
    stage = Stage(plan)
    await stage.check_servers()
    try:
        with narrator.step("create topics and a database") as step:
            topics, migrations = await stage.create_topics(), await stage.create_database()
            step.outcome = f"{topics} topics in realm {stage.realm}, {migrations} migrations in {plan.database}"
        yield stage
    finally:
        if not plan.keep:
            with narrator.step("remove its topics and database") as step:
                left = await stage.remove()
                step.outcome = "done" if not left else "left behind: " + "; ".join(left)


async def _to_its_end(work: Awaitable[T]) -> T:
    """Await work in a thread; when cancelled, still wait for its end, so that what it makes can be removed after."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _connect(dsn: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(dsn, timeout=10, command_timeout=60)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        classified = classify_connect(error)
        if isinstance(classified, DependencyUnavailableError) and not classified.hint:
            classified.hint = "check OMNIBASE_POSTGRES_DSN, or run `omninode infra status`"
        raise classified from error
