from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from omnibase_infra.shared.core.ids import original_id
from omnibase_infra.shared.core.ports import InboxMessage
from omnibase_infra.shared.local_services import PostgresService
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.testing.certificates import ServerCertificate, TestAuthority
from omnibase_infra.shared.testing.tls_postgres import TlsPostgres, tls_postgres

MessageFactory = Callable[..., InboxMessage]


def make_message(**changes: object) -> InboxMessage:
    values: dict[str, object] = {
        "source": "/omnibase/test/client",
        "message_id": original_id(),
        "redrive_id": "",
        "payload_hash": os.urandom(16),
        "topic": "onex.cmd.postgres-adapter.requests.v1",
        "partition": 3,
        "offset": 17,
        "day_ms": time.time_ns() // 1_000_000,
    }
    return InboxMessage(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def new_message() -> MessageFactory:
    return make_message


@pytest.fixture
def store(postgres_connection_pool: PostgresConnectionPool) -> PostgresEffectStore:
    return PostgresEffectStore(postgres_connection_pool, "test.omnibase-infra.postgres-adapter.consume.v1")


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PostgresService]:
    """A server that a test may stop and kill."""
    service = PostgresService(tmp_path / "postgres")
    service.prepare()
    service.start()
    yield service
    service.stop()
    service.delete_data()


@pytest.fixture
def own_dsn(own_server: PostgresService) -> str:
    return own_server.variables()["OMNIBASE_POSTGRES_DSN"]


class SecuredServer(NamedTuple):
    """A PostgreSQL that lets in nobody without TLS, the authority that it is trusted by, and its right certificate."""

    server: TlsPostgres
    authority: TestAuthority
    certificate: ServerCertificate
    folder: Path

    def trusting(self, ca: Path | None = None) -> str:
        """Return the parameters of an address that verifies the server."""
        return f"?sslmode=verify-full&sslrootcert={ca or self.authority.certificate}"


@pytest.fixture(scope="session")
def secured_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    """A server with TLS for the whole test process; who changes its certificate puts the right one back."""
    folder = tmp_path_factory.mktemp("tls-postgres")
    authority = TestAuthority(folder)
    certificate = authority.server()
    with tls_postgres(folder, certificate) as server:
        yield SecuredServer(server, authority, certificate, folder)
