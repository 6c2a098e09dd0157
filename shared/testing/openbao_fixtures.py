"""pytest fixtures on a real OpenBao server, which speaks Vault's API: one server per test process, one mount per test.

Name this module in `pytest_plugins`, or import the fixtures into a `conftest.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import hvac
import pytest

from omnibase_infra.shared.local_services import OpenBaoService


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
