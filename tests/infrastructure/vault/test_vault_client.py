"""The client on a real OpenBao server: engines, leases, log-in, and one clear error for each refusal."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.local_services import OpenBaoService
from omnibase_infra.shared.testing.certificates import TestAuthority
from omnibase_infra.shared.testing.openbao_fixtures import OpenBaoServer, SecretMount
from omnibase_infra.shared.vault.errors import VaultLeaseEndedError, VaultRefusedError, VaultSecretMissingError
from omnibase_infra.shared.vault.vault_client import Lease, VaultClient, VaultOptions

pytestmark = pytest.mark.usefixtures("no_environment")

Connect = Callable[..., VaultClient]


def options(**values: Any) -> VaultOptions:
    return VaultOptions.from_settings(load_settings(Path("absent"), **({"env": "test"} | values)))


@pytest.fixture
def connect(openbao_container: OpenBaoServer) -> Iterator[Connect]:
    """Make clients of the server; by default root's."""
    clients: list[VaultClient] = []

    def make(**values: Any) -> VaultClient:
        given = {"vault_addr": openbao_container.address, "vault_token": openbao_container.token}
        clients.append(VaultClient(options(**(values or given))))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_the_newest_version_of_a_secret_is_read(connect: Connect, secret_mount: SecretMount) -> None:
    path = secret_mount.write("team/pg", password="old")
    secret_mount.write("team/pg", password="new", port=5432, hosts=["a", "b"])
    secret = connect().read(path)
    assert secret.values == {"password": "new", "port": "5432", "hosts": '["a","b"]'}
    assert secret.lease is None
    assert "new" not in repr(secret)


def test_an_engine_without_versions_is_read_likewise(connect: Connect, secret_mount: SecretMount) -> None:
    mount = f"{secret_mount.name}-v1"
    secret_mount.client.sys.enable_secrets_engine("kv", path=mount, options={"version": "1"})
    try:
        secret_mount.client.secrets.kv.v1.create_or_update_secret("pg", secret={"password": "x"}, mount_point=mount)
        assert connect().read(f"{mount}/pg").values == {"password": "x"}
    finally:
        secret_mount.client.sys.disable_secrets_engine(mount)


def test_a_secret_that_is_not_there_or_deleted_is_missing(connect: Connect, secret_mount: SecretMount) -> None:
    path = secret_mount.write("pg", password="x")
    secret_mount.client.secrets.kv.v2.delete_latest_version_of_secret("pg", mount_point=secret_mount.name)
    with pytest.raises(VaultSecretMissingError):
        connect().read(path)
    with pytest.raises(VaultSecretMissingError, match="there is no such secret"):
        connect().read(f"{secret_mount.name}/nowhere")


def test_what_the_policy_does_not_allow_is_refused(connect: Connect, secret_mount: SecretMount) -> None:
    role = secret_mount.approle(secret_mount.policy())
    client = connect(**role)
    assert client.read(secret_mount.write("pg", password="x")).values == {"password": "x"}
    with pytest.raises(VaultRefusedError):
        client.read("secret/of-others")


def test_a_wrong_token_and_a_wrong_secret_id_are_refused_without_being_shown(
    connect: Connect, secret_mount: SecretMount
) -> None:
    address = secret_mount.server.address
    role = dict(secret_mount.approle(secret_mount.policy()))
    for client in (
        connect(vault_addr=address, vault_token="s.hunter2"),
        connect(**(role | {"vault_secret_id": "hunter2"})),
    ):
        with pytest.raises(VaultRefusedError) as caught:
            client.read("secret/pg")
        assert "hunter2" not in str(caught.value) + repr(client)


def test_a_token_with_a_line_break_is_a_mistake_of_people_and_no_outage(connect: Connect) -> None:
    client = connect(vault_addr="http://127.0.0.1:1", vault_token="s.hunter2\nx")
    with pytest.raises(SettingsError, match="holds a line break") as caught:
        client.read("secret/pg")
    assert "hunter2" not in str(caught.value)


