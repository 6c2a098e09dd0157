"""An effect store in memory: the inbox, the outbox and the transactions of a real one, for tests of handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    Claim,
    Fresh,
    InboxMessage,
    IsolationLevel,
    Reused,
    StoredOutput,
)
from omnibase_infra.shared.testing.mock_factories import MockConnection, MockPostgresPool

_Row = tuple[bytes, tuple[StoredOutput, ...]]


class MemoryEffectStore:
    """Implements `core.ports.EffectStore`. What a session did shows when its block ends well, and not before.

    Attributes:
        dependency: its name.
        pool: whose connection sessions hand to processors; its `calls` are what they ran.
        down: whether it is unavailable from now on.
    """

    def __init__(self, dependency: str = "postgres", pool: MockPostgresPool | None = None) -> None:
        self.dependency = dependency
        self.pool = pool or MockPostgresPool()
        self.down = False
        self._inbox: dict[tuple[str, str, str], _Row] = {}

    @property
    def outputs(self) -> list[StoredOutput]:
        """Return the outputs of all committed messages, in order."""
        return [output for _, outputs in self._inbox.values() for output in outputs]

    @asynccontextmanager
    async def session(self, isolation: IsolationLevel | None = None) -> AsyncIterator[MemorySession]:  # noqa: ARG002
        """Open a transaction; commit when the block ends normally.

        Raises:
            DependencyUnavailableError: it was told to be down.
        """
        await self.ping()
        session = MemorySession(self._inbox, MockConnection(self.pool))
        yield session
        self._inbox |= session.stored

    async def ping(self) -> None:
        """Answer.

        Raises:
            DependencyUnavailableError: it was told to be down.
        """
        if self.down:
            raise DependencyUnavailableError(f"{self.dependency} is down", dependency=self.dependency)


class MemorySession:
    """One transaction."""

    def __init__(self, inbox: dict[tuple[str, str, str], _Row], connection: MockConnection) -> None:
        self._inbox = inbox
        self._connection = connection
        self.stored: dict[tuple[str, str, str], _Row] = {}

    @property
    def connection(self) -> Any:
        """Return the connection for processors."""
        return self._connection

    async def claim(self, messages: Sequence[InboxMessage]) -> list[Claim]:
        """Say which messages are new."""
        return [self._claim(message) for message in messages]

    async def store(self, outputs: Sequence[tuple[InboxMessage, Sequence[StoredOutput]]]) -> None:
        """Keep the outputs of messages."""
        for message, produced in outputs:
            self.stored[_identity(message)] = (message.payload_hash, tuple(produced))

    def _claim(self, message: InboxMessage) -> Claim:
        found = self._inbox.get(_identity(message))
        if found is None:
            return Fresh()
        return AlreadyProcessed(found[1]) if found[0] == message.payload_hash else Reused()


def _identity(message: InboxMessage) -> tuple[str, str, str]:
    return message.source, message.message_id, message.redrive_id
