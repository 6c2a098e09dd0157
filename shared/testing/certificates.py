"""Certificates for TLS servers of a test: an authority, what it signs, and the ways in which such things are wrong.

Needs `trustme`, which is among the development dependencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from omnibase_infra.shared.local_services.private_files import write_private

LOCAL_NAMES: Final = ("localhost",)


class ServerCertificate(NamedTuple):
    """Where the files of one server lie, in PEM.

    Attributes:
        chain: the server's certificate and those between it and the authority.
        key: its private key, readable by its owner only.
        keystore: both in one file, key first, as Kafka reads them.
    """

    chain: Path
    key: Path
    keystore: Path


class TestAuthority:
    """Signs certificates; each instance is another authority, which nobody else trusts."""

    __test__ = False  # no test, whatever pytest makes of the name

    def __init__(self, folder: Path, name: str = "authority") -> None:
        """Make the authority and write its certificate.

        Args:
            folder: where all files go; it exists.
            name: tells authorities in one folder apart.
        """
        self._folder = folder
        self._name = name
        self._authority = trustme.CA(organization_name=f"omnibase test {name}")
        self.certificate = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.certificate)

    def server(
        self, name: str = "server", hosts: Sequence[str] = LOCAL_NAMES, *, expired: bool = False
    ) -> ServerCertificate:
        """Sign a server's certificate.

        Args:
            name: of the files.
            hosts: DNS names and IP addresses that it is for.
            expired: it was valid until yesterday.
        """
        ends = datetime.now(UTC) - timedelta(days=1) if expired else None
        begins = datetime.now(UTC) - timedelta(days=30) if expired else None
        signed = self._authority.issue_cert(*hosts, not_before=begins, not_after=ends)
        chain = b"".join(part.bytes() for part in signed.cert_chain_pems)
        files = ServerCertificate(*(self._folder / f"{self._name}-{name}.{end}" for end in ("crt", "key", "pem")))
        files.chain.write_bytes(chain)
        # PKCS 8, the only form that Kafka reads.
        key = load_pem_private_key(signed.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        write_private(files.key, key.decode())
        write_private(files.keystore, (key + chain).decode())
        return files
