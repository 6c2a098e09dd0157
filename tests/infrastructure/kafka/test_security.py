"""Security settings become librdkafka properties together, or one error lists what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.security import masked, security_config

pytestmark = pytest.mark.usefixtures("no_environment")

SECRET = "s3cr3t-value"
PLAIN = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "worker", "kafka_sasl_password": SECRET}
OAUTH = {
    "kafka_sasl_mechanism": "OAUTHBEARER",
    "kafka_oauth_token_endpoint_url": "https://id.example.test/token",
    "kafka_oauth_client_id": "worker",
    "kafka_oauth_client_secret": SECRET,
}


def settings(**values: Any) -> Settings:
    return Settings(env="test", kafka_bootstrap_servers="kafka.example.test:9092", **values)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "certificate", "key")}
    for path in paths.values():
        path.write_text("pem")
    return paths


def problems(**values: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        security_config(settings(**values))
    assert SECRET not in str(caught.value)
    head, *lines = str(caught.value).split("\n  ")
    assert head == "the Kafka security settings do not fit together:"
    return lines


def test_plaintext_needs_nothing_else() -> None:
    assert security_config(settings()) == {"security.protocol": "PLAINTEXT"}


def test_tls_verifies_the_broker_against_the_given_ca(files: dict[str, Path]) -> None:
    config = security_config(settings(kafka_security_protocol="SSL", kafka_ssl_ca_location=files["ca"]))
    assert config == {
        "security.protocol": "SSL",
        "ssl.endpoint.identification.algorithm": "https",
        "ssl.ca.location": str(files["ca"]),
    }


def test_tls_without_a_ca_relies_on_the_systems_certificates() -> None:
    assert security_config(settings(kafka_security_protocol="SSL")) == {
        "security.protocol": "SSL",
        "ssl.endpoint.identification.algorithm": "https",
    }


def test_mutual_tls_presents_a_certificate(files: dict[str, Path]) -> None:
    config = security_config(
        settings(
            kafka_security_protocol="SSL",
            kafka_ssl_ca_location=files["ca"],
            kafka_ssl_certificate_location=files["certificate"],
            kafka_ssl_key_location=files["key"],
            kafka_ssl_key_password=SECRET,
        )
    )
    assert config == {
        "security.protocol": "SSL",
        "ssl.endpoint.identification.algorithm": "https",
        "ssl.ca.location": str(files["ca"]),
        "ssl.certificate.location": str(files["certificate"]),
        "ssl.key.location": str(files["key"]),
        "ssl.key.password": SECRET,
    }


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_password_mechanisms_send_user_and_password(protocol: str, mechanism: str) -> None:
    values = PLAIN | {"kafka_security_protocol": protocol, "kafka_sasl_mechanism": mechanism}
    config = security_config(settings(**values))
    tls = {"ssl.endpoint.identification.algorithm": "https"} if protocol == "SASL_SSL" else {}
    assert config == tls | {
        "security.protocol": protocol,
        "sasl.mechanism": mechanism,
        "sasl.username": "worker",
        "sasl.password": SECRET,
    }


def test_oauthbearer_fetches_tokens_from_the_endpoint() -> None:
    config = security_config(settings(kafka_security_protocol="SASL_SSL", kafka_oauth_scope="kafka", **OAUTH))
    assert config == {
        "security.protocol": "SASL_SSL",
        "ssl.endpoint.identification.algorithm": "https",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://id.example.test/token",
        "sasl.oauthbearer.client.id": "worker",
        "sasl.oauthbearer.client.secret": SECRET,
        "sasl.oauthbearer.scope": "kafka",
    }


def test_sasl_and_mutual_tls_go_together(files: dict[str, Path]) -> None:
    config = security_config(
        settings(
            kafka_security_protocol="SASL_SSL",
            kafka_ssl_certificate_location=files["certificate"],
            kafka_ssl_key_location=files["key"],
            **PLAIN,
        )
    )
    assert {"sasl.username", "ssl.certificate.location", "ssl.key.location"} <= config.keys()


def test_sasl_without_a_mechanism_names_the_choices() -> None:
    assert problems(kafka_security_protocol="SASL_SSL") == [
        "OMNIBASE_KAFKA_SASL_MECHANISM is not set, SASL_SSL needs it: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    ]


def test_a_mechanism_lists_everything_it_lacks_at_once() -> None:
    assert problems(kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism="SCRAM-SHA-512") == [
        "OMNIBASE_KAFKA_SASL_USERNAME is not set, SCRAM-SHA-512 needs it",
        "OMNIBASE_KAFKA_SASL_PASSWORD is not set, SCRAM-SHA-512 needs it",
    ]
    assert problems(kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism="OAUTHBEARER") == [
        "OMNIBASE_KAFKA_OAUTH_TOKEN_ENDPOINT_URL is not set, OAUTHBEARER needs it",
        "OMNIBASE_KAFKA_OAUTH_CLIENT_ID is not set, OAUTHBEARER needs it",
        "OMNIBASE_KAFKA_OAUTH_CLIENT_SECRET is not set, OAUTHBEARER needs it",
    ]


def test_an_empty_password_counts_as_none() -> None:
    values = PLAIN | {"kafka_sasl_password": ""}
    assert problems(kafka_security_protocol="SASL_SSL", **values) == [
        "OMNIBASE_KAFKA_SASL_PASSWORD is not set, PLAIN needs it"
    ]


def test_settings_of_the_other_mechanism_are_refused() -> None:
    both = OAUTH | PLAIN
    assert len(problems(kafka_security_protocol="SASL_SSL", **both)) == 3
    both["kafka_sasl_mechanism"] = "OAUTHBEARER"
    assert problems(kafka_security_protocol="SASL_SSL", **both) == [
        "OMNIBASE_KAFKA_SASL_USERNAME has no effect with OAUTHBEARER: unset it",
        "OMNIBASE_KAFKA_SASL_PASSWORD has no effect with OAUTHBEARER: unset it",
    ]


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_credentials_that_would_be_ignored_are_refused(protocol: str) -> None:
    assert problems(kafka_security_protocol=protocol, **PLAIN) == [
        f"OMNIBASE_KAFKA_SASL_{name} has no effect with {protocol}: use SASL_SSL or SASL_PLAINTEXT, or unset it"
        for name in ("MECHANISM", "USERNAME", "PASSWORD")
    ]


def test_tls_files_without_tls_are_refused(files: dict[str, Path]) -> None:
    assert problems(kafka_ssl_ca_location=files["ca"]) == [
        "OMNIBASE_KAFKA_SSL_CA_LOCATION has no effect with PLAINTEXT: use SSL or SASL_SSL, or unset it"
    ]


def test_half_of_a_client_certificate_is_refused(files: dict[str, Path]) -> None:
    assert problems(kafka_security_protocol="SSL", kafka_ssl_key_location=files["key"]) == [
        "OMNIBASE_KAFKA_SSL_KEY_LOCATION needs OMNIBASE_KAFKA_SSL_CERTIFICATE_LOCATION beside it (mutual TLS)"
    ]
    assert problems(kafka_security_protocol="SSL", kafka_ssl_certificate_location=files["certificate"]) == [
        "OMNIBASE_KAFKA_SSL_CERTIFICATE_LOCATION needs OMNIBASE_KAFKA_SSL_KEY_LOCATION beside it (mutual TLS)"
    ]
    assert problems(kafka_security_protocol="SSL", kafka_ssl_key_password=SECRET) == [
        "OMNIBASE_KAFKA_SSL_KEY_PASSWORD is set, but OMNIBASE_KAFKA_SSL_KEY_LOCATION is not"
    ]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    assert problems(
        kafka_security_protocol="SSL", kafka_ssl_ca_location=absent, kafka_ssl_certificate_location=tmp_path
    ) == [
        f"OMNIBASE_KAFKA_SSL_CA_LOCATION: {absent} cannot be read: No such file or directory",
        f"OMNIBASE_KAFKA_SSL_CERTIFICATE_LOCATION: {tmp_path} cannot be read: Is a directory",
        "OMNIBASE_KAFKA_SSL_CERTIFICATE_LOCATION needs OMNIBASE_KAFKA_SSL_KEY_LOCATION beside it (mutual TLS)",
    ]


def test_a_token_endpoint_that_is_no_url_is_refused() -> None:
    values = OAUTH | {"kafka_oauth_token_endpoint_url": "id.example.test/token"}
    assert problems(kafka_security_protocol="SASL_SSL", **values) == [
        "OMNIBASE_KAFKA_OAUTH_TOKEN_ENDPOINT_URL is not a URL that starts with https:// (or http://)"
    ]


def test_the_form_for_logs_masks_secrets_and_leaves_out_callbacks() -> None:
    config = security_config(settings(kafka_security_protocol="SASL_SSL", **PLAIN))
    shown = masked(config | {"error_cb": print, "ssl.key.password": SECRET, "linger.ms": 2})
    assert SECRET not in repr(shown)
    assert shown["sasl.password"] == shown["ssl.key.password"] == "***"
    assert (shown["sasl.username"], shown["linger.ms"]) == ("worker", 2)
    assert "error_cb" not in shown


def test_the_form_for_logs_masks_every_secret_property() -> None:
    config = security_config(settings(kafka_security_protocol="SASL_SSL", **OAUTH))
    assert SECRET not in repr(masked(config))
