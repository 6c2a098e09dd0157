"""A real broker with TLS, SCRAM-SHA-512 and an authorizer, for tests of who may come in and what they may do.

Name this module in `pytest_plugins`. Listeners: `SECURED`, whose certificate is for `localhost`, and `EXPIRED`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.kafka.client_log import ClientLog
from omnibase_infra.shared.local_services import KafkaService
from omnibase_infra.shared.local_services.kafka_security import MECHANISM, KafkaSecurity

if TYPE_CHECKING:
    from omnibase_infra.shared.testing.certificates import TestAuthority

ADMINISTRATOR: Final = "administrator"
# So often every client has to prove its password again, also on a connection that stands.
REAUTHENTICATION_SECONDS: Final = 2.0
REQUEST_SECONDS: Final = 30.0
_ITERATIONS: Final = 4096


@dataclass(frozen=True)
class SecuredKafka:
    """A running broker.

    Attributes:
        service: behind it.
        authority: signed the broker's certificates.
        stranger: another authority.
        folder: of their files, and of no others.
        secret: password of the administrator.
    """

    service: KafkaService
    authority: TestAuthority
    stranger: TestAuthority
    folder: Path
    secret: str

    def settings(
        self, realm: Realm, user: str, password: str, *, listener: str = "SECURED", **overrides: Any
    ) -> Settings:
        """Return the settings of a process of this realm that logs in so."""
        values = {
            "env": realm.environment,
            "tenant": realm.tenant,
            "kafka_bootstrap_servers": self.service.secured_address(listener),
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": MECHANISM,
            "kafka_sasl_username": user,
            "kafka_sasl_password": SecretStr(password),
            "kafka_ssl_ca_location": self.authority.certificate,
        }
        return load_settings(self.folder / "no-such-file", **(values | overrides))

    def administrator(self, realm: Realm) -> Settings:
        """Return the settings of a super user."""
        return self.settings(realm, ADMINISTRATOR, self.secret)

    def set_password(self, user: str, password: str) -> None:
        """Make a user, or change its password; from then on the other one is refused."""
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
        admin = _plain_admin(self.service)  # named, so that it outlives its answers
        asked = admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(user, scram, password.encode())], request_timeout=REQUEST_SECONDS
        )
        for future in asked.values():
            future.result(REQUEST_SECONDS)


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    """Return the environment of a process that is to have these settings, in place of those of this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
    chosen: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if value is not None and value != field.default:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            chosen[f"OMNIBASE_{name.upper()}"] = text
    return kept | chosen | more


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A real broker with TLS, passwords and an authorizer, for the whole test process."""
    from omnibase_infra.shared.testing.certificates import TestAuthority

    folder = tmp_path_factory.mktemp("secured-kafka")
    authority, stranger = TestAuthority(folder), TestAuthority(folder, "stranger")
    keystores = {
        "SECURED": authority.server("secured").keystore,
        "EXPIRED": authority.server("expired", expired=True).keystore,
    }
    security = KafkaSecurity(keystores, (ADMINISTRATOR,), REAUTHENTICATION_SECONDS)
    service = KafkaService(folder / "kafka", brokers=1, security=security)
    service.prepare()
    service.start()
    running = SecuredKafka(service, authority, stranger, folder, secrets.token_hex(8))
    try:
        running.set_password(ADMINISTRATOR, running.secret)
        yield running
    finally:
        service.kill()
        service.delete_data()


def _plain_admin(service: KafkaService) -> AdminClient:
    config: dict[str, Any] = {
        "bootstrap.servers": service.variables()["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"],
        # What it says of itself would end up on the stderr of a test that looks at it.
        "logger": ClientLog(lambda *_, **__: None, "test-admin"),
        "log_level": 3,
    }
    return AdminClient(config)
