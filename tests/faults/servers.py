"""The servers that faults are put on: one broker, three brokers, PostgreSQL, each also behind a proxy."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from confluent_kafka.admin import AdminClient
from tests.faults.probe import MIGRATIONS, NODE

from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.local_services import KafkaService, PostgresService
from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate, read_migrations
from omnibase_infra.shared.testing.kafka_proxy import mark_coordinators
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer, fresh_database
from omnibase_infra.shared.testing.tcp_proxy import TcpProxy

LOOPBACK: Final = "127.0.0.1"
_REQUEST_SECONDS: Final = 20.0


class Brokers:
    """A Kafka cluster and the proxies before its brokers."""

    def __init__(self, folder: Path, count: int) -> None:
        self.service = KafkaService(folder, brokers=count, proxied=True)
        self.count = count
        self.proxies: list[TcpProxy] = []
        self._stack = ExitStack()

    def start(self) -> None:
        """Start from nothing, whatever a run that was killed left behind."""
        self.service.kill()
        self.service.delete_data()
        self.service.prepare()
        self.service.start()
        for port, target in self.service.proxies():
            proxy = TcpProxy(target, port=port, watch=mark_coordinators)
            self.proxies.append(self._stack.enter_context(proxy))

    @property
    def direct(self) -> str:
        """Return the addresses that no fault of a proxy touches."""
        return self.service.variables()["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def proxied(self) -> str:
        """Return the addresses of the proxies."""
        return ",".join(f"{LOOPBACK}:{proxy.port}" for proxy in self.proxies)

    def mend(self) -> None:
        """Undo what a fault left: brokers run, proxies forward."""
        for proxy in self.proxies:
            proxy.restore()
        self.service.start()

    def delete_topics(self, prefix: str) -> None:
        """Delete the topics of a realm, so that a long run does not fill the disk."""
        admin = AdminClient({"bootstrap.servers": self.direct, "log_level": 0})
        names = [name for name in admin.list_topics(timeout=_REQUEST_SECONDS).topics if name.startswith(prefix)]
        if names:
            for future in admin.delete_topics(names, operation_timeout=_REQUEST_SECONDS).values():
                future.exception(_REQUEST_SECONDS)

    def close(self) -> None:
        """End everything."""
        self._stack.close()
        self.service.kill()
        self.service.delete_data()


class Servers:
    """All servers of a bench. Brokers are started when a scenario first asks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = PostgresService(folder / "postgres")
        self.postgres_proxy: TcpProxy
        self._brokers: dict[int, Brokers] = {}
        self._stack = ExitStack()

    def start(self) -> None:
        """Start PostgreSQL and its proxy. Blocks."""
        self.postgres.kill()
        self.postgres.delete_data()
        self.postgres.prepare()
        self.postgres.start()
        port = urlsplit(self.dsn).port
        assert port is not None
        self.postgres_proxy = self._stack.enter_context(TcpProxy(port))

    @property
    def dsn(self) -> str:
        """Return the address of the server, a secret."""
        return self.postgres.variables()["OMNIBASE_POSTGRES_DSN"]

    def brokers(self, count: int) -> Brokers:
        """Return a running cluster of so many brokers. Blocks."""
        if count not in self._brokers:
            brokers = self._brokers[count] = Brokers(self.folder / f"kafka-{count}", count)
            brokers.start()
        return self._brokers[count]

    def mend(self) -> None:
        """Let everything run and forward again. Blocks."""
        self.postgres_proxy.restore()
        self.postgres.start()
        for brokers in self._brokers.values():
            brokers.mend()

    @asynccontextmanager
    async def place(self, brokers: Brokers) -> AsyncIterator[Settings]:
        """Provide a realm and a migrated database of its own, gone afterwards."""
        with fresh_database(PostgresServer(self.dsn)) as database:
            await migrate(database.dsn, [infrastructure_migrations(), read_migrations(NODE, MIGRATIONS)])
            tenant = f"faults-{secrets.token_hex(4)}"
            settings = load_settings(
                self.folder / "no-env-file",
                env="test",
                tenant=tenant,
                kafka_bootstrap_servers=brokers.direct,
                kafka_replication_factor=brokers.count,
                postgres_dsn=database.dsn,
            )
            try:
                yield settings
            finally:
                await asyncio.to_thread(self.mend)
                await asyncio.to_thread(brokers.delete_topics, f"{settings.realm}.")

    def proxied_dsn(self, dsn: str) -> str:
        """Return a database's address through the proxy."""
        parts = urlsplit(dsn)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@{LOOPBACK}:{self.postgres_proxy.port}"))

    def close(self) -> None:
        """End everything and remove its data."""
        self._stack.close()
        for brokers in self._brokers.values():
            brokers.close()
        self.postgres.kill()
        self.postgres.delete_data()


@contextmanager
def running_servers(folder: Path) -> Iterator[Servers]:
    """Start servers for the length of the block."""
    servers = Servers(folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.close()
