"""What is wrong with TLS between us and PostgreSQL, in words that say what to do.

The certificate's own facts decide, by OpenSSL's numbers; no text of the driver or of OpenSSL is searched.
"""

from __future__ import annotations

import ssl
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

CA_SETTING: Final = "OMNIBASE_POSTGRES_SSL_CA_LOCATION"
CERTIFICATE_SETTING: Final = "OMNIBASE_POSTGRES_SSL_CERTIFICATE_LOCATION"
KEY_SETTING: Final = "OMNIBASE_POSTGRES_SSL_KEY_LOCATION"
_VERIFYING: Final = frozenset({"verify-ca", "verify-full"})

_RENEW: Final = "install a new one on the server and reload it"
_OTHER_NAME: Final = (
    "is for another host name",
    "connect by a name that the certificate has, or install one on the server that has this name",
)
_UNKNOWN_SIGNER: Final = (
    "was not signed by the CA that we trust",
    f"give the CA that signed it with {CA_SETTING}; if it did not change, somebody may be in between",
)
# By OpenSSL's X509_V_ERR_ numbers.
_VERDICTS: Final[dict[int, tuple[str, str]]] = {
    9: ("is not valid yet", "compare the clocks of server and client"),
    10: ("has expired", _RENEW),
    23: ("was revoked", _RENEW),
    **dict.fromkeys((2, 18, 19, 20, 21, 24), _UNKNOWN_SIGNER),
    **dict.fromkeys((62, 63, 64), _OTHER_NAME),
}


class TlsProblem(NamedTuple):
    """What is wrong, and what to do about it."""

    message: str
    hint: str


def handshake_problem(error: ssl.SSLError, dsn: str) -> TlsProblem:
    """Return what made a TLS handshake with the server of an address fail."""
    host = _host(dsn)
    if not isinstance(error, ssl.SSLCertVerificationError):
        return TlsProblem(
            f"the TLS handshake with PostgreSQL at {host} failed: {error.reason or type(error).__name__}",
            f"check the TLS settings of the server and, where it asks for a client certificate, {CERTIFICATE_SETTING}",
        )
    other = (f"was refused: {error.verify_message}", "install another one on the server and reload it")
    verdict, hint = _VERDICTS.get(error.verify_code, other)
    return TlsProblem(f"the TLS certificate of PostgreSQL at {host} {verdict}", hint)


def file_problem(dsn: str) -> TlsProblem | None:
    """Return what is wrong with the files of an address, None when they can be used. Reads them: on failures only."""
    try:
        parameters = {name: values[-1] for name, values in parse_qs(urlsplit(dsn).query).items()}
    except ValueError:
        return None
    ca, certificate, key = (parameters.get(name) for name in ("sslrootcert", "sslcert", "sslkey"))
    if ca is None and parameters.get("sslmode") in _VERIFYING:
        return TlsProblem(
            f"sslmode={parameters['sslmode']} has no CA to verify the server's certificate with",
            f"set {CA_SETTING} to the file with the CA that signed it",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except (OSError, ValueError) as error:
            return _unusable(CA_SETTING, f"{ca} cannot be used as CA bundle", error)
    if certificate is not None:
        try:
            # Without a password OpenSSL would ask on the terminal.
            context.load_cert_chain(certificate, key, password=lambda: parameters.get("sslpassword", ""))
        except (OSError, ValueError) as error:
            pair = f"{certificate} and {key} cannot be used" if key else f"{certificate} cannot be used"
            return _unusable(f"{CERTIFICATE_SETTING} and {KEY_SETTING}", f"{pair} as client certificate", error)
    return None


def _unusable(setting: str, what: str, error: OSError | ValueError) -> TlsProblem:
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "not in PEM form").lower().replace("_", " ")
    elif isinstance(error, OSError):
        reason = (error.strerror or type(error).__name__).lower()
    else:
        reason = type(error).__name__
    return TlsProblem(f"{what}: {reason}", f"correct {setting}, files in PEM form that this user can read")


def _host(dsn: str) -> str:
    try:
        return urlsplit(dsn).hostname or "its address"
    except ValueError:
        return "its address"
