"""Keeping secrets fresh: files that are replaced, new versions, leases renewed and replaced, log-ins that end."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.settings import Settings, load_settings, require_postgres, secret_value
from omnibase_infra.shared.local_services import OpenBaoService
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import configure_logging
from omnibase_infra.shared.secrets import RotatingSecrets
from omnibase_infra.shared.testing.fleet import eventually
from omnibase_infra.shared.testing.openbao_fixtures import DynamicLogins, OpenBaoServer, SecretMount

pytestmark = pytest.mark.usefixtures("no_environment")

Open = Callable[..., Any]


class Opened:
    """Secrets of a process, what they told, and what they count."""

    def __init__(self, settings: Settings) -> None:
        self.registry = MetricsRegistry(process_metrics=False)
        self.secrets = RotatingSecrets(settings, worker="w", registry=self.registry, chance=lambda: 0.5)
        self.told: list[Settings] = []

    def value(self, name: str) -> str | None:
        return secret_value(self.secrets.settings, name)

    def count(self, name: str, outcome: str) -> float:
        labels = f'{{outcome="{outcome}",setting="OMNIBASE_{name.upper()}",worker="w"}}'
        lines = self.registry.exposition().decode().splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith(f"omnibase_secret_renewals_total{labels}")
        )


@pytest.fixture
async def open_secrets() -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def make(*watched: str, **values: Any) -> Opened:
            defaults = {"env": "test", "secrets_file_check_seconds": 0.05, "secrets_refresh_seconds": 1}
            opened = Opened(load_settings(Path("absent"), **(defaults | values)))

            async def taken(settings: Settings) -> None:
                opened.told.append(settings)

            opened.secrets.on_change(watched, taken)
            stack.push_async_callback(opened.secrets.close)
            await opened.secrets.open()
            return opened

        yield make


@pytest.fixture
def logged() -> Iterator[Callable[[], str]]:
    stream = io.BytesIO()
    pipeline = configure_logging(load_settings(Path("absent"), env="test"), worker="w", stream=stream)
    yield lambda: stream.getvalue().decode()
    pipeline.close()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def test_without_references_nothing_runs(open_secrets: Open) -> None:
    opened = await open_secrets(postgres_dsn="postgresql://ada:x@h/d")
    assert opened.secrets._tasks == []


async def test_a_file_that_is_replaced_is_read_again_and_told_to_who_asked(tmp_path: Path, open_secrets: Open) -> None:
    file = tmp_path / "password"
    file.write_text("old")
    opened = await open_secrets("kafka_sasl_password", kafka_sasl_password=f"file://{file}")
    assert opened.value("kafka_sasl_password") == "old"

    (tmp_path / "next").write_text("new")
    (tmp_path / "next").replace(file)
    await eventually(lambda: opened.told, "the change is told")
    assert secret_value(opened.told[0], "kafka_sasl_password") == "new"
    assert opened.value("kafka_sasl_password") == "new"


async def test_a_mounted_secret_of_kubernetes_is_followed_over_its_links(tmp_path: Path, open_secrets: Open) -> None:
    def mount(version: str) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        (folder / "password").write_text(version)
        (tmp_path / "..data_tmp").symlink_to(folder)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    mount("first")
    (tmp_path / "password").symlink_to("..data/password")
    opened = await open_secrets("postgres_password", postgres_password=f"file://{tmp_path / 'password'}")
    mount("second")
    shutil.rmtree(tmp_path / "..first")
    await eventually(lambda: opened.value("postgres_password") == "second", "the new version is taken")


async def test_a_file_that_vanishes_keeps_its_value_and_is_told_of_once(
    tmp_path: Path, open_secrets: Open, logged: Callable[[], str]
) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2")
    opened = await open_secrets("postgres_password", postgres_password=f"file://{file}")
    file.unlink()
    await eventually(lambda: opened.count("postgres_password", "failed"), "the failure is counted")
    await asyncio.sleep(0.3)
    assert opened.count("postgres_password", "failed") == 1
    assert opened.value("postgres_password") == "hunter2"
    file.write_text("hunter3")
    await eventually(lambda: opened.value("postgres_password") == "hunter3", "it is read when it is back")
    lines = logged()
    assert lines.count('"secret_renewal_failed"') == 1
    assert "OMNIBASE_POSTGRES_PASSWORD" in lines
    assert "No such file" in lines
    assert "hunter" not in lines


async def test_only_who_asked_for_a_setting_is_told_and_a_raise_stops_nobody(
    tmp_path: Path, open_secrets: Open, logged: Callable[[], str]
) -> None:
    file = tmp_path / "password"
    file.write_text("old")
    opened = await open_secrets("kafka_sasl_password", postgres_password=f"file://{file}")

    async def refuse(_: Settings) -> None:
        raise ValueError("hunter2")

    told: list[Settings] = []

    async def take(settings: Settings) -> None:
        told.append(settings)

    opened.secrets.on_change(["postgres_password"], refuse)
    opened.secrets.on_change(["postgres_password"], take)
    file.write_text("new one")
    await eventually(lambda: told, "the second is told")
    assert opened.told == []
    lines = logged()
    assert "secret_change_not_taken" in lines
    assert "hunter2" not in lines


async def test_a_new_version_in_the_vault_server_is_found(open_secrets: Open, secret_mount: SecretMount) -> None:
    path = secret_mount.write("pg", password="old")
    role = secret_mount.approle(secret_mount.policy())
    opened = await open_secrets("postgres_password", **role, postgres_password=f"vault://{path}#password")
    secret_mount.write("pg", password="new")
    await eventually(lambda: opened.told, "the change is told")
    assert opened.value("postgres_password") == "new"


async def test_a_secret_that_is_deleted_keeps_its_value_and_the_failure_is_named(
    open_secrets: Open, secret_mount: SecretMount, logged: Callable[[], str]
) -> None:
    path = secret_mount.write("pg", password="hunter2")
    role = secret_mount.approle(secret_mount.policy())
    opened = await open_secrets("postgres_password", **role, postgres_password=f"vault://{path}#password")
    secret_mount.client.secrets.kv.v2.delete_latest_version_of_secret("pg", mount_point=secret_mount.name)
    await eventually(lambda: opened.count("postgres_password", "failed"), "the failure is counted")
    assert opened.value("postgres_password") == "hunter2"
    lines = logged()
    assert f"vault://{path}#password" in lines
    assert "hunter2" not in lines
    assert role["vault_secret_id"] not in lines


async def test_what_cannot_be_resolved_at_the_start_is_an_error_there(
    open_secrets: Open, secret_mount: SecretMount, tmp_path: Path
) -> None:
    role = secret_mount.approle(secret_mount.policy())
    with pytest.raises(SettingsError, match="OMNIBASE_POSTGRES_PASSWORD"):
        await open_secrets(**role, postgres_password=f"vault://{secret_mount.name}/nowhere#password")
    with pytest.raises(SettingsError, match="OMNIBASE_POSTGRES_PASSWORD"):
        await open_secrets(postgres_password=f"file://{tmp_path / 'absent'}")
    with pytest.raises(DependencyUnavailableError, match="OMNIBASE_POSTGRES_PASSWORD"):
        await open_secrets(vault_addr="http://127.0.0.1:1", vault_token="s.x", postgres_password="vault://a/b#c")


async def works(settings: Settings) -> bool:
    connection = await asyncpg.connect(require_postgres(settings))
    try:
        return bool(await connection.fetchval("SELECT true"))
    finally:
        await connection.close()


async def test_a_login_for_a_while_is_renewed_then_replaced_before_it_ends_and_given_back_at_the_end(
    open_secrets: Open, dynamic_logins: DynamicLogins
) -> None:
    path = await asyncio.to_thread(dynamic_logins.role, ttl="3s", longest="6s")
    role = await asyncio.to_thread(dynamic_logins.mount.approle, dynamic_logins.policy())
    opened = await open_secrets("postgres_password", **role, **dynamic_logins.settings(path))
    first = opened.value("postgres_user")
    assert first is not None
    assert await works(opened.secrets.settings)

    await eventually(lambda: opened.count("postgres_user", "renewed"), "the lease is renewed")
    assert opened.value("postgres_user") == first
    await eventually(lambda: opened.told, "new credentials come before the longest time is over")
    second = opened.value("postgres_user")
    assert second not in (None, first)
    assert await works(opened.secrets.settings)
    assert opened.count("postgres_user", "failed") == 0

    settings = opened.secrets.settings
    await opened.secrets.close()
    with pytest.raises(asyncpg.PostgresError):
        await works(settings)


async def test_leases_are_got_anew_when_the_log_in_they_came_from_has_ended(
    open_secrets: Open, dynamic_logins: DynamicLogins
) -> None:
    path = await asyncio.to_thread(dynamic_logins.role, ttl="1h", longest="2h")
    policy = dynamic_logins.policy()
    role = await asyncio.to_thread(
        lambda: dynamic_logins.mount.approle(policy, token_ttl="2s", token_max_ttl="3s"),
    )
    opened = await open_secrets("postgres_password", **role, **dynamic_logins.settings(path))
    first = opened.value("postgres_user")
    await eventually(lambda: opened.told, "new credentials come with the new log-in")
    assert opened.value("postgres_user") != first
    assert await works(opened.secrets.settings)


async def test_an_outage_of_the_server_is_told_with_the_time_left_and_survived(
    open_secrets: Open, tmp_path: Path, logged: Callable[[], str]
) -> None:
    service = OpenBaoService(tmp_path / "openbao")
    service.prepare()
    service.start()
    try:
        given = service.variables()
        server = OpenBaoServer(given["OMNIBASE_VAULT_ADDR"], given["OMNIBASE_VAULT_TOKEN"], service)
        client = server.root()
        client.secrets.kv.v2.create_or_update_secret("pg", secret={"password": "hunter2"})
        opened = await open_secrets(
            vault_addr=server.address, vault_token=server.token, postgres_password="vault://secret/pg#password"
        )
        await asyncio.to_thread(service.kill)
        await eventually(lambda: opened.count("postgres_password", "failed"), "the outage is counted")
        assert opened.value("postgres_password") == "hunter2"
        await asyncio.to_thread(service.start)
        client.secrets.kv.v2.create_or_update_secret("pg", secret={"password": "hunter3"})
        client.adapter.close()
        await eventually(lambda: opened.value("postgres_password") == "hunter3", "it is read again")
        lines = logged()
        assert "OMNIBASE_POSTGRES_PASSWORD" in lines
        assert "cannot be reached" in lines
        assert "hunter" not in lines
        assert server.token not in lines
    finally:
        service.kill()


async def test_a_new_token_in_its_file_is_used(open_secrets: Open, secret_mount: SecretMount, tmp_path: Path) -> None:
    path = secret_mount.write("pg", password="old")
    policy = secret_mount.policy()
    tokens = [secret_mount.client.auth.token.create(policies=[policy])["auth"]["client_token"] for _ in range(2)]
    file = tmp_path / "token"
    file.write_text(tokens[0])
    opened = await open_secrets(
        vault_addr=secret_mount.server.address,
        vault_token=f"file://{file}",
        postgres_password=f"vault://{path}#password",
    )
    file.write_text(tokens[1])
    await eventually(lambda: opened.value("vault_token") == tokens[1], "the file is read again")
    secret_mount.client.auth.token.revoke(tokens[0])
    secret_mount.write("pg", password="new")
    await eventually(lambda: opened.value("postgres_password") == "new", "the new token reads the new version")
