"""Resolving references once: every problem at once, by setting and reference, and never a value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.settings import Settings, load_settings, secret_value
from omnibase_infra.shared.secrets import resolve_secrets
from omnibase_infra.shared.testing.openbao_fixtures import OpenBaoServer, SecretMount

pytestmark = pytest.mark.usefixtures("no_environment")


def given(**values: Any) -> Settings:
    return load_settings(Path("absent"), env="test", **values)


def test_settings_without_references_come_back_as_they_are() -> None:
    settings = given(kafka_sasl_password="hunter2")
    assert resolve_secrets(settings) is settings


@pytest.mark.parametrize("content", ["hunter2", "hunter2\n", "hunter2\r\n"])
def test_a_file_holds_the_secret_and_perhaps_a_line_break(tmp_path: Path, content: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content.encode())
    settings = resolve_secrets(given(kafka_sasl_password=f"file://{file}"))
    assert secret_value(settings, "kafka_sasl_password") == "hunter2"
    assert "hunter2" not in repr(settings)


def test_every_file_that_cannot_be_had_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"hunter2\xff")
    (tmp_path / "large").write_text("hunter2" * 200_000)
    (tmp_path / "folder").mkdir()
    names = {
        "postgres_dsn": "empty",
        "kafka_sasl_password": "binary",
        "vault_token": "large",
        "kafka_oauth_client_secret": "absent",
        "kafka_ssl_key_password": "folder",
    }
    with pytest.raises(SettingsError) as caught:
        resolve_secrets(given(**{name: f"file://{tmp_path / file}" for name, file in names.items()}))
    text = str(caught.value)
    for name, file in names.items():
        assert f"OMNIBASE_{name.upper()} (from file://{tmp_path / file}) " in text
    for reason in ("is empty", "it is not UTF-8", "is longer than 1048576 bytes", "No such file", "Is a directory"):
        assert reason in text
    assert "hunter2" not in text


def test_values_come_from_the_vault_server_whose_token_may_come_from_a_file(
    tmp_path: Path, secret_mount: SecretMount
) -> None:
    path = secret_mount.write("pg", dsn="postgresql://ada:hunter2@host/db", user="bob")
    (tmp_path / "token").write_text(secret_mount.server.token)
    settings = resolve_secrets(
        given(
            vault_addr=secret_mount.server.address,
            vault_token=f"file://{tmp_path / 'token'}",
            postgres_dsn=f"vault://{path}#dsn",
            postgres_user=f"vault://{path}#user",
        )
    )
    assert secret_value(settings, "postgres_dsn") == "postgresql://ada:hunter2@host/db"
    assert secret_value(settings, "postgres_user") == "bob"


def test_every_problem_of_the_vault_server_s_secrets_is_named_at_once(secret_mount: SecretMount) -> None:
    path = secret_mount.write("pg", dsn="hunter2", empty="")
    role = secret_mount.approle(secret_mount.policy())
    with pytest.raises(SettingsError) as caught:
        resolve_secrets(
            given(
                **role,
                postgres_dsn=f"vault://{path}#password",
                postgres_password=f"vault://{path}#empty",
                kafka_sasl_password=f"vault://{secret_mount.name}/nowhere#x",
                kafka_ssl_key_password="vault://secret/of-others#x",
            )
        )
    text = str(caught.value)
    assert f"OMNIBASE_POSTGRES_DSN (from vault://{path}#password) has no such key" in text
    assert f"OMNIBASE_POSTGRES_PASSWORD (from vault://{path}#empty) has no such key" in text
    assert f"OMNIBASE_KAFKA_SASL_PASSWORD (from vault://{secret_mount.name}/nowhere#x) was refused" in text
    assert "OMNIBASE_KAFKA_SSL_KEY_PASSWORD (from vault://secret/of-others#x) was refused" in text
    assert "hunter2" not in text
    assert role["vault_secret_id"] not in text


def test_the_log_in_of_the_vault_server_cannot_lie_in_it() -> None:
    with pytest.raises(SettingsError, match=r"OMNIBASE_VAULT_TOKEN \(from vault://a/b#c\) is what it takes to log in"):
        resolve_secrets(given(vault_addr="http://127.0.0.1:1", vault_token="vault://a/b#c"))


def test_a_reference_without_a_server_says_which_setting_needs_one() -> None:
    with pytest.raises(SettingsError, match="OMNIBASE_VAULT_ADDR is not set") as caught:
        resolve_secrets(given(postgres_dsn="vault://a/b#c", vault_token="s.x"))
    assert "OMNIBASE_POSTGRES_DSN" in caught.value.hint


def test_a_server_that_is_away_is_an_outage_and_no_mistake_of_people() -> None:
    with pytest.raises(
        DependencyUnavailableError, match=r"OMNIBASE_POSTGRES_DSN \(from vault://a/b#c\) cannot be read"
    ):
        resolve_secrets(given(vault_addr="http://127.0.0.1:1", vault_token="s.x", postgres_dsn="vault://a/b#c"))


@pytest.mark.parametrize(("reference", "imported"), [("file:///dev/null/x", False), ("vault://a/b#c", True)])
def test_hvac_is_imported_only_for_a_reference_to_a_vault_server(reference: str, imported: bool) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from omnibase_infra.shared.core.settings import load_settings\n"
        "from omnibase_infra.shared.secrets import resolve_secrets\n"
        f"settings = load_settings(Path('absent'), env='test', postgres_dsn={reference!r})\n"
        "try:\n    resolve_secrets(settings)\nexcept Exception as error:\n    print(type(error).__name__)\n"
        "print('hvac' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["SettingsError", str(imported)]


def test_the_server_is_asked_once_for_all_values_of_a_secret(
    openbao_container: OpenBaoServer, secret_mount: SecretMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnibase_infra.shared.vault.vault_client import VaultClient, VaultSecret

    path = secret_mount.write("pg", user="a", password="b")
    asked: list[str] = []
    real = VaultClient.read

    def read(self: VaultClient, path: str) -> VaultSecret:
        asked.append(path)
        return real(self, path)

    monkeypatch.setattr(VaultClient, "read", read)
    references = {f"postgres_{key}": f"vault://{path}#{key}" for key in ("user", "password")}
    resolve_secrets(given(vault_addr=openbao_container.address, vault_token=openbao_container.token, **references))
    assert asked == [path]
