"""Process settings: the only module that reads the environment.

Every value comes from an `OMNIBASE_*` variable or from the file that `omninode infra up` wrote
(`.omnibase/env`); the environment wins. Addresses have no default: a worker never falls back to localhost.
A secret may be given as a reference, which `shared.secrets` resolves; `secret_references` knows their form.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from omnibase_infra.shared.core.errors import InvalidNameError, SettingsError
from omnibase_infra.shared.core.naming import Environment, Realm
from omnibase_infra.shared.core.postgres_address import with_login, with_parameters
from omnibase_infra.shared.core.secret_references import SecretReference, is_reference, parse_reference

PREFIX: Final = "OMNIBASE_"
STATE_DIRECTORY = ".omnibase"
ENV_FILE = "env"


class Settings(BaseSettings):
    """What a process needs to know about its surroundings. Units are in the names or descriptions."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True)

    env: Environment = Field(description="Environment part of the realm.")
    tenant: str = Field("", description="Tenant part of the realm; empty for none.")

    kafka_bootstrap_servers: str | None = Field(None, description="Broker addresses, host:port, comma-separated.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How connections are secured."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="How the client logs in; required by the two SASL protocols."
    )
    kafka_sasl_username: str | None = Field(None, description="For PLAIN and SCRAM.")
    kafka_sasl_password: SecretStr | None = Field(None, description="For PLAIN and SCRAM.")
    kafka_oauth_token_endpoint_url: str | None = Field(None, description="OIDC token endpoint for OAUTHBEARER.")
    kafka_oauth_client_id: str | None = Field(None, description="For OAUTHBEARER.")
    kafka_oauth_client_secret: SecretStr | None = Field(None, description="For OAUTHBEARER.")
    kafka_oauth_scope: str | None = Field(None, description="For OAUTHBEARER, where the token endpoint wants one.")
    kafka_ssl_ca_location: Path | None = Field(None, description="CA bundle that signs the brokers' certificates.")
    kafka_ssl_certificate_location: Path | None = Field(None, description="Client certificate, for mTLS.")
    kafka_ssl_key_location: Path | None = Field(None, description="Client key, for mTLS.")
    kafka_ssl_key_password: SecretStr | None = Field(None, description="Of the client key, when it is encrypted.")
    kafka_group_protocol: Literal["classic", "consumer"] = Field(
        "classic", description="`classic` is cooperative-sticky, `consumer` is KIP-848."
    )
    kafka_group_instance_id: str | None = Field(None, description="Static membership id, for example the pod's name.")
    kafka_session_timeout_seconds: float = Field(
        45.0,
        ge=6,
        le=1800,
        description="How long the group waits for a silent member before it gives its partitions to others; "
        "`classic` only.",
    )
    kafka_replication_factor: int | None = Field(
        None, ge=1, description="Replication factor of topics; unset: 3 in prod and staging, else 1."
    )
    kafka_principal: str = Field(
        "User:{realm}.{worker}",
        pattern="^User:.+",
        description="Whom the brokers take a worker for, with {realm} and {worker} in it; `omninode acls` grants to it.",
    )

    postgres_dsn: SecretStr | None = Field(None, description="postgresql://user:password@host:port/database?sslmode=…")
    postgres_user: SecretStr | None = Field(
        None, description="User, in place of the one in the DSN: a reference to credentials that rotate."
    )
    postgres_password: SecretStr | None = Field(None, description="Password, in place of the one in the DSN, likewise.")
    postgres_ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = Field(
        None, description="TLS with PostgreSQL; unset: verify-full with a CA, else what the address says."
    )
    postgres_ssl_ca_location: Path | None = Field(None, description="CA bundle that signs the server's certificate.")
    postgres_ssl_certificate_location: Path | None = Field(None, description="Client certificate, for mTLS.")
    postgres_ssl_key_location: Path | None = Field(None, description="Client key, for mTLS.")
    postgres_ssl_key_password: SecretStr | None = Field(None, description="Of the client key, when it is encrypted.")
    postgres_pool_min: int = Field(10, ge=0, le=1000, description="Connections kept open.")
    postgres_pool_max: int = Field(50, ge=1, le=1000, description="Connections at most.")
    postgres_acquire_timeout_seconds: float = Field(5.0, gt=0, description="Longest wait for a free connection.")
    postgres_connection_max_age_seconds: float = Field(
        3600.0, ge=0, description="A connection is replaced when it is so old, give or take a tenth; 0: never."
    )
    postgres_connection_max_uses: int = Field(
        100_000, ge=0, description="A connection is replaced when it was lent so often; 0: never."
    )
    postgres_leak_seconds: float = Field(
        60.0, ge=0, description="A connection held for longer is logged with the place that acquired it; 0: never."
    )
    postgres_slow_query_seconds: float = Field(0.5, gt=0, description="Statements that take longer are logged.")
    postgres_statement_timeout_seconds: float = Field(30.0, gt=0, description="PostgreSQL cancels a longer statement.")
    postgres_lock_timeout_seconds: float = Field(5.0, gt=0, description="PostgreSQL gives up waiting for a lock.")
    postgres_query_role: str | None = Field(
        None, description="Read-only role under which `query` runs SQL text; unset: `query` is switched off."
    )
    postgres_inbox_keep_days: int = Field(
        35,
        ge=1,
        le=3650,
        description="How long inbox and outbox remember a message; a worker whose topics keep longer sees to more.",
    )

    vault_addr: str | None = Field(None, description="OpenBao or Vault, https://host:port, for `vault://` references.")
    vault_token: SecretStr | None = Field(None, description="Token to log in with; or use an AppRole.")
    vault_role_id: SecretStr | None = Field(None, description="AppRole to log in with, beside the secret id.")
    vault_secret_id: SecretStr | None = Field(None, description="Secret id of the AppRole.")
    vault_approle_mount: str = Field("approle", description="Where the AppRole method is mounted.")
    vault_namespace: str | None = Field(None, description="Namespace of everything that is asked.")
    vault_ca_location: Path | None = Field(None, description="CA bundle of the server; unset: the system's.")
    vault_timeout_seconds: float = Field(5.0, gt=0, le=60, description="Longest wait for one answer of the server.")
    secrets_refresh_seconds: float = Field(
        300.0, ge=1, description="How often a `vault://` secret without a lease is read again, to find a new version."
    )
    secrets_file_check_seconds: float = Field(
        5.0, ge=0.05, description="How often the file of a `file://` reference is looked at for a change."
    )

    schema_registry_url: str | None = Field(
        None,
        description="Confluent-compatible schema registry, https://host:port, that `omninode schemas` publishes to.",
    )
    schema_registry_user: str | None = Field(None, description="For basic authentication.")
    schema_registry_password: SecretStr | None = Field(None, description="For basic authentication.")
    schema_registry_ca_location: Path | None = Field(
        None, description="CA bundle of the registry; unset: the system's."
    )
    schema_registry_compatibility: Literal[
        "BY_ROLE",
        "NONE",
        "BACKWARD",
        "BACKWARD_TRANSITIVE",
        "FORWARD",
        "FORWARD_TRANSITIVE",
        "FULL",
        "FULL_TRANSITIVE",
    ] = Field("BY_ROLE", description="What is set on each subject; BY_ROLE: requests BACKWARD, answers FORWARD.")
    schema_registry_timeout_seconds: float = Field(
        10.0, gt=0, le=120, description="Longest wait for one answer of the registry."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lines below it are not written."
    )
    log_format: Literal["json", "console"] = Field("json", description="`json` for collectors, `console` for people.")

    otlp_endpoint: str | None = Field(
        None, description="OTLP collector that takes traces, http(s)://host:port; unset: nothing is traced."
    )
    otlp_protocol: Literal["grpc", "http"] = Field("grpc", description="How the collector is spoken to.")
    otlp_headers: SecretStr | None = Field(
        None, description="Headers of each export, name=value, comma-separated, values percent-encoded."
    )
    otlp_ca_location: Path | None = Field(None, description="CA bundle that signs the collector's certificate.")
    otlp_certificate_location: Path | None = Field(None, description="Client certificate for the collector, for mTLS.")
    otlp_key_location: Path | None = Field(None, description="Client key for the collector, for mTLS.")
    otlp_timeout_seconds: float = Field(10.0, gt=0, description="How long one export may take, its retries included.")
    trace_sample_ratio: float = Field(
        0.01, ge=0, le=1, description="Share of conversations that are traced where their sender has not decided."
    )
    trace_queue_spans: int = Field(
        2048, ge=1, le=1_000_000, description="Spans that wait for the collector; further ones are dropped and counted."
    )

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
    """Read and validate the settings together. References to secrets stay what they are.

    Args:
        env_file: `NAME=value` lines used where the environment has nothing; default: what
            `omninode infra up` wrote for this folder.
        overrides: explicit values by field name; they win over everything.

    Raises:
        SettingsError: names every variable that is missing or malformed, never its value.
    """
    values = {name: value for name, (value, source) in given_settings(env_file).items() if source == "file"}
    try:
        settings = Settings(**(values | overrides))
        problems = list(_problems(settings))
        missing = False
    except ValidationError as error:
        problems = [f"{variable(*item['loc'])}: {item['msg']}" for item in error.errors()]
        missing = any(item["type"] == "missing" for item in error.errors())
    if problems:
        raise SettingsError(
            "settings are incomplete or malformed:\n  " + "\n  ".join(problems),
            hint="set what is missing, or run `omninode infra up`, which sets all of it" if missing else "",
        ) from None
    return settings


