"""`omninode config`: everything that is wrong at once, and values with where they come from; never a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from omnibase_infra.shared.cli.config import app
from omnibase_infra.shared.core.settings import secret_names, variable
from omnibase_infra.shared.testing.openbao_fixtures import SecretMount

Run = Callable[..., Result]
KAFKA = {"OMNIBASE_ENV": "test", "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}


@pytest.fixture
def config(no_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path))

    def call(*arguments: str, **variables: str) -> Result:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(app, list(arguments))

    return call


def test_settings_that_are_complete_pass(config: Run) -> None:
    result = config("check", "postgres_adapter", OMNIBASE_POSTGRES_DSN="postgresql://a:b@pg/db", **KAFKA)
    assert (result.exit_code, result.stdout) == (0, "")


def test_everything_that_is_wrong_is_told_at_once(config: Run, tmp_path: Path) -> None:
    result = config(
        "check",
        "postgres_adapter",
        OMNIBASE_ENV="test",
        OMNIBASE_KAFKA_SASL_PASWORD="hunter2",
        OMNIBASE_KAFKA_SASL_MECHANISM="PLAIN",
        OMNIBASE_KAFKA_SASL_PASSWORD=f"file://{tmp_path}/absent",
        OMNIBASE_VAULT_TOKEN="hunter2",
    )
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    for beginning in (
        "OMNIBASE_KAFKA_SASL_PASWORD is no setting; did you mean OMNIBASE_KAFKA_SASL_PASSWORD?",
        f"OMNIBASE_KAFKA_SASL_PASSWORD (from file://{tmp_path}/absent) cannot be read",
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS is not set",
        "OMNIBASE_KAFKA_SASL_MECHANISM has no effect with PLAINTEXT",
        "OMNIBASE_KAFKA_SASL_PASSWORD has no effect with PLAINTEXT",
        "OMNIBASE_POSTGRES_DSN is not set",
    ):
        assert any(line.startswith(beginning) for line in lines), beginning
    assert "hunter2" not in result.output


def test_malformed_values_are_told_without_the_values(config: Run) -> None:
    result = config("check", OMNIBASE_ENV="hunter2", OMNIBASE_HEALTH_PORT="hunter2")
    assert result.exit_code == 2
    assert len(result.stdout.splitlines()) == 2
    assert "hunter2" not in result.output


def test_references_are_resolved_unless_told_otherwise(config: Run, secret_mount: SecretMount) -> None:
    variables = KAFKA | {
        "OMNIBASE_VAULT_ADDR": secret_mount.server.address,
        "OMNIBASE_VAULT_TOKEN": secret_mount.server.token,
        "OMNIBASE_POSTGRES_DSN": f"vault://{secret_mount.name}/pg#dsn",
    }
    result = config("check", **variables)
    assert result.exit_code == 2
    assert f"OMNIBASE_POSTGRES_DSN (from vault://{secret_mount.name}/pg#dsn) was refused" in result.stdout
    assert config("check", "--offline").exit_code == 0
    secret_mount.write("pg", dsn="hunter2")
    result = config("check")
    assert result.stdout.startswith("OMNIBASE_POSTGRES_DSN is malformed")
    assert "hunter2" not in result.output
    secret_mount.write("pg", dsn="postgresql://ada:hunter2@pg/db")
    assert config("check").exit_code == 0


def test_an_unknown_node_is_told(config: Run) -> None:
    assert config("check", "nobody", **KAFKA).exit_code == 2


def test_values_are_shown_with_their_source_and_secrets_are_not(config: Run, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("OMNIBASE_LOG_LEVEL=debug\nOMNIBASE_TENANT=acme\n")
    secrets = {variable(name): "hunter2" for name in secret_names()}
    secrets |= {"OMNIBASE_KAFKA_SASL_PASSWORD": "vault://kv/kafka#password", "OMNIBASE_SECRT": "hunter2"}
    result = config("show", "--json", OMNIBASE_TENANT="other", **secrets)
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    shown = {one["variable"]: one for one in json.loads(result.stdout)}
    assert shown["OMNIBASE_LOG_LEVEL"] | {"known": True} == {
        "variable": "OMNIBASE_LOG_LEVEL",
        "value": "debug",
        "source": str(tmp_path / "env"),
        "known": True,
    }
    assert (shown["OMNIBASE_TENANT"]["value"], shown["OMNIBASE_TENANT"]["source"]) == ("other", "environment")
    assert shown["OMNIBASE_LOG_FORMAT"]["source"] == "default"
    assert shown["OMNIBASE_KAFKA_SASL_PASSWORD"]["value"] == "vault://kv/kafka#password"
    assert shown["OMNIBASE_POSTGRES_DSN"]["value"] == "***"
    assert shown["OMNIBASE_SECRT"]["known"] is False
    assert "OMNIBASE_ENV" not in shown
    assert "OMNIBASE_ENV" in config("show", "--all").stdout


def test_credentials_in_a_value_that_is_no_secret_are_masked_all_the_same(config: Run) -> None:
    result = config("show", OMNIBASE_VAULT_ADDR="https://ada:hunter2@vault:8200")
    assert "hunter2" not in result.output
    assert "vault:8200" in result.stdout