def test_a_token_of_an_approle_is_replaced_when_it_was_revoked(connect: Connect, secret_mount: SecretMount) -> None:
    path = secret_mount.write("pg", password="x")
    client = connect(**secret_mount.approle(secret_mount.policy(), token_ttl="1h"))
    lease = client.log_in()
    assert lease.renewable
    assert client.log_ins == 1
    secret_mount.client.auth.token.revoke(client._client.token)
    assert client.read(path).values == {"password": "x"}
    assert client.log_ins == 2


def test_a_token_is_renewed_until_its_longest_time(connect: Connect, secret_mount: SecretMount) -> None:
    made = secret_mount.client.auth.token.create(policies=["default"], ttl="30s", explicit_max_ttl="1h")
    client = connect(vault_addr=secret_mount.server.address, vault_token=made["auth"]["client_token"])
    before = client.token_lease()
    assert before is not None
    assert 0 < before.seconds <= 30
    assert client.renew_token().seconds == 30


def test_root_s_token_has_no_end(connect: Connect) -> None:
    assert connect().token_lease() is None


def test_a_lease_that_has_ended_is_told_apart(connect: Connect) -> None:
    with pytest.raises(VaultLeaseEndedError):
        connect().renew(Lease("database/creds/app/gone", 60, renewable=True))


def test_a_server_that_is_sealed_or_gone_is_not_available(tmp_path: Path, connect: Connect) -> None:
    service = OpenBaoService(tmp_path / "openbao")
    service.prepare()
    service.start()
    try:
        given = service.variables()
        client = connect(vault_addr=given["OMNIBASE_VAULT_ADDR"], vault_token=given["OMNIBASE_VAULT_TOKEN"])
        client._client.sys.seal()
        with pytest.raises(DependencyUnavailableError, match="it is sealed"):
            client.read("secret/pg")
        service.kill()
        with pytest.raises(DependencyUnavailableError, match="it cannot be reached"):
            client.read("secret/pg")
    finally:
        service.kill()


class SealedOverTls(BaseHTTPRequestHandler):
    """Answers as a sealed server does, for a client that trusts the certificate."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"errors": ["Vault is sealed"]}')

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


def test_the_server_s_certificate_is_verified_by_the_ca_of_the_settings(tmp_path: Path, connect: Connect) -> None:
    authority, stranger = TestAuthority(tmp_path), TestAuthority(tmp_path, "stranger")
    files = authority.server("vault")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.chain, files.key)
    with HTTPServer(("127.0.0.1", 0), SealedOverTls) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"https://localhost:{server.server_port}"
        for given, reason in (
            ({"vault_ca_location": authority.certificate}, "it is sealed"),
            ({"vault_ca_location": stranger.certificate}, "its certificate cannot be verified"),
            ({}, "its certificate cannot be verified"),
        ):
            client = connect(vault_addr=address, vault_token="s.x", **given)
            with pytest.raises(DependencyUnavailableError, match=reason):
                client.read("secret/pg")
        server.shutdown()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "OMNIBASE_VAULT_ADDR is not set"),
        ({}, "OMNIBASE_VAULT_TOKEN is not set, nor are"),
        ({"vault_role_id": "r"}, "OMNIBASE_VAULT_TOKEN is not set, nor are"),
        ({"vault_addr": "host:8200"}, "OMNIBASE_VAULT_ADDR is not a URL"),
        ({"vault_addr": "http://h:1", "env": "prod"}, "OMNIBASE_VAULT_ADDR is http://"),
        ({"vault_token": "t", "vault_role_id": "r"}, "OMNIBASE_VAULT_TOKEN has no effect beside an AppRole"),
        ({"vault_ca_location": "/nowhere/ca.pem"}, "OMNIBASE_VAULT_CA_LOCATION: /nowhere/ca.pem is no file"),
    ],
)
def test_settings_that_do_not_fit_together_are_told_before_anything_is_asked(
    given: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        options(**given)
