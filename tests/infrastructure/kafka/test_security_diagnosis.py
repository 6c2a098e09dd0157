"""What the client library reports becomes one error for a person, and an outage does not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.kafka.security_diagnosis import access_error
from omnibase_infra.shared.testing.certificates import ServerCertificate, TestAuthority

AUTHENTICATION = KafkaError._AUTHENTICATION


def settings(port: int = 1, **values: Any) -> Settings:
    given = {
        "env": "test",
        "kafka_bootstrap_servers": f"localhost:{port}",
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": "worker",
        "kafka_sasl_password": "not-to-be-shown",
    }
    return load_settings(Path("no-such-file"), **(given | values))


def login_report(text: str) -> list[KafkaError]:
    return [
        KafkaError(AUTHENTICATION, f"sasl_ssl://broker-2:9093/bootstrap: {text} (after 300ms in state AUTH_REQ)"),
        KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"),
    ]


@contextmanager
def tls_server(certificate: ServerCertificate) -> Iterator[int]:
    """Listen with a certificate and shake hands with whoever comes; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            while True:
                try:
                    plain, _ = server.accept()
                except OSError:
                    return
                with plain:
                    try:
                        context.wrap_socket(plain, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def tls_report(port: int, host: str = "localhost") -> list[KafkaError]:
    text = f"sasl_ssl://{host}:{port}/bootstrap: SSL handshake failed: error:0A000086: certificate verify failed"
    return [KafkaError(KafkaError._SSL, text)]


def test_a_refused_password_names_broker_user_and_settings_but_no_password() -> None:
    reasons = login_report("SASL authentication error: Authentication failed due to invalid credentials")
    error = access_error(settings(), reasons, thoroughly=False)
    assert error is not None
    assert error.message == (
        "no access to the Kafka broker at broker-2:9093: it refuses user 'worker' with this password (SCRAM-SHA-512)"
    )
    assert "OMNIBASE_KAFKA_SASL_PASSWORD" in error.hint
    assert "not-to-be-shown" not in str(error)


def test_a_mechanism_that_is_not_offered_names_those_that_are() -> None:
    reasons = login_report(
        "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: "
        "broker's supported mechanisms: SCRAM-SHA-256,SCRAM-SHA-512"
    )
    error = access_error(settings(kafka_sasl_mechanism="PLAIN"), reasons, thoroughly=False)
    assert error is not None
    assert error.message.endswith("it offers no SASL mechanism PLAIN, but SCRAM-SHA-256,SCRAM-SHA-512")


@pytest.mark.parametrize(
    ("hosts", "expired", "trusted", "words"),
    [
        (("localhost",), True, True, "its certificate has expired"),
        (("elsewhere.test",), False, True, "its certificate is not for localhost"),
        (("localhost",), False, False, "its certificate is not signed by"),
    ],
)
def test_a_certificate_is_looked_at_for_what_is_wrong(
    tmp_path: Path, hosts: tuple[str, ...], expired: bool, trusted: bool, words: str
) -> None:
    authority, stranger = TestAuthority(tmp_path), TestAuthority(tmp_path, "stranger")
    with tls_server(authority.server(hosts=hosts, expired=expired)) as port:
        ours = (authority if trusted else stranger).certificate
        error = access_error(settings(port, kafka_ssl_ca_location=ours), tls_report(port), thoroughly=False)
    assert error is not None
    assert f"localhost:{port}: {words}" in error.message
    assert f"openssl s_client -connect localhost:{port}" in error.hint


def test_a_certificate_that_is_right_by_now_is_no_error(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    with tls_server(authority.server()) as port:
        trusting = settings(port, kafka_ssl_ca_location=authority.certificate)
        assert access_error(trusting, tls_report(port), thoroughly=False) is None


def test_a_listener_that_speaks_tls_is_told_to_who_does_not(tmp_path: Path) -> None:
    plain = {"kafka_sasl_mechanism": None, "kafka_sasl_username": None, "kafka_sasl_password": None}
    with tls_server(TestAuthority(tmp_path).server()) as port:
        error = access_error(settings(port, kafka_security_protocol="PLAINTEXT", **plain), [])
    assert error is not None
    assert "it speaks TLS there, and this process PLAINTEXT" in error.message
    assert "OMNIBASE_KAFKA_SECURITY_PROTOCOL" in error.hint


def test_a_listener_without_tls_is_told_to_who_brings_it(kafka_settings: Settings) -> None:
    (_, _, port) = str(kafka_settings.kafka_bootstrap_servers).rpartition(":")
    error = access_error(settings(int(port), kafka_bootstrap_servers=f"127.0.0.1:{port}"), [])
    assert error is not None
    assert "it speaks no TLS there" in error.message


def test_an_outage_is_no_matter_of_access() -> None:
    down = [KafkaError(KafkaError._TRANSPORT, "Connect to 127.0.0.1:1 failed: Connection refused")]
    assert access_error(settings(), down) is None
    assert access_error(settings(kafka_security_protocol="SASL_PLAINTEXT"), down) is None
