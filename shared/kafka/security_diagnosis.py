"""Why brokers do not let this process in: the client library's lines, and a look at the certificate, as one clear error.

librdkafka tries again for ever whatever the reason, and says the same of every certificate that it refuses. Only what a
person has to mend becomes an error here; an outage does not.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException

from omnibase_infra.shared.core.errors import KafkaAccessError
from omnibase_infra.shared.core.settings import Settings, require_kafka

if TYPE_CHECKING:
    from confluent_kafka.admin import ClusterMetadata

PROBE_SECONDS: Final = 2.0
# Long enough for a broker that was only just told of a user, and for a second one of several.
JUDGE_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 0.05
_REASON_SECONDS: Final = 0.1
_MAY_PASS: Final = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})

_PLACE: Final = re.compile(r"\w+://(?P<host>[^/]+):(?P<port>\d+)/")
_OFFERED: Final = re.compile(r"supported mechanisms: (?P<offered>[\w, -]+)")
_STATE: Final = re.compile(r" \(after \d+ms in state .*\)$")

# OpenSSL's numbers of what may be wrong with a certificate.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME: Final = frozenset({62, 64})
# A request of Kafka's protocol, and the number by which its answer is known again.
_API_VERSIONS, _PROBE = 18, 0x6F6D6E69
_AUTHORITY: Final = "give OMNIBASE_KAFKA_SSL_CA_LOCATION the CA that signed the brokers' certificates"


class _Client(Protocol):
    def list_topics(self, *, timeout: float) -> ClusterMetadata: ...

    def poll(self, timeout: float) -> Any: ...


def ask_for_topics(
    client: _Client, settings: Settings, reasons: Sequence[KafkaError], timeout_seconds: float
) -> ClusterMetadata:
    """Return what the brokers say of all topics. Blocks for at most a little more than the time-out.

    Args:
        client: its `error_cb` appends to `reasons`.
        settings: it was made from.
        reasons: what the client reported so far, oldest first.
        timeout_seconds: for an answer; a broker that does not let us in is not waited for.

    Raises:
        KafkaAccessError: a broker answers and does not let us in.
        KafkaException: none answered in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        remaining = deadline - time.monotonic()
        try:
            return client.list_topics(timeout=max(_PAUSE_SECONDS, min(remaining, JUDGE_SECONDS)))
        except KafkaException as error:
            # Reports are already queued in the client; this is only for the last of them.
            client.poll(_REASON_SECONDS)
            is_over = deadline - time.monotonic() <= _PAUSE_SECONDS or error.args[0].code() not in _MAY_PASS
            if refused := access_error(settings, reasons, thoroughly=is_over):
                raise refused from error
            if is_over:
                raise
        time.sleep(_PAUSE_SECONDS)


def access_error(
    settings: Settings, reasons: Sequence[KafkaError], *, thoroughly: bool = True
) -> KafkaAccessError | None:
    """Return what a person has to mend so that brokers let us in, None when that is not the trouble.

    May connect to a broker to look at its certificate, and then blocks for up to two seconds.

    Args:
        settings: of the client.
        reasons: errors that the client reported.
        thoroughly: also look whether the listener wants TLS, or knows none, which no report says reliably.
    """
    for code, judge in ((KafkaError._AUTHENTICATION, _login_error), (KafkaError._SSL, _certificate_error)):
        found = next((one for one in reversed(reasons) if one.code() == code), None)
        if found is not None and (error := judge(settings, found.str())):
            return error
    return _listener_error(settings) if thoroughly else None


def telling(reasons: Sequence[KafkaError], otherwise: str) -> str:
    """Return the last report that says more than that all brokers are down."""
    return next((one.str() for one in reversed(reasons) if one.code() != KafkaError._ALL_BROKERS_DOWN), otherwise)


def _login_error(settings: Settings, text: str) -> KafkaAccessError:
    host, port = _place(settings, text)
    mechanism = settings.kafka_sasl_mechanism
    if offered := _OFFERED.search(text):
        return _refused(
            host,
            port,
            f"it offers no SASL mechanism {mechanism}, but {offered['offered'].strip()}",
            "set OMNIBASE_KAFKA_SASL_MECHANISM to what it offers",
        )
    if mechanism == "OAUTHBEARER":
        return _refused(host, port, f"it refuses the token: {_bare(text)}", "check the OMNIBASE_KAFKA_OAUTH_* settings")
    return _refused(
        host,
        port,
        f"it refuses user {settings.kafka_sasl_username!r} with this password ({mechanism})",
        "check OMNIBASE_KAFKA_SASL_USERNAME and OMNIBASE_KAFKA_SASL_PASSWORD: was the password changed, or never set for "
        "this mechanism?",
    )