def given_settings(env_file: Path | None = None) -> dict[str, tuple[str, Literal["environment", "file"]]]:
    """Return what is given for each field and where: values as written, secrets among them. Nothing is validated.

    Raises:
        SettingsError: the file has a line that is no `NAME=value`.
    """
    file = env_file if env_file is not None else state_directory() / ENV_FILE
    given: dict[str, tuple[str, Literal["environment", "file"]]] = {}
    for name, value in read_env_file(file).items():
        if name.startswith(PREFIX):
            given[name.removeprefix(PREFIX).lower()] = value, "file"
    for name, value in os.environ.items():
        if name.startswith(PREFIX):
            given[name.removeprefix(PREFIX).lower()] = value, "environment"
    return given


def variable(*name: str | int) -> str:
    """Return the environment variable of a field: `log_level` → `OMNIBASE_LOG_LEVEL`."""
    return PREFIX + "_".join(str(part) for part in name).upper()


def secret_names() -> tuple[str, ...]:
    """Return the fields that hold secrets, and may hold references to them instead."""
    return tuple(name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation))


def secret_references(settings: Settings) -> dict[str, SecretReference]:
    """Return the fields that hold references instead of secrets, and what those refer to."""
    found = {name: parse_reference(text) for name in secret_names() if (text := _as_given(settings, name))}
    return {name: reference for name, reference in found.items() if reference is not None}


