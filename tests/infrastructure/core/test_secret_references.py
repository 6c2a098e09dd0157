"""References to secrets: their form, where they are taken, and that none is ever taken for the secret itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.secret_references import SecretReference, parse_reference
from omnibase_infra.shared.core.setting_catalogue import OTHER_VARIABLES, setting_entries
from omnibase_infra.shared.core.settings import (
    Settings,
    load_settings,
    require_postgres,
    secret_names,
    secret_references,
    secret_value,
)

NO_FILE = Path(os.devnull)

pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("vault://secret/pg#password", SecretReference("vault", "secret/pg", "password")),
        ("vault://kv/team/a.b/pg#dsn", SecretReference("vault", "kv/team/a.b/pg", "dsn")),
        ("file:///run/secrets/pg", SecretReference("file", "/run/secrets/pg")),
        ("file:///with space", SecretReference("file", "/with space")),
    ],
)
def test_a_reference_says_where_the_secret_is_kept(text: str, reference: SecretReference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text", ["", "hunter2", "postgresql://ada:x@h/d", "vault:secret", "Vault://a/b#c", "x file:///a"]
)
def test_anything_else_is_the_secret_itself(text: str) -> None:
    assert parse_reference(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "vault://secret/pg",
        "vault://secret#password",
        "vault://secret/pg#",
        "vault:///pg#password",
        "vault://secret//pg#password",
        "vault://secret/../pg#password",
        "vault://secret/pg?version=1#password",
        "vault://secret/pg#a#b",
        "file://run/secrets/pg",
        "file:///run/secrets/",
        "file:///run/secrets/pg#password",
    ],
)
def test_a_malformed_reference_is_an_error_that_names_the_setting_and_the_reference(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(NO_FILE, env="dev", kafka_sasl_password=text, vault_token="s.hunter2")
    assert "OMNIBASE_KAFKA_SASL_PASSWORD: " in str(caught.value)
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_every_secret_setting_takes_a_reference_and_no_other_setting_does() -> None:
    assert {"postgres_dsn", "kafka_sasl_password", "vault_token", "kafka_oauth_client_secret"} <= set(secret_names())
    settings = load_settings(NO_FILE, env="dev", **dict.fromkeys(secret_names(), "file:///run/x"))
    assert set(secret_references(settings)) == set(secret_names())

    with pytest.raises(SettingsError, match="OMNIBASE_KAFKA_SSL_CA_LOCATION: takes no reference"):
        load_settings(NO_FILE, env="dev", kafka_ssl_ca_location="file:///run/ca.pem")
    with pytest.raises(SettingsError, match="OMNIBASE_KAFKA_SASL_USERNAME: takes no reference"):
        load_settings(NO_FILE, env="dev", kafka_sasl_username="vault://secret/kafka#user")


def test_all_problems_of_references_and_names_come_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(NO_FILE, env="dev", tenant="A_b", postgres_dsn="vault://a", vault_token="file://b")
    text = str(caught.value)
    assert all(f"OMNIBASE_{name}: " in text for name in ("TENANT", "POSTGRES_DSN", "VAULT_TOKEN"))


def test_an_unresolved_reference_is_never_used_as_the_secret() -> None:
    settings = load_settings(NO_FILE, env="dev", postgres_dsn="vault://secret/pg#dsn")
    with pytest.raises(SettingsError, match="OMNIBASE_POSTGRES_DSN is the reference vault://secret/pg#dsn"):
        require_postgres(settings)
    with pytest.raises(SettingsError, match="was not resolved"):
        secret_value(settings, "postgres_dsn")
    assert secret_value(settings, "vault_token") is None


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ({}, "postgresql://ada:old@h1:1,h2:2/db?sslmode=verify-full"),
        ({"postgres_password": "n/e:w@"}, "postgresql://ada:n%2Fe%3Aw%40@h1:1,h2:2/db?sslmode=verify-full"),
        ({"postgres_user": "b", "postgres_password": "n"}, "postgresql://b:n@h1:1,h2:2/db?sslmode=verify-full"),
        ({"postgres_user": "b"}, "postgresql://b:old@h1:1,h2:2/db?sslmode=verify-full"),
    ],
)
def test_user_and_password_may_be_given_apart_from_the_address(given: dict[str, str], result: str) -> None:
    dsn = "postgresql://ada:old@h1:1,h2:2/db?sslmode=verify-full"
    assert require_postgres(load_settings(NO_FILE, env="dev", postgres_dsn=dsn, **given)) == result


def test_every_setting_has_a_type_a_default_a_meaning_and_a_place_in_the_reference_page() -> None:
    entries = {entry.name: entry for entry in setting_entries()}
    assert set(entries) == set(Settings.model_fields)
    assert all(entry.type and entry.default and entry.meaning.endswith((".", "…")) for entry in entries.values())
    timed = [name for name in entries if name.endswith("_seconds")]
    assert {entries[name].unit for name in timed} == {"seconds"}
    page = (Path(__file__).parents[3] / "docs" / "guides" / "CONFIGURATION.md").read_text(encoding="utf-8")
    assert all(f"| `{entry.variable}` |" in page for entry in entries.values())
    assert all(f"| `{name}` |" in page for name in OTHER_VARIABLES)


def test_no_address_and_no_secret_has_a_default() -> None:
    defaults = {entry.name: entry.default for entry in setting_entries()}
    wanted = [*secret_names(), "kafka_bootstrap_servers", "vault_addr", "kafka_oauth_token_endpoint_url"]
    assert {defaults[name] for name in wanted} == {"unset"}
    local = {name for name, default in defaults.items() if "localhost" in default or "127.0.0.1" in default}
    assert local == {"health_host"}, "where we listen; everything we connect to has to be given"
