"""Process settings: the only module that reads the environment.

Every value comes from an `OMNIBASE_*` variable or from the file that `omninode infra up` wrote
(`.omnibase/env`); the environment wins. Addresses have no default: a worker never falls back to localhost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from omnibase_infra.shared.core.errors import InvalidNameError, SettingsError
from omnibase_infra.shared.core.naming import Environment, Realm

STATE_DIRECTORY = ".omnibase"
ENV_FILE = "env"


class Settings(BaseSettings):
    """What a process needs to know about its surroundings. Units are in the names or descriptions."""

    model_config = SettingsConfigDict(env_prefix="OMNIBASE_", extra="ignore", frozen=True, hide_input_in_errors=True)

    env: Environment = Field(description="Environment part of the realm: local, dev, test, staging or prod.")
    tenant: str = Field("", description="Tenant part of the realm; empty for none.")

    kafka_bootstrap_servers: str | None = Field(None, description="Broker addresses, host:port, comma-separated.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_oauth_token_endpoint_url: str | None = Field(None, description="OIDC token endpoint for OAUTHBEARER.")
    kafka_oauth_client_id: str | None = None
    kafka_oauth_client_secret: SecretStr | None = None
    kafka_oauth_scope: str | None = None
    kafka_ssl_ca_location: Path | None = Field(None, description="CA bundle that signs the brokers' certificates.")
    kafka_ssl_certificate_location: Path | None = Field(None, description="Client certificate, for mTLS.")
    kafka_ssl_key_location: Path | None = Field(None, description="Client key, for mTLS.")
    kafka_ssl_key_password: SecretStr | None = None
    kafka_group_protocol: Literal["classic", "consumer"] = Field(
        "classic", description="`classic` is cooperative-sticky, `consumer` is KIP-848."
    )
    kafka_group_instance_id: str | None = Field(None, description="Static membership id, for example the pod's name.")
    kafka_session_timeout_seconds: float = Field(45.0, ge=6, le=1800)
    kafka_replication_factor: int | None = Field(
        None, ge=1, description="Replication factor of topics; unset: 3 in prod and staging, else 1."
    )

    postgres_dsn: SecretStr | None = Field(None, description="postgresql://user:password@host:port/database?sslmode=…")
    postgres_pool_min: int = Field(1, ge=0, le=1000, description="Connections kept open.")
    postgres_pool_max: int = Field(10, ge=1, le=1000, description="Connections at most.")
    postgres_acquire_timeout_seconds: float = Field(5.0, gt=0)
    postgres_statement_timeout_seconds: float = Field(30.0, gt=0)
    postgres_lock_timeout_seconds: float = Field(5.0, gt=0)
    postgres_query_role: str | None = Field(
        None, description="Read-only role under which `query` runs SQL text; unset: `query` is switched off."
    )
    postgres_inbox_keep_days: int = Field(
        35,
        ge=1,
        le=3650,
        description="How long inbox and outbox remember a message; a worker whose topics keep longer sees to more.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    health_host: str = Field("127.0.0.1", description="Address of /livez, /readyz, /metrics and /info.")
    health_port: int = Field(0, ge=0, le=65535, description="Port of the endpoints; 0 picks a free one.")
    max_in_flight_records: int = Field(20_000, ge=1, description="Records inside a worker before partitions pause.")
    max_in_flight_bytes: int = Field(64 * 1024 * 1024, ge=1024, description="Bytes inside a worker, likewise.")
    max_parked_records: int = Field(
        10_000, ge=1, description="Parked records kept in memory; others are read again when they are due."
    )
    max_parked_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Bytes of parked records in memory, likewise.")
    max_record_bytes: int = Field(1024 * 1024, ge=1024, description="Largest record value that is decoded.")
    shutdown_grace_seconds: float = Field(25.0, gt=0, description="Time to drain after SIGTERM.")
    revoke_budget_seconds: float = Field(10.0, gt=0, description="Time to finish work of partitions taken away.")
    workers_path: str = Field("", description="Folders with further nodes, separated by ':'.")

    @property
    def realm(self) -> Realm:
        """Return the realm of this process."""
        return Realm(self.env, self.tenant)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read explicit values first, then the environment; files are merged by `load_settings`."""
        return init_settings, env_settings


