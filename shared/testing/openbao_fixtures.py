"""pytest fixtures on a real OpenBao server, which speaks Vault's API: one server per test process, one mount per test.

Name this module in `pytest_plugins`, or import the fixtures into a `conftest.py`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import hvac
import pytest

from omnibase_infra.shared.local_services import OpenBaoService
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

READY_SECONDS: Final = 10.0


@dataclass(frozen=True)
class OpenBaoServer:
    """A running server.

    Attributes:
        address: of its API.
        token: of root.
        service: for tests that stop or signal it.
    """

    address: str
    token: str
    service: OpenBaoService

    def __repr__(self) -> str:
        return f"OpenBaoServer({self.address})"

    def root(self) -> hvac.Client:
        """Return a client that may do anything; close its adapter."""
        return hvac.Client(url=self.address, token=self.token, timeout=10)


class SecretMount:
    """A key-value engine (version 2) of one test, and what a test needs around it."""

    def __init__(self, server: OpenBaoServer, client: hvac.Client) -> None:
        self.server = server
        self.client = client
        self.name = f"kv-{secrets.token_hex(4)}"
        client.sys.enable_secrets_engine("kv", path=self.name, options={"version": "2"})
        self._wait_until_versioned()

    def _wait_until_versioned(self) -> None:
        """Wait for what a new engine does for a moment, during which it refuses everything."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.client.secrets.kv.v2.create_or_update_secret("ready", {"yes": "1"}, mount_point=self.name)
            except hvac.exceptions.InvalidRequest:
                assert time.monotonic() < deadline, f"{self.name} is not ready after {READY_SECONDS:g} s"
                time.sleep(0.02)
            else:
                return

    def write(self, path: str, **values: Any) -> str:
        """Put a new version of a secret and return its path with the mount."""
        self.client.secrets.kv.v2.create_or_update_secret(path, secret=values, mount_point=self.name)
        return f"{self.name}/{path}"

    def policy(self, *rules: str) -> str:
        """Create a policy that may read this mount, with further rules in OpenBao's language; return its name."""
        own = f'path "{self.name}/*" {{ capabilities = ["read"] }}'
        self.client.sys.create_or_update_policy(self.name, "\n".join((own, *rules)))
        return self.name

    def approle(self, policy: str, **options: Any) -> Mapping[str, str]:
        """Create an AppRole with this policy; return the settings that log in by it."""
        if "approle/" not in self.client.sys.list_auth_methods()["data"]:
            self.client.sys.enable_auth_method("approle")
        role = self.client.auth.approle
        role.create_or_update_approle(self.name, token_policies=[policy], **options)
        return {
            "vault_addr": self.server.address,
            "vault_role_id": role.read_role_id(self.name)["data"]["role_id"],
            "vault_secret_id": role.generate_secret_id(self.name)["data"]["secret_id"],
        }


class DynamicLogins:
    """A database engine of OpenBao that makes PostgreSQL logins for a while."""

    def __init__(self, mount: SecretMount, database: PostgresDatabase) -> None:
        """Mount the engine and tell it how to reach the database."""
        self.mount = mount
        self.name = f"db-{mount.name}"
        self._dsn = database.dsn
        place = urlsplit(database.dsn)
        client = mount.client
        client.sys.enable_secrets_engine("database", path=self.name)
        client.secrets.database.configure(
            "pg",
            plugin_name="postgresql-database-plugin",
            connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{place.hostname}:{place.port}{place.path}",
            username=place.username,
            password=place.password,
            allowed_roles=["*"],
            mount_point=self.name,
        )

    def role(self, *, ttl: str, longest: str, attributes: str = "") -> str:
        """Make a role and return the path of its credentials."""
        self.mount.client.secrets.database.create_role(
            "app",
            db_name="pg",
            creation_statements=[
                f"CREATE ROLE \"{{{{name}}}}\" LOGIN {attributes} PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}'",
            ],
            default_ttl=ttl,
            max_ttl=longest,
            mount_point=self.name,
        )
        return f"{self.name}/creds/app"

    def policy(self) -> str:
        """Create a policy that may read logins and renew their leases; return its name."""
        return self.mount.policy(
            f'path "{self.name}/*" {{ capabilities = ["read"] }}',
            'path "sys/leases/*" { capabilities = ["update"] }',
        )

    def settings(self, path: str) -> dict[str, str]:
        """Return settings that take a login from there."""
        return {
            "postgres_dsn": self._dsn,
            "postgres_user": f"vault://{path}#username",
            "postgres_password": f"vault://{path}#password",
        }

    def close(self) -> None:
        """End all logins and unmount the engine."""
        self.mount.client.sys.revoke_prefix(f"{self.name}/")
        self.mount.client.sys.disable_secrets_engine(self.name)


@pytest.fixture(scope="session")
def openbao_container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBaoServer]:
    """A real OpenBao for the whole test process."""
    service = OpenBaoService(tmp_path_factory.mktemp("openbao") / "openbao")
    service.prepare()
    service.start()
    variables = service.variables()
    yield OpenBaoServer(variables["OMNIBASE_VAULT_ADDR"], variables["OMNIBASE_VAULT_TOKEN"], service)
    service.kill()
    service.delete_data()


@pytest.fixture
def secret_mount(openbao_container: OpenBaoServer) -> Iterator[SecretMount]:
    """A key-value engine of this test alone."""
    client = openbao_container.root()
    mount = SecretMount(openbao_container, client)
    yield mount
    client.sys.disable_secrets_engine(mount.name)
    client.adapter.close()


@pytest.fixture
async def dynamic_logins(secret_mount: SecretMount, postgres_test_db: PostgresDatabase) -> AsyncIterator[DynamicLogins]:
    """Logins for a while to the test's database."""
    logins = await asyncio.to_thread(DynamicLogins, secret_mount, postgres_test_db)
    yield logins
    await asyncio.to_thread(logins.close)
