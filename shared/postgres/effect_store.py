"""Effects in PostgreSQL that happen once: inbox row, effect and outputs in one transaction.

    session ─▶ claim ─▶ effect ─▶ store ─▶ commit ─▶ (outputs produced, confirmed) ─▶ offset committed
                 └─ already processed: the stored outputs are produced again, nothing else happens

A connection lost during COMMIT leaves the outcome unknown. The message is then delivered again and finds its inbox row
or does not; both are right.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from omnibase_infra.shared.core.errors import DependencyBusyError, SchemaMissingError
from omnibase_infra.shared.core.ports import Claim, Fresh, InboxMessage, Intent, IsolationLevel, StoredOutput
from omnibase_infra.shared.postgres import effect_journal, inbox, outbox
from omnibase_infra.shared.postgres.connection_pool import Connection, PostgresConnectionPool, is_lost
from omnibase_infra.shared.postgres.errors import DEPENDENCY, MIGRATE_HINT, is_schema_error, raise_classified
from omnibase_infra.shared.postgres.health_monitor import PostgresHealthMonitor
from omnibase_infra.shared.postgres.inbox import GroupInbox
from omnibase_infra.shared.postgres.queries import named_queries
from omnibase_infra.shared.postgres.query_metrics import QueryMetrics
from omnibase_infra.shared.postgres.transactions import transaction


class PostgresEffectSession:
    """One transaction; implements `core.ports.EffectSession`."""

    def __init__(self, connection: Connection, inbox_of_group: GroupInbox, metrics: QueryMetrics) -> None:
        self._connection = connection
        self.inbox = inbox_of_group
        self._metrics = metrics
        self._claimed: dict[tuple[str, str, str], UUID] = {}

    @property
    def connection(self) -> Any:
        """The asyncpg connection of the transaction."""
        return self._connection

    async def claim(self, messages: Sequence[InboxMessage]) -> Sequence[Claim]:
        """Insert inbox rows and say, in the order given, which messages are new.

        Raises:
            ValueError: two messages have one identity.
            DependencyBusyError: another delivery of one of them is under way, perhaps of a worker that stands still. That
                is no failure of the message, so it spends no attempt.
        """
        keys = self.keys(messages)
        with self._metrics.measure("claim_inbox", named_queries()["claim_inbox"]):
            try:
                claims = await inbox.claim(self._connection, self.inbox.number, messages, keys)
            except asyncpg.LockNotAvailableError:
                raise DependencyBusyError(
                    "another delivery of a message is under way and has not ended yet", dependency=DEPENDENCY
                ) from None
        for message, key, outcome in zip(messages, keys, claims, strict=True):
            if type(outcome) is Fresh:
                self._claimed[_identity(message)] = key
        return claims

    async def store(self, outputs: Sequence[tuple[InboxMessage, Sequence[StoredOutput]]]) -> None:
        """Keep the outputs of messages that this session claimed as new. Once per message.

        Raises:
            ValueError: a message was not claimed here, or is stored a second time.
        """
        keyed = [(message, self._take_key(message), stored) for message, stored in outputs]
        with self._metrics.measure("store_outbox", named_queries()["store_outbox"]):
            await outbox.store(self._connection, keyed)

    def keys(self, messages: Sequence[InboxMessage]) -> list[UUID]:
        """Return the keys of messages in the group's inbox."""
        key = self.inbox.key
        return [key(message) for message in messages]

    def _take_key(self, message: InboxMessage) -> UUID:
        key = self._claimed.pop(_identity(message), None)
        if key is None:
            raise ValueError(f"message {message.message_id} was not claimed as new in this session, or is stored twice")
        return key