def _certificate_error(settings: Settings, text: str) -> KafkaAccessError | None:
    host, port = _place(settings, text)
    with suppress(OSError):  # then the client's own words must do
        try:
            _shake_hands(_context(settings), host, port)
        except ssl.SSLCertVerificationError as error:
            return _judged(settings, host, port, error)
    if "alert" in text:
        # From the broker's side, as of a client without the certificate that it asks for.
        return _refused(
            host,
            port,
            f"it ends the TLS handshake: {_bare(text)}",
            "check OMNIBASE_KAFKA_SSL_CERTIFICATE_LOCATION and OMNIBASE_KAFKA_SSL_KEY_LOCATION",
        )
    return None


def _judged(settings: Settings, host: str, port: int, error: ssl.SSLCertVerificationError) -> KafkaAccessError:
    look = f"`openssl s_client -connect {host}:{port} -showcerts` shows it"
    if error.verify_code == _EXPIRED:
        return _refused(host, port, "its certificate has expired", f"renew the broker's certificate; {look}")
    if error.verify_code == _NOT_YET_VALID:
        return _refused(host, port, "its certificate is not valid yet", f"compare the clocks; {look}")
    if error.verify_code in _WRONG_NAME:
        return _refused(
            host,
            port,
            f"its certificate is not for {host}",
            "use a name of the certificate in OMNIBASE_KAFKA_BOOTSTRAP_SERVERS and in the broker's advertised.listeners, "
            f"or have it issued for this one; {look}",
        )
    trusted = settings.kafka_ssl_ca_location or "the system's authorities"
    return _refused(
        host, port, f"its certificate is not signed by {trusted} ({error.verify_message})", f"{_AUTHORITY}; {look}"
    )


def _listener_error(settings: Settings) -> KafkaAccessError | None:
    """Return that a listener speaks TLS and we do not, or the other way round; only where it proves to."""
    host, port = _place(settings, "")
    protocol = settings.kafka_security_protocol
    try:
        if protocol in ("SSL", "SASL_SSL"):
            if not _answers_without_tls(host, port):
                return None
            what, wanted = "it speaks no TLS there", "PLAINTEXT or SASL_PLAINTEXT"
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # Whoever it is: it is told nothing.
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            _shake_hands(context, host, port)
            what, wanted = f"it speaks TLS there, and this process {protocol}", "SASL_SSL or SSL"
    except OSError:
        return None  # nobody is there, or it is no such listener
    return _refused(
        host, port, what, f"set OMNIBASE_KAFKA_SECURITY_PROTOCOL to {wanted}, or use the port of another listener"
    )


def _answers_without_tls(host: str, port: int) -> bool:
    """Return whether a broker answers which versions of the protocol it knows, the one request that needs no login."""
    with socket.create_connection((host, port), timeout=PROBE_SECONDS) as connection:
        connection.sendall(struct.pack(">ihhih", 10, _API_VERSIONS, 0, _PROBE, -1))
        answer = connection.recv(8)
    return len(answer) == 8 and struct.unpack(">ii", answer)[1] == _PROBE


def _context(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.kafka_ssl_ca_location)
    # Python's extra strictness is not the client's.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _shake_hands(context: ssl.SSLContext, host: str, port: int) -> None:
    with (
        socket.create_connection((host, port), timeout=PROBE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host),
    ):
        pass


def _place(settings: Settings, text: str) -> tuple[str, int]:
    """Return the broker that a report is about, else the first of the settings."""
    if found := _PLACE.match(text):
        return found["host"].strip("[]"), int(found["port"])
    first = require_kafka(settings).split(",")[0].strip()
    host, _, port = first.rpartition("://")[2].rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() else (first, 9092)


def _bare(text: str) -> str:
    """Return a report without its place and its timing."""
    return _STATE.sub("", _PLACE.sub("", text).removeprefix("bootstrap: "))


def _refused(host: str, port: int, what: str, hint: str) -> KafkaAccessError:
    return KafkaAccessError(f"no access to the Kafka broker at {host}:{port}: {what}", hint=hint)
