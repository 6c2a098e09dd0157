"""The servers that kits ask. Started for the purpose when nobody says where one is, and gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.core.settings import environment_values
from omnibase_infra.shared.generator.kits.interface import Servers

_DSN: Final = "OMNIBASE_POSTGRES_DSN"


@contextmanager
def servers(postgres_dsn: str | None = None, report: Callable[[str], None] = lambda _: None) -> Iterator[Servers]:
    """Give access to servers; one that nobody asks for is not started.

    PostgreSQL is, in this order: `postgres_dsn`; OMNIBASE_POSTGRES_DSN; a server of our own in a temporary folder,
    which disturbs nobody and takes a second.

    Args:
        postgres_dsn: of a user who may create databases.
        report: told when a server is started.
    """
    with ExitStack() as stack:

        @cache
        def address() -> str:
            if known := postgres_dsn or environment_values([_DSN]).get(_DSN):
                return known
            report("statements or migrations have changed: asking PostgreSQL about them")
            return stack.enter_context(_temporary_postgres())

        yield Servers(postgres_dsn=address)


@contextmanager
def _temporary_postgres() -> Iterator[str]:
    from omnibase_infra.shared.local_services import down, up

    with tempfile.TemporaryDirectory(prefix="omninode-generate-") as name:
        # The server may run as another user, who must get through to its own folder.
        Path(name).chmod(0o755)
        folder = Path(name) / ".omnibase"
        try:
            variables = up(folder, only=["postgres"])
            if _DSN not in variables:
                raise LocalServiceError(
                    "PostgreSQL was started and left no address", hint=f"give --database or set {_DSN}"
                )
            yield variables[_DSN]
        finally:
            down(folder, delete_data=True)