class PostgresEffectStore:
    """The effects of one consumer group in one database; implements `core.ports.EffectStore` and `EffectJournal`."""

    def __init__(self, pool: PostgresConnectionPool, group: str, monitor: PostgresHealthMonitor | None = None) -> None:
        """Args:
        pool: open for as long as the store is used; it belongs to the caller.
        group: full name of the consumer group; the inbox is the group's own.
        monitor: looks when the store is pinged, and remembers; default: one of this store's own.
        """
        self._pool = pool
        self._monitor = monitor or PostgresHealthMonitor(pool)
        self._group = group
        self._inbox: GroupInbox | None = None

    @property
    def dependency(self) -> str:
        """Return `postgres`."""
        return DEPENDENCY

    @asynccontextmanager
    async def session(self, isolation: IsolationLevel | None = None) -> AsyncIterator[PostgresEffectSession]:
        """Open a transaction; commit when the block ends normally. See the port for what it raises."""
        async with self._pool.acquire() as connection:
            found = await self._find_inbox(connection)
            async with transaction(connection, isolation):
                yield PostgresEffectSession(connection, found, self._pool.query_metrics)

    async def intend(
        self, messages: Sequence[InboxMessage], *, owner: uuid.UUID, lease_seconds: float
    ) -> Sequence[Intent]:
        """Write intents down; see `core.ports.EffectJournal`."""
        if not messages:
            return []
        with self._pool.query_metrics.measure("intend"):
            # One statement must see what another transaction committed while the one before it waited.
            async with self.session("read committed") as session:
                return await effect_journal.intend(
                    session.connection, session.inbox.number, messages, session.keys(messages), owner, lease_seconds
                )

    async def withdraw(self, messages: Sequence[InboxMessage], *, owner: uuid.UUID) -> None:
        """Take intents back; see `core.ports.EffectJournal`."""
        async with self.session() as session:
            await effect_journal.withdraw(session.connection, session.keys(messages), owner)

    async def give_up(self, messages: Sequence[InboxMessage], *, owner: uuid.UUID) -> None:
        """End the lease of intents; see `core.ports.EffectJournal`."""
        async with self.session() as session:
            await effect_journal.give_up(session.connection, session.keys(messages), owner)

    async def conclude(self, message: InboxMessage, outputs: Sequence[StoredOutput]) -> Claim:
        """Store a result in place of its intent; see `core.ports.EffectJournal`."""
        async with self.session() as session:
            # Its row first: who asks about this message waits for it, and then finds the result.
            await effect_journal.remove(session.connection, session.inbox.key(message))
            (claim,) = await session.claim([message])
            if isinstance(claim, Fresh):
                await session.store([(message, outputs)])
            return claim

    async def ping(self) -> None:
        """Do one health check: a cheap round trip.

        Raises:
            DependencyUnavailableError: it cannot be reached, does not answer in time, or is read-only.
            TransientError: all connections are in use.
        """
        await self._monitor.ping()

    def describe(self) -> Mapping[str, Any]:
        """Return health, pool and slowest patterns, for `/info`."""
        return self._monitor.describe()

    async def check_schema(self) -> None:
        """Prepare every statement of the inbox and outbox against the live schema.

        Raises:
            SchemaMissingError: a table or column is missing.
            DependencyUnavailableError: it cannot be reached.
        """
        async with self._pool.acquire() as connection:
            for name, sql in named_queries().items():
                try:
                    await connection.prepare(sql)
                except Exception as error:
                    if is_schema_error(error):
                        raise SchemaMissingError(
                            f"the database lacks what `{name}` of the inbox and outbox needs", hint=MIGRATE_HINT
                        ) from error
                    raise_classified(error, connection_lost=is_lost(connection))

    async def _find_inbox(self, connection: Connection) -> GroupInbox:
        if self._inbox is None:
            try:
                # Outside the transaction: a number that is rolled back must not be remembered.
                self._inbox = await inbox.find_inbox(connection, self._group)
            except Exception as error:  # noqa: BLE001 - raised again, classified
                raise_classified(error, connection_lost=is_lost(connection))
        return self._inbox


def _identity(message: InboxMessage) -> tuple[str, str, str]:
    return (message.source, message.message_id, message.redrive_id)
