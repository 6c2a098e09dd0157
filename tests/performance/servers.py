"""The servers of a run: Kafka and PostgreSQL in a folder that is gone afterwards, and clean places on them."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.performance.processes import quiet

from omnibase_infra import workers
from omnibase_infra.shared.core.settings import ENV_FILE, Settings, load_settings, require_kafka, require_postgres
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.local_services import down, up
from omnibase_infra.shared.local_services.service import Progress
from omnibase_infra.shared.postgres.migrations import (
    infrastructure_migrations,
    migrate,
    newest_node_folders,
    read_migrations,
)
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import Fleet, running_fleet
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer, fresh_database
from omnibase_infra.topics.cluster import Partition

Say = Callable[[str], None]

NODE = "postgres_adapter"


class Servers:
    """Running servers. Every `place` on them is a realm of its own, so that rounds don't see each other."""

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        self.folder = folder
        self._postgres = postgres
        self._run = secrets.token_hex(3)

    def settings(self, name: str, dsn: str | None = None) -> Settings:
        """Return the settings of the place with this name."""
        tenant = f"bench-{self._run}-{name}"
        overrides = {} if dsn is None else {"postgres_dsn": dsn}
        return load_settings(self.folder / ENV_FILE, env="test", tenant=tenant, **overrides)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Provide the address of a new database with all tables, gone after the block."""
        with fresh_database(self._postgres) as database:
            folders = newest_node_folders(Path(str(workers.__file__)).parent)
            tables = [read_migrations(node, folder / "migrations") for node, folder in folders.items()]
            await migrate(database.dsn, [infrastructure_migrations(), *tables])
            yield database.dsn

    @asynccontextmanager
    async def fleet(self, name: str) -> AsyncIterator[Fleet]:
        """Provide a fleet of the PostgreSQL adapter on topics and tables of its own; no worker runs yet."""
        folder = self.folder / name
        folder.mkdir()
        async with self.database() as dsn, running_fleet(load_spec(NODE), self.settings(name, dsn), folder) as fleet:
            yield fleet


@contextmanager
def running_servers(say: Say) -> Iterator[Servers]:
    """Start servers in a temporary folder, for the length of the block. Addresses in the environment win."""

    def show(progress: Progress) -> None:
        if progress.done:
            say(f"{progress.service}: {progress.step} ({progress.seconds:.1f} s)")

    with tempfile.TemporaryDirectory(prefix="omnibase-bench-") as name:
        folder = Path(name) / ".omnibase"
        try:
            variables = up(folder, progress=show)
            yield Servers(folder, PostgresServer(variables["OMNIBASE_POSTGRES_DSN"]))
        finally:
            down(folder, delete_data=True)


def variables_of(settings: Settings) -> dict[str, str]:
    """Return the environment under which a child process sees the same place."""
    return {
        "OMNIBASE_ENV": settings.realm.environment,
        "OMNIBASE_TENANT": settings.realm.tenant,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": require_kafka(settings),
        "OMNIBASE_POSTGRES_DSN": require_postgres(settings),
    }


def topic_admin(settings: Settings) -> KafkaTopicAdmin:
    """Return an administrator of the cluster."""
    return KafkaTopicAdmin(settings, log=quiet)


def partitions_of(topic: str, count: int) -> list[Partition]:
    """Return the partitions of a physical topic."""
    return [Partition(topic, number) for number in range(count)]


def records_in(admin: KafkaTopicAdmin, topic: str) -> int:
    """Return how many records a physical topic holds; none where there is no such topic."""
    count = admin.topics(topic).get(topic, 0)
    return sum(marks.high - marks.low for marks in admin.watermarks(partitions_of(topic, count)).values())


def committed_in(admin: KafkaTopicAdmin, group: str, topic: str) -> int:
    """Return the sum of the offsets that a group has committed on a physical topic."""
    partitions = partitions_of(topic, admin.topics(topic)[topic])
    return sum(admin.group(group, partitions).committed.values())
