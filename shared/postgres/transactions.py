"""One transaction on a pooled connection, from which every error comes out classified."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from omnibase_infra.shared.core.ports import IsolationLevel
from omnibase_infra.shared.postgres.connection_pool import Connection, is_lost
from omnibase_infra.shared.postgres.errors import raise_classified

_DriverIsolation = Literal["read_committed", "repeatable_read", "serializable"]
_ISOLATION: Final[dict[IsolationLevel | None, _DriverIsolation | None]] = {
    None: None,
    "read committed": "read_committed",
    "repeatable read": "repeatable_read",
    "serializable": "serializable",
}


@asynccontextmanager
async def transaction(
    connection: Connection, isolation: IsolationLevel | None = None, *, read_only: bool = False, keep: bool = True
) -> AsyncIterator[None]:
    """Run the block in a transaction; commit when it ends normally, roll back when it raises.

    Args:
        connection: not in a transaction yet.
        isolation: None for the server's default.
        read_only: whether PostgreSQL refuses to write.
        keep: False rolls back in any case, settings included.

    Raises:
        DependencyUnavailableError, TransientError, BusinessError: see `errors.classify`. A connection lost during
            COMMIT is the first of them, though the transaction may have been committed.
    """
    failure: BaseException | None = None
    try:
        async with connection.transaction(isolation=_ISOLATION[isolation], readonly=read_only):
            try:
                yield
            except BaseException as error:
                failure = error
                raise
            if not keep:
                raise _DiscardError
    except _DiscardError:
        return
    except BaseException as error:  # noqa: BLE001 - raised again, classified
        # A rollback that fails as well says less than why there was one, and must not hide a cancellation.
        raise_classified(failure or error, connection_lost=is_lost(connection))


class _DiscardError(Exception):
    """Ends a transaction that is not to be kept; never leaves this module."""