def state_directory(start: Path | None = None) -> Path:
    """Return the `.omnibase` folder that belongs to `start` (default: the working directory).

    The nearest one upwards that exists, else the one beside the nearest `pyproject.toml` or `.git`,
    else one in `start` itself. `OMNIBASE_STATE_DIR` overrides it.
    """
    if override := os.environ.get("OMNIBASE_STATE_DIR"):
        return Path(override).resolve()
    here = (start or Path.cwd()).resolve()
    ancestry = [here, *here.parents]
    for folder in ancestry:
        if (folder / STATE_DIRECTORY).is_dir():
            return folder / STATE_DIRECTORY
    for folder in ancestry:
        if (folder / "pyproject.toml").exists() or (folder / ".git").exists():
            return folder / STATE_DIRECTORY
    return here / STATE_DIRECTORY


def cache_directory() -> Path:
    """Return the user's cache folder of this project: `$XDG_CACHE_HOME/omnibase-infra`, else in `~/.cache`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative values ignored.
    root = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return root / "omnibase-infra"


def environment_values(names: Iterable[str]) -> dict[str, str]:
    """Return those of the variables that the environment itself sets to something, apart from any file."""
    return {name: value for name in names if (value := os.environ.get(name))}


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file of `NAME=value` lines; `#` starts a comment line.

    Raises:
        SettingsError: a line is neither, with its number.
    """
    if not path.exists():
        return {}
    variables: dict[str, str] = {}
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not name.isidentifier():
            raise SettingsError(f"{path}:{number}: expected NAME=value")
        variables[name] = value
    return variables


def load_settings(env_file: Path | None = None, **overrides: Any) -> Settings:
    """Read and validate the settings together.

    Args:
        env_file: `NAME=value` lines used where the environment has nothing; default: what
            `omninode infra up` wrote for this folder.
        overrides: explicit values by field name; they win over everything.

    Raises:
        SettingsError: names every variable that is missing or malformed, never its value.
    """
    file = env_file if env_file is not None else state_directory() / ENV_FILE
    values: dict[str, Any] = {
        name.removeprefix("OMNIBASE_").lower(): value
        for name, value in read_env_file(file).items()
        if name.startswith("OMNIBASE_") and name not in os.environ
    }
    try:
        settings = Settings(**(values | overrides))
        Realm(settings.env, settings.tenant)
    except InvalidNameError as error:
        raise SettingsError(f"OMNIBASE_TENANT: {error.message}", hint=error.hint) from None
    except ValidationError as error:
        problems = error.errors()
        lines = [f"OMNIBASE_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" for item in problems]
        missing = any(item["type"] == "missing" for item in problems)
        raise SettingsError(
            "settings are incomplete or malformed:\n  " + "\n  ".join(lines),
            hint="set what is missing, or run `omninode infra up`, which sets all of it" if missing else "",
        ) from None
    return settings


def require_kafka(settings: Settings) -> str:
    """Return the broker addresses.

    Raises:
        SettingsError: none are set; there is no default.
    """
    if not settings.kafka_bootstrap_servers:
        raise SettingsError(
            "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS is not set",
            hint="set it, or run `omninode infra up` to start a local broker",
        )
    return settings.kafka_bootstrap_servers


def require_postgres(settings: Settings) -> str:
    """Return the PostgreSQL address, a secret.

    Raises:
        SettingsError: none is set; there is no default.
    """
    if settings.postgres_dsn is None:
        raise SettingsError(
            "OMNIBASE_POSTGRES_DSN is not set", hint="set it, or run `omninode infra up` to start a local server"
        )
    return settings.postgres_dsn.get_secret_value()
