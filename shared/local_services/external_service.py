"""Servers whose address the environment gives: never started here, only asked how they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.settings import environment_values, load_settings, secret_names, secret_value
from omnibase_infra.shared.local_services.dependency_checks import (
    CheckResult,
    check_consul,
    check_kafka,
    check_postgres,
    check_vault,
)
from omnibase_infra.shared.local_services.service import ServiceStatus

# librdkafka's name of a setting, by the field of Settings that holds it.
KAFKA_CLIENT_SETTINGS = {
    "kafka_security_protocol": "security.protocol",
    "kafka_sasl_mechanism": "sasl.mechanism",
    "kafka_sasl_username": "sasl.username",
    "kafka_sasl_password": "sasl.password",
    "kafka_ssl_ca_location": "ssl.ca.location",
    "kafka_ssl_certificate_location": "ssl.certificate.location",
    "kafka_ssl_key_location": "ssl.key.location",
    "kafka_ssl_key_password": "ssl.key.password",
}


def _check_kafka(address: str) -> CheckResult:
    # The realm is of no account here, and may not be set yet.
    settings = load_settings(env="dev")
    values: dict[str, Any] = {
        name: secret_value(settings, field) if field in secret_names() else getattr(settings, field)
        for field, name in KAFKA_CLIENT_SETTINGS.items()
    }
    plain = {name: str(value) for name, value in values.items() if value}
    return check_kafka({"bootstrap.servers": address, **plain})


@dataclass(frozen=True, slots=True)
class ExternalService:
    """A server of someone else.

    Attributes:
        name: as the local service of the same kind.
        variable: the environment variable with its address.
        address: its value, which may hold a secret.
    """

    name: str
    variable: str
    address: str

    def status(self) -> ServiceStatus:
        """Ask the server, within a few seconds."""
        try:
            result = CHECKS[self.name](self.address)
        except SettingsError as error:
            result = CheckResult(problem=str(error))
        return ServiceStatus(
            name=self.name,
            state="unhealthy" if result.problem else "external",
            address=_without_secret(self.address),
            version=result.version,
            detail=f"given by {self.variable}: {result.problem}" if result.problem else "",
        )


CHECKS: Mapping[str, Callable[[str], CheckResult]] = {
    "kafka": _check_kafka,
    "postgres": check_postgres,
    "vault": check_vault,
    "consul": check_consul,
}
VARIABLES: Mapping[str, str] = {
    "kafka": "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS",
    "postgres": "OMNIBASE_POSTGRES_DSN",
    "vault": "OMNIBASE_VAULT_ADDR",
    "consul": "OMNIBASE_CONSUL_ADDR",
}


def external_services() -> dict[str, ExternalService]:
    """Return the services that the environment gives an address for, by name."""
    given = environment_values(VARIABLES.values())
    return {
        name: ExternalService(name, variable, given[variable])
        for name, variable in VARIABLES.items()
        if variable in given
    }


def _without_secret(address: str) -> str:
    """Return host and port of an address; user, password and parameters are left out."""
    if "://" not in address:
        return address
    return urlsplit(address).netloc.rpartition("@")[2]
