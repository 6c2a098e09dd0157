"""What makes local brokers ask for a password over TLS and obey access-control lists, for tests of exactly that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

# What brokers call themselves on secured listeners: a certificate for it is wrong for the address, and the other way.
SECURED_HOST: Final = "localhost"
MECHANISM: Final = "SCRAM-SHA-512"


class KafkaSecurity(msgspec.Struct, frozen=True):
    """Listeners with TLS and SCRAM-SHA-512, beside the one without, and an authorizer that refuses what no list allows.

    Whoever comes by the listener without TLS, on the loopback address, is a super user: the brokers among themselves,
    and tests that make users, or look past the lists.

    Attributes:
        keystores: a PEM file with the key and its certificates, for each listener by its name in capitals.
        super_users: names of users that may do everything.
        reauthentication_seconds: clients must prove their password again so often; 0 for once a connection.
    """

    keystores: Mapping[str, Path]
    super_users: tuple[str, ...] = ()
    reauthentication_seconds: float = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the listeners, in order."""
        return tuple(sorted(self.keystores))

    def properties(self) -> str:
        """Return the lines of a broker's configuration."""
        users = ";".join(f"User:{name}" for name in ("ANONYMOUS", *self.super_users))
        listeners = "".join(self._listener(name) for name in self.names)
        return f"""
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users={users}
{listeners}"""

    def _listener(self, name: str) -> str:
        prefix = f"listener.name.{name.lower()}"
        scram = f"{prefix}.{MECHANISM.lower()}"
        return f"""\
{prefix}.ssl.keystore.type=PEM
{prefix}.ssl.keystore.location={_escaped(self.keystores[name])}
{prefix}.sasl.enabled.mechanisms={MECHANISM}
{scram}.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
{scram}.connections.max.reauth.ms={round(self.reauthentication_seconds * 1000)}
"""


def _escaped(path: Path) -> str:
    """Return a path as Java's properties files hold it."""
    return str(path.resolve()).replace("\\", "\\\\")
