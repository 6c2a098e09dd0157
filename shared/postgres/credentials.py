"""With what a pool logs in, and where that comes from while it changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OmnibaseError
from omnibase_infra.shared.postgres.errors import DEPENDENCY


class Credentials(msgspec.Struct, frozen=True):
    """User and password; None is what the address, `~/.pgpass` or the certificate says. Never shown."""

    user: str | None
    password: str | None

    def __repr__(self) -> str:
        return "<Credentials>"

    __str__ = __repr__


class CredentialsSource(Protocol):
    """Where credentials come from. Asked on the event loop for each new connection, and every few seconds besides.

    `name` is what errors call it, such as the name of a setting. `fixed` says that it never changes.
    """

    name: str
    fixed: bool

    async def read(self) -> Credentials:
        """Return what is valid now. A raise is an outage of the source and is tried again."""
        ...


class FixedCredentials:
    """Those of an address, which do not change while the process lives."""

    fixed = True

    def __init__(self, dsn: str, name: str = "OMNIBASE_POSTGRES_DSN") -> None:
        self.name = name
        parts = urlsplit(dsn)
        # As the driver reads it, who goes by the first @ and refuses the address when there is a second one.
        user, password = parts.username, parts.password
        self._credentials = Credentials(unquote(user) if user else None, unquote(password) if password else None)

    async def read(self) -> Credentials:
        """Return what the address says."""
        return self._credentials


class RotatingCredentials:
    """Those that something else keeps up to date, such as the secrets of the process."""

    fixed = False

    def __init__(self, read: Callable[[], Awaitable[Credentials]], name: str) -> None:
        """Args:
        read: returns what is valid now; cheap, since it is asked often.
        name: what errors call the place where people put them.
        """
        self.name = name
        self._read = read

    async def read(self) -> Credentials:
        """Return what is valid now.

        Raises:
            DependencyUnavailableError: they cannot be had now.
        """
        try:
            return await self._read()
        except (OmnibaseError, OSError) as error:
            raise DependencyUnavailableError(
                f"the credentials of PostgreSQL cannot be read from {self.name}: {error}", dependency=DEPENDENCY
            ) from error
