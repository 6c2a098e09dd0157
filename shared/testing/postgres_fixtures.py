"""pytest fixtures on a real PostgreSQL: one server per test process, one database per test.

Name this module in `pytest_plugins`, or import the fixtures into a `conftest.py`. The server is a local one from a wheel,
or the one of OMNIBASE_POSTGRES_DSN, whose user must be allowed to create databases.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from omnibase_infra import workers
from omnibase_infra.shared.local_services import down, up
from omnibase_infra.shared.postgres.connection_pool import SEARCH_PATH, PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.migrations import (
    infrastructure_migrations,
    migrate,
    newest_node_folders,
    read_migrations,
)
from omnibase_infra.shared.testing.docker_services import docker_postgres, in_docker

T = TypeVar("T")


@dataclass(frozen=True)
class PostgresServer:
    """A running server, by the address of a database whose user may create others."""

    dsn: str

    def __repr__(self) -> str:
        return f"PostgresServer({urlsplit(self.dsn).hostname}:{urlsplit(self.dsn).port})"

    def dsn_of(self, database: str) -> str:
        """Return the address of another database on this server."""
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{database}"))


@dataclass(frozen=True)
class PostgresDatabase:
    """A database of one test."""

    server: PostgresServer
    name: str

    @property
    def dsn(self) -> str:
        """Return its address, with credentials."""
        return self.server.dsn_of(self.name)

    async def connect(self) -> asyncpg.Connection:
        """Return a connection beside any pool, which the caller closes; names mean the same as in a pool."""
        return await asyncpg.connect(self.dsn, timeout=10, server_settings={"search_path": SEARCH_PATH})


@pytest.fixture(scope="session")
def postgres_container(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    """A real server for the whole test process: a local one, or in a container with `--services=docker`."""
    if in_docker(request.config):
        with docker_postgres() as dsn:
            yield PostgresServer(dsn)
        return
    folder = tmp_path_factory.mktemp("postgres") / ".omnibase"
    variables = up(folder, only=["postgres"])
    yield PostgresServer(variables["OMNIBASE_POSTGRES_DSN"])
    down(folder, delete_data=True)


@pytest.fixture(scope="session")
def postgres_template(postgres_container: PostgresServer) -> Iterator[str]:
    """Name of a database with inbox and outbox, to be copied."""
    with fresh_database(postgres_container) as database:
        _run(migrate(database.dsn, [infrastructure_migrations()]))
        yield database.name


@pytest.fixture(scope="session")
def postgres_node_template(postgres_container: PostgresServer, postgres_template: str) -> Iterator[str]:
    """Name of a database with inbox, outbox and the tables of all nodes, to be copied."""
    with fresh_database(postgres_container, postgres_template) as database:
        folders = newest_node_folders(Path(str(workers.__file__)).parent)
        plan = [read_migrations(node, folder / "migrations") for node, folder in folders.items()]
        _run(migrate(database.dsn, plan))
        yield database.name


@pytest.fixture
def postgres_test_db(postgres_container: PostgresServer, postgres_template: str) -> Iterator[PostgresDatabase]:
    """A fresh database with inbox and outbox; dropped after the test."""
    with fresh_database(postgres_container, postgres_template) as database:
        yield database


@pytest.fixture
def postgres_migration_applied(
    postgres_container: PostgresServer, postgres_node_template: str
) -> Iterator[PostgresDatabase]:
    """A fresh database with inbox, outbox and the tables of all nodes; dropped after the test."""
    with fresh_database(postgres_container, postgres_node_template) as database:
        yield database


@pytest.fixture
async def postgres_connection_pool(postgres_test_db: PostgresDatabase) -> AsyncIterator[PostgresConnectionPool]:
    """An open pool on the test's database."""
    async with PostgresConnectionPool(
        postgres_test_db.dsn, PoolOptions(minimum=1, maximum=10, application_name="test")
    ) as pool:
        yield pool


@contextmanager
def fresh_database(server: PostgresServer, template: str = "template0") -> Iterator[PostgresDatabase]:
    """Make a database for the length of the block: an empty one, or a copy of `template`."""
    name = f"test_{uuid4().hex}"
    _run(_execute(server.dsn, f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    try:
        yield PostgresDatabase(server, name)
    finally:
        _run(_execute(server.dsn, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=60)
    try:
        await connection.execute(sql)
    finally:
        await connection.close(timeout=5)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a synchronous fixture, on a loop and thread of its own: the test's loop is not ours."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()