def secret_value(settings: Settings, name: str) -> str | None:
    """Return the secret that a field holds, None when it is unset.

    Raises:
        SettingsError: it holds a reference that nobody has resolved, which must not be taken for the secret.
    """
    text = _as_given(settings, name)
    if text and is_reference(text):
        raise SettingsError(
            f"{variable(name)} is the reference {text}, and it was not resolved",
            hint="pass the settings through omnibase_infra.shared.secrets.resolve_secrets first",
        )
    return text


def _as_given(settings: Settings, name: str) -> str | None:
    value = getattr(settings, name)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _problems(settings: Settings) -> Iterator[str]:
    try:
        Realm(settings.env, settings.tenant)
    except InvalidNameError as error:
        yield f"{variable('tenant')}: {error}"
    secrets = secret_names()
    for name in Settings.model_fields:
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if name in secrets:
            try:
                parse_reference(text)
            except SettingsError as error:
                yield f"{variable(name)}: {error.message}"
        elif text.startswith(("vault:/", "file:/")):
            yield f"{variable(name)}: takes no reference, since it holds no secret; give the value itself"


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
    """Return the PostgreSQL address, a secret, with the user, password and TLS that other settings give.

    Raises:
        SettingsError: none is set, or a reference was not resolved; there is no default.
    """
    dsn = secret_value(settings, "postgres_dsn")
    if dsn is None:
        raise SettingsError(
            "OMNIBASE_POSTGRES_DSN is not set", hint="set it, or run `omninode infra up` to start a local server"
        )
    user, password = secret_value(settings, "postgres_user"), secret_value(settings, "postgres_password")
    # A CA without a mode means that the server has to prove who it is.
    mode = settings.postgres_ssl_mode or ("verify-full" if settings.postgres_ssl_ca_location else None)
    tls = {
        "sslmode": mode,
        "sslrootcert": settings.postgres_ssl_ca_location,
        "sslcert": settings.postgres_ssl_certificate_location,
        "sslkey": settings.postgres_ssl_key_location,
        "sslpassword": secret_value(settings, "postgres_ssl_key_password"),
    }
    given = {name: str(value) for name, value in tls.items() if value is not None}
    return with_parameters(with_login(dsn, user, password), given)
