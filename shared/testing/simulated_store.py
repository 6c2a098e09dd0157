"""A database in memory behind the `EffectStore` port: transactions, row locks of the inbox, failures at any point."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from omnibase_infra.shared.core.errors import DependencyBusyError, DependencyUnavailableError, TransientError
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    Claim,
    Fresh,
    InboxMessage,
    IsolationLevel,
    Reused,
    StoredOutput,
)
from omnibase_infra.shared.testing.virtual_loop import VirtualLoop, VirtualScheduler

Identity = tuple[str, str, str]
LOCK_SECONDS: Final = 8.0
# A transaction whose client says nothing for so long is rolled back by the server.
IDLE_SECONDS: Final = 6.0
_CONNECT_SECONDS: Final = 0.5


class SimulatedDatabase:
    """The server, shared by all processes.

    Attributes:
        away: it does not answer.
        unavailable / transient / busy: chance that a step of a transaction fails so.
        lost_commits: chance that a commit is answered by a broken connection; half of those took place.
        on_effect: told of every effect when its transaction is committed.
    """

    def __init__(self, scheduler: VirtualScheduler) -> None:
        self.scheduler = scheduler
        self.loop = VirtualLoop(scheduler, "database")  # type: ignore[abstract]  # in typeshed only
        self.away = False
        self.unavailable = 0.0
        self.transient = 0.0
        self.busy = 0.0
        self.lost_commits = 0.0
        self.on_effect: Callable[[Any], None] = lambda _: None
        self.inbox: dict[Identity, tuple[bytes, tuple[StoredOutput, ...]]] = {}
        self.locks: dict[Identity, SimulatedSession] = {}
        self.waiting: dict[Identity, list[asyncio.Future[None]]] = {}
        self.sessions: set[SimulatedSession] = set()

    def roll_back(self, session: SimulatedSession) -> None:
        """End a transaction without effect."""
        self._end(session)

    def commit(self, session: SimulatedSession) -> None:
        """Make everything of a transaction happen, unless it has ended."""
        if session not in self.sessions:
            return
        for identity, payload_hash in session.claimed.items():
            self.inbox[identity] = (payload_hash, session.outputs.get(identity, ()))
        for effect in session.effects:
            self.on_effect(effect)
        self._end(session)

    def abandon(self, client: SimulatedStore) -> None:
        """Notice that a client died: its transactions end a little later, one whose commit is under way either way."""
        for session in sorted((one for one in self.sessions if one.client is client), key=lambda one: one.number):
            landed = session.committing and self.scheduler.random.random() < 0.5
            delay = self.scheduler.random.uniform(0.0, 0.3)
            self.loop.call_later(delay, self._settle, session, landed)

    def expire(self, session: SimulatedSession) -> None:
        """End a transaction that has been idle for too long."""
        if session in self.sessions:
            session.broken = True
            self._end(session)

    def _settle(self, session: SimulatedSession, landed: bool) -> None:
        if session in self.sessions:
            (self.commit if landed else self.roll_back)(session)

    def _end(self, session: SimulatedSession) -> None:
        self.sessions.discard(session)
        for identity in session.claimed:
            if self.locks.get(identity) is session:
                del self.locks[identity]
            for waiter in self.waiting.pop(identity, ()):
                loop = waiter.get_loop()
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_wake, waiter)


class SimulatedStore:
    """One process's way to the database. Implements `EffectStore`."""

    dependency = "postgres"

    def __init__(self, database: SimulatedDatabase, loop: VirtualLoop) -> None:
        self.database = database
        self.loop = loop
        self._opened = 0

    def session(self, isolation: IsolationLevel | None = None) -> SimulatedSession:  # noqa: ARG002 - one is enough
        """See `EffectStore`."""
        self._opened += 1
        return SimulatedSession(self, self._opened)

    async def ping(self) -> None:
        """See `EffectStore`."""
        if self.database.away:
            raise DependencyUnavailableError("no answer", dependency=self.dependency)


class SimulatedSession:
    """One transaction. `connection` is the session itself: handlers call `effect`."""

    def __init__(self, client: SimulatedStore, number: int) -> None:
        self.client = client
        self.number = number
        self.claimed: dict[Identity, bytes] = {}
        self.outputs: dict[Identity, tuple[StoredOutput, ...]] = {}
        self.effects: list[Any] = []
        self.committing = False
        self.broken = False
        self._database = client.database

    @property
    def connection(self) -> SimulatedSession:
        """See `EffectSession`."""
        return self

    async def __aenter__(self) -> Self:
        await self._step(may_be_busy=True)
        self._database.sessions.add(self)
        self._database.loop.call_later(IDLE_SECONDS, self._database.expire, self)
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self._database.roll_back(self)
            return
        try:
            await self._step()
            self.committing = True
            await self._travel()
            self._check()
            if self._database.scheduler.random.random() < self._database.lost_commits:
                raise DependencyUnavailableError("connection lost in commit", dependency=self.client.dependency)
        except BaseException:
            # Cancelled in mid-commit, it may have happened.
            landed = self.committing and not self.broken and self._database.scheduler.random.random() < 0.5
            (self._database.commit if landed else self._database.roll_back)(self)
            raise
        self._database.commit(self)

    async def claim(self, messages: Sequence[InboxMessage]) -> Sequence[Claim]:
        """See `EffectSession`."""
        await self._step()
        claims: list[Claim] = []
        for message in messages:
            identity = (message.source, message.message_id, message.redrive_id)
            await self._lock(identity)
            known = self._database.inbox.get(identity)
            if known is None:
                self._database.locks[identity] = self
                self.claimed[identity] = message.payload_hash
                claims.append(Fresh())
            elif known[0] != message.payload_hash:
                claims.append(Reused())
            else:
                claims.append(AlreadyProcessed(known[1]))
        return claims

    async def store(self, outputs: Sequence[tuple[InboxMessage, Sequence[StoredOutput]]]) -> None:
        """See `EffectSession`."""
        await self._step()
        for message, produced in outputs:
            self.outputs[message.source, message.message_id, message.redrive_id] = tuple(produced)

    def effect(self, what: Any) -> None:
        """Do something that happens if the transaction is committed."""
        self._check()
        self.effects.append(what)

    async def _lock(self, identity: Identity) -> None:
        """Wait for another transaction that holds the row."""
        try:
            async with asyncio.timeout(LOCK_SECONDS):
                while self._database.locks.get(identity, self) is not self:
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._database.waiting.setdefault(identity, []).append(waiter)
                    await waiter
                    self._check()
        except TimeoutError:
            raise TransientError("lock time-out", dependency=self.client.dependency) from None

    async def _step(self, *, may_be_busy: bool = False) -> None:
        """One round trip, with what may go wrong in it."""
        await self._travel()
        self._check()
        database = self._database
        fate = database.scheduler.random.random()
        name = self.client.dependency
        if database.away or fate < database.unavailable:
            await asyncio.sleep(database.scheduler.random.uniform(0.0, _CONNECT_SECONDS))
            raise DependencyUnavailableError("no answer", dependency=name)
        if fate < database.unavailable + database.transient:
            raise TransientError("deadlock", dependency=name)
        if may_be_busy and fate < database.unavailable + database.transient + database.busy:
            raise DependencyBusyError("no connection is free", dependency=name)

    async def _travel(self) -> None:
        await asyncio.sleep(self._database.scheduler.random.uniform(0.0, 0.004))

    def _check(self) -> None:
        if self.broken:
            raise DependencyUnavailableError("the server ended the transaction", dependency=self.client.dependency)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
