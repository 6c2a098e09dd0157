"""A real server with TLS: who is right gets in, who is not gets one error that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OmnibaseError, SettingsError
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.health_monitor import PostgresHealthMonitor
from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate

PASSWORD = "a-secret-nobody-may-see"
LAZY = PoolOptions(minimum=0, acquire_timeout=10)
Secured = Any


async def error_of(dsn: str) -> OmnibaseError:
    """Return what a caller gets, having made sure that the log says no more than one line about it."""
    with capture_logs() as logs:
        async with PostgresConnectionPool(dsn, LAZY) as pool:
            with pytest.raises(OmnibaseError) as caught:
                async with pool.acquire():
                    pass
    assert len([line for line in logs if line["log_level"] in ("warning", "error")]) <= 1, logs
    assert PASSWORD not in f"{caught.value!r} {caught.value} {logs}"
    return caught.value


@pytest.fixture
def other_certificate(secured_postgres: Secured) -> Iterator[Any]:
    """Lets the server serve another certificate, until the end of the test."""
    yield secured_postgres.server.use
    secured_postgres.server.use(secured_postgres.certificate)


async def test_who_trusts_the_right_ca_and_knows_the_password_gets_in_encrypted(secured_postgres: Secured) -> None:
    async with PostgresConnectionPool(secured_postgres.server.dsn() + secured_postgres.trusting(), LAZY) as pool:
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
        health = await PostgresHealthMonitor(pool).check()
    assert (health.role, health.recent_failures) == ("primary", 0)


async def test_settings_of_their_own_say_whom_to_trust_and_a_ca_means_verify_full(
    secured_postgres: Secured, tmp_path: Path
) -> None:
    server = secured_postgres.server
    right = re.search(r"//\w+:([^@]+)@", server.dsn())
    assert right is not None
    given = {
        "postgres_dsn": server.dsn("127.0.0.1", password="not-this"),
        "postgres_password": right[1],
        "postgres_ssl_ca_location": str(secured_postgres.authority.certificate),
        "postgres_pool_min": 0,
    }
    async with PostgresConnectionPool.from_settings(load_settings(tmp_path / "no-file", env="test", **given)) as pool:
        with pytest.raises(DependencyUnavailableError, match="is for another host name"):
            async with pool.acquire():
                pass
    given["postgres_ssl_mode"] = "verify-ca"
    settings = load_settings(tmp_path / "no-file", env="test", **given)
    async with PostgresConnectionPool.from_settings(settings) as pool, pool.acquire() as connection:
        assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True


async def test_a_wrong_ca(secured_postgres: Secured, tmp_path: Path) -> None:
    stranger = type(secured_postgres.authority)(tmp_path, "stranger").certificate
    error = await error_of(secured_postgres.server.dsn() + secured_postgres.trusting(stranger))
    assert isinstance(error, DependencyUnavailableError)
    assert error.message == "the TLS certificate of PostgreSQL at localhost was not signed by the CA that we trust"
    assert "OMNIBASE_POSTGRES_SSL_CA_LOCATION" in error.hint


def test_the_loop_of_workers_says_the_same(secured_postgres: Secured, tmp_path: Path) -> None:
    stranger = type(secured_postgres.authority)(tmp_path, "stranger").certificate
    error = uvloop.run(error_of(secured_postgres.server.dsn() + secured_postgres.trusting(stranger)))
    assert error.message == "the TLS certificate of PostgreSQL at localhost was not signed by the CA that we trust"


async def test_a_wrong_host_name(secured_postgres: Secured, other_certificate: Any) -> None:
    expected = "the TLS certificate of PostgreSQL at {} is for another host name"
    by_address = await error_of(secured_postgres.server.dsn("127.0.0.1") + secured_postgres.trusting())
    assert by_address.message == expected.format("127.0.0.1")
    other_certificate(secured_postgres.authority.server("other-name", ["db.example.org"]))
    by_name = await error_of(secured_postgres.server.dsn() + secured_postgres.trusting())
    assert by_name.message == expected.format("localhost")
    assert "connect by a name that the certificate has" in by_name.hint


async def test_an_expired_certificate(secured_postgres: Secured, other_certificate: Any) -> None:
    other_certificate(secured_postgres.authority.server("expired", expired=True))
    error = await error_of(secured_postgres.server.dsn() + secured_postgres.trusting())
    assert isinstance(error, DependencyUnavailableError)
    assert error.message == "the TLS certificate of PostgreSQL at localhost has expired"
    assert "install a new one on the server" in error.hint


async def test_a_wrong_password(secured_postgres: Secured) -> None:
    error = await error_of(secured_postgres.server.dsn(password=PASSWORD) + secured_postgres.trusting())
    assert isinstance(error, DependencyUnavailableError)
    assert error.message == (
        "PostgreSQL at localhost refused the login to omnibase: password authentication failed for user "
        '"omnibase" (28P01)'
    )
    assert "OMNIBASE_POSTGRES_DSN" in error.hint


async def test_without_tls_nobody_gets_in(secured_postgres: Secured) -> None:
    error = await error_of(secured_postgres.server.dsn() + "?sslmode=disable")
    assert "no encryption (28000)" in error.message
    assert "sslmode" in error.hint


@pytest.mark.parametrize(
    ("parameters", "says", "todo"),
    [
        ("?sslmode=verify-full", "has no CA", "OMNIBASE_POSTGRES_SSL_CA_LOCATION"),
        ("{ca}.gone", "cannot be used as CA bundle: no such file", "OMNIBASE_POSTGRES_SSL_CA_LOCATION"),
        ("{key_as_ca}", "cannot be used as CA bundle: no certificate", "OMNIBASE_POSTGRES_SSL_CA_LOCATION"),
        ("{ca}&sslcert={ca_file}&sslkey=/gone", "as client certificate: no such file", "_SSL_KEY_LOCATION"),
        ("{ca}&sslcert={ca_file}&sslkey={key}", "as client certificate: key values mismatch", "_SSL_KEY_LOCATION"),
    ],
)
async def test_files_that_cannot_be_used_are_named(
    secured_postgres: Secured, parameters: str, says: str, todo: str
) -> None:
    key = secured_postgres.certificate.key
    filled = parameters.format(
        ca=secured_postgres.trusting(),
        ca_file=secured_postgres.authority.certificate,
        key=key,
        key_as_ca=secured_postgres.trusting(key),
    )
    error = await error_of(secured_postgres.server.dsn() + filled)
    assert isinstance(error, SettingsError)
    assert says in error.message
    assert todo in error.hint


async def test_a_file_that_goes_missing_later_is_an_outage_and_no_mistake(
    secured_postgres: Secured, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(secured_postgres.authority.certificate.read_bytes())
    dsn = secured_postgres.server.dsn() + secured_postgres.trusting(ca)
    async with PostgresConnectionPool(dsn, LAZY) as pool, pool.acquire():
        ca.unlink()
        with pytest.raises(DependencyUnavailableError, match="cannot be used as CA bundle"):
            async with pool.acquire():
                pass
        ca.write_bytes(secured_postgres.authority.certificate.read_bytes())
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_migrations_go_over_tls_and_say_the_same_when_they_cannot(
    secured_postgres: Secured, tmp_path: Path
) -> None:
    stranger = type(secured_postgres.authority)(tmp_path, "stranger").certificate
    with pytest.raises(DependencyUnavailableError, match="was not signed by the CA that we trust"):
        await migrate(
            secured_postgres.server.dsn() + secured_postgres.trusting(stranger), [infrastructure_migrations()]
        )
    steps = await migrate(
        secured_postgres.server.dsn() + secured_postgres.trusting(), [infrastructure_migrations()], dry_run=True
    )
    assert steps
