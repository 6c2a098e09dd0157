"""Process settings: read once, checked together, and no error or repr shows a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import (
    load_settings,
    read_env_file,
    require_kafka,
    require_postgres,
    state_directory,
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Leave no variable of ours in the environment and no file of ours in reach."""
    import os

    for name in [name for name in os.environ if name.startswith("OMNIBASE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path))
    return tmp_path / "env"


def test_the_environment_is_required_since_it_decides_every_name() -> None:
    with pytest.raises(SettingsError, match="OMNIBASE_ENV: Field required"):
        load_settings()


def test_addresses_have_no_default() -> None:
    settings = load_settings(env="dev")

    with pytest.raises(SettingsError, match="OMNIBASE_KAFKA_BOOTSTRAP_SERVERS is not set"):
        require_kafka(settings)
    with pytest.raises(SettingsError, match="OMNIBASE_POSTGRES_DSN is not set"):
        require_postgres(settings)


def test_explicit_values_win_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    clean_environment.write_text("OMNIBASE_ENV=local\nOMNIBASE_TENANT=file\nOMNIBASE_KAFKA_BOOTSTRAP_SERVERS=file:1\n")
    assert load_settings().realm == Realm("local", "file")

    monkeypatch.setenv("OMNIBASE_TENANT", "shell")
    assert load_settings().realm == Realm("local", "shell")

    settings = load_settings(tenant="given")
    assert settings.realm == Realm("local", "given")
    assert require_kafka(settings) == "file:1"


def test_an_empty_variable_of_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    clean_environment.write_text("OMNIBASE_ENV=dev\nOMNIBASE_TENANT=file\n")
    monkeypatch.setenv("OMNIBASE_TENANT", "")

    assert load_settings().realm == Realm("dev")


def test_every_problem_is_reported_at_once_and_by_the_variable_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_ENV", "production")
    monkeypatch.setenv("OMNIBASE_HEALTH_PORT", "70000")
    monkeypatch.setenv("OMNIBASE_POSTGRES_POOL_MAX", "many")
    monkeypatch.setenv("OMNIBASE_SHUTDOWN_GRACE_SECONDS", "nan")

    with pytest.raises(SettingsError) as caught:
        load_settings()

    text = str(caught.value)
    for name in (
        "OMNIBASE_ENV",
        "OMNIBASE_HEALTH_PORT",
        "OMNIBASE_POSTGRES_POOL_MAX",
        "OMNIBASE_SHUTDOWN_GRACE_SECONDS",
    ):
        assert f"{name}: " in text
    assert "70000" not in text
    assert "many" not in text


@pytest.mark.parametrize("tenant", ["Acme", "a_b", "a.b", "a--b", "a" * 25])
def test_a_tenant_that_breaks_the_grammar_is_found_at_the_start(tenant: str) -> None:
    with pytest.raises(SettingsError, match="OMNIBASE_TENANT: "):
        load_settings(env="dev", tenant=tenant)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_POSTGRES_DSN", "postgresql://ada:hunter2@host/db")
    monkeypatch.setenv("OMNIBASE_KAFKA_SASL_PASSWORD", "hunter2")
    settings = load_settings(env="dev")

    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())
    assert require_postgres(settings) == "postgresql://ada:hunter2@host/db"

    monkeypatch.setenv("OMNIBASE_KAFKA_SECURITY_PROTOCOL", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings(env="dev")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_settings_do_not_change() -> None:
    settings = load_settings(env="dev")
    with pytest.raises(Exception, match="frozen"):
        settings.tenant = "other"


def test_an_env_file_holds_names_values_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "some-env"
    file.write_text("# made by infra up\n\nA=1\n B = x=y \nEMPTY=\n")

    assert read_env_file(tmp_path / "absent") == {}
    with pytest.raises(SettingsError, match=r"some-env:4: expected NAME=value"):
        read_env_file(file)

    file.write_text("A=1\nB=x=y\nEMPTY=\n")
    assert read_env_file(file) == {"A": "1", "B": "x=y", "EMPTY": ""}


@pytest.mark.parametrize("line", ["novalue", "1A=x", "=x", "export A=x", "A-B=x"])
def test_a_malformed_line_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    file = tmp_path / "some-env"
    file.write_text(f"OK=1\n{line}\n")

    with pytest.raises(SettingsError, match=r"some-env:2: expected NAME=value$"):
        read_env_file(file)


def test_the_state_directory_is_the_nearest_one_upwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMNIBASE_STATE_DIR")
    project = tmp_path / "project with space"
    inner = project / "a" / "b"
    inner.mkdir(parents=True)
    (project / "pyproject.toml").touch()
    assert state_directory(inner) == project / ".omnibase"

    (project / "a" / ".omnibase").mkdir()
    assert state_directory(inner) == project / "a" / ".omnibase"

    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path / "elsewhere"))
    assert state_directory(inner) == tmp_path / "elsewhere"
