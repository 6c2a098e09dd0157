"""From settings to librdkafka's security properties: TLS, mutual TLS, SASL PLAIN, SCRAM and OAUTHBEARER."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.redaction import MASK, redact_text
from omnibase_infra.shared.core.settings import Settings, secret_value

# A mechanism with a password never reads the OAuth settings and the other way round: one set for the wrong
# mechanism is a misunderstanding that would otherwise show up as a refused connection.
_PASSWORD_SETTINGS: Final = ("kafka_sasl_username", "kafka_sasl_password")
_OAUTH_REQUIRED: Final = ("kafka_oauth_token_endpoint_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
_OAUTH_SETTINGS: Final = (*_OAUTH_REQUIRED, "kafka_oauth_scope")
_TLS_FILES: Final = ("kafka_ssl_ca_location", "kafka_ssl_certificate_location", "kafka_ssl_key_location")
_TLS_SETTINGS: Final = (*_TLS_FILES, "kafka_ssl_key_password")

_PROPERTIES: Final[Mapping[str, str]] = {
    "kafka_ssl_ca_location": "ssl.ca.location",
    "kafka_ssl_certificate_location": "ssl.certificate.location",
    "kafka_ssl_key_location": "ssl.key.location",
    "kafka_ssl_key_password": "ssl.key.password",
    "kafka_sasl_mechanism": "sasl.mechanism",
    "kafka_sasl_username": "sasl.username",
    "kafka_sasl_password": "sasl.password",
    "kafka_oauth_token_endpoint_url": "sasl.oauthbearer.token.endpoint.url",
    "kafka_oauth_client_id": "sasl.oauthbearer.client.id",
    "kafka_oauth_client_secret": "sasl.oauthbearer.client.secret",
    "kafka_oauth_scope": "sasl.oauthbearer.scope",
}
GRANT_HINT: Final = "an administrator grants what contracts need by `omninode acls apply`"
SECRET_PROPERTIES: Final = frozenset({"ssl.key.password", "sasl.password", "sasl.oauthbearer.client.secret"})


def security_config(settings: Settings) -> dict[str, Any]:
    """Return the librdkafka properties that make a connection secure as the settings ask.

    Broker host names are always verified under TLS. The result holds secrets: log `masked(...)` of it instead.

    Raises:
        SettingsError: the settings do not fit together; lists everything that is wrong, never a value of a secret.
    """
    if problems := list(_problems(settings)):
        raise SettingsError("the Kafka security settings do not fit together:\n  " + "\n  ".join(problems))
    config: dict[str, Any] = {"security.protocol": settings.kafka_security_protocol}
    if _uses_tls(settings):
        config["ssl.endpoint.identification.algorithm"] = "https"
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        config["sasl.oauthbearer.method"] = "oidc"
    for name, key in _PROPERTIES.items():
        if _is_set(value := getattr(settings, name)):
            config[key] = secret_value(settings, name) if isinstance(value, SecretStr) else str(value)
    return config


def masked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's configuration fit for logs: secrets replaced, callbacks left out."""
    return {
        key: MASK if key in SECRET_PROPERTIES else redact_text(value) if isinstance(value, str) else value
        for key, value in config.items()
        if isinstance(value, str | int | float | bool)
    }


def _problems(settings: Settings) -> Iterator[str]:
    yield from _tls_problems(settings)
    yield from _sasl_problems(settings)


def _tls_problems(settings: Settings) -> Iterator[str]:
    protocol = settings.kafka_security_protocol
    if not _uses_tls(settings):
        for name in _set_among(settings, _TLS_SETTINGS):
            yield f"{_variable(name)} has no effect with {protocol}: use SSL or SASL_SSL, or unset it"
        return
    for name in _set_among(settings, _TLS_FILES):
        if problem := _file_problem(getattr(settings, name)):
            yield f"{_variable(name)}: {problem}"
    certificate, key = settings.kafka_ssl_certificate_location, settings.kafka_ssl_key_location
    if key and not certificate:
        yield "OMNIBASE_KAFKA_SSL_KEY_LOCATION needs OMNIBASE_KAFKA_SSL_CERTIFICATE_LOCATION beside it (mutual TLS)"
    if certificate and not key:
        yield "OMNIBASE_KAFKA_SSL_CERTIFICATE_LOCATION needs OMNIBASE_KAFKA_SSL_KEY_LOCATION beside it (mutual TLS)"
    if _is_set(settings.kafka_ssl_key_password) and not key:
        yield "OMNIBASE_KAFKA_SSL_KEY_PASSWORD is set, but OMNIBASE_KAFKA_SSL_KEY_LOCATION is not"


def _sasl_problems(settings: Settings) -> Iterator[str]:
    protocol, mechanism = settings.kafka_security_protocol, settings.kafka_sasl_mechanism
    if not protocol.startswith("SASL_"):
        for name in _set_among(settings, ("kafka_sasl_mechanism", *_PASSWORD_SETTINGS, *_OAUTH_SETTINGS)):
            yield f"{_variable(name)} has no effect with {protocol}: use SASL_SSL or SASL_PLAINTEXT, or unset it"
    elif mechanism is None:
        yield (
            f"OMNIBASE_KAFKA_SASL_MECHANISM is not set, {protocol} needs it: "
            "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        )
    elif mechanism == "OAUTHBEARER":
        yield from _mechanism_problems(settings, mechanism, _OAUTH_REQUIRED, _PASSWORD_SETTINGS)
        url = settings.kafka_oauth_token_endpoint_url
        if url and not url.startswith(("https://", "http://")):
            yield "OMNIBASE_KAFKA_OAUTH_TOKEN_ENDPOINT_URL is not a URL that starts with https:// (or http://)"
    else:
        yield from _mechanism_problems(settings, mechanism, _PASSWORD_SETTINGS, _OAUTH_SETTINGS)


def _mechanism_problems(
    settings: Settings, mechanism: str, required: tuple[str, ...], foreign: tuple[str, ...]
) -> Iterator[str]:
    for name in required:
        if not _is_set(getattr(settings, name)):
            yield f"{_variable(name)} is not set, {mechanism} needs it"
    for name in _set_among(settings, foreign):
        yield f"{_variable(name)} has no effect with {mechanism}: unset it"


def _uses_tls(settings: Settings) -> bool:
    return settings.kafka_security_protocol in ("SSL", "SASL_SSL")


def _set_among(settings: Settings, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if _is_set(getattr(settings, name))]


def _is_set(value: str | Path | SecretStr | None) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _file_problem(path: Path) -> str:
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def _variable(name: str) -> str:
    return f"OMNIBASE_{name.upper()}"
