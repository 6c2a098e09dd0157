"""Effects outside PostgreSQL, once: the intent is durable before, the result after, and what a crash left is resolved.

intend ─▶ run, with an idempotency key ─▶ conclude ─▶ (outputs produced, confirmed) ─▶ offset committed
  ├─ already processed: the stored outputs are produced again, nothing else happens
  ├─ held: another worker is at it; the record is tried again soon
  └─ unresolved: an earlier attempt did not report back; how it ended is looked for before anything is done
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import (
    DependencyBusyError,
    DependencyError,
    OperationRejectedError,
    OutcomeUnknownError,
)
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    BatchContext,
    EffectJournal,
    Fresh,
    Held,
    InboxMessage,
    NotDone,
    ResolvableHandler,
    Reused,
    Unresolved,
)
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import Record
from omnibase_infra.shared.runtime.settled import Settled, settled_before

# Beyond the operation's own deadline, before an attempt that did not report back is believed to be over.
LEASE_MARGIN_SECONDS: Final = 10.0
# Results that could not be stored yet; the oldest go first, and are then looked for like those of a crash.
MOST_UNSTORED: Final = 10_000
_KEY_NAMESPACE: Final = uuid.UUID("0b9c7c0e-6a0d-5c41-8a53-0c2f6f1f2d87")

Identity = tuple[str, str, str]
Settle = Callable[[Lane, Record, Any], Settled]


def idempotency_key(envelope: Envelope) -> str:
    """Return what a server is to tell repeats of a message by: its id where that is a UUID, else a UUID made of both.

    It is the same at every attempt, redrives included.
    """
    try:
        return str(uuid.UUID(envelope.id))
    except ValueError:
        return str(uuid.uuid5(_KEY_NAMESPACE, f"{len(envelope.source)}:{envelope.source}{envelope.id}"))


class _Turn:
    """One record's way through a batch. `untouched`: its intent may be withdrawn, since it is known to be all there is."""

    __slots__ = ("message", "record", "request", "unresolved", "untouched")

    def __init__(self, record: Record, message: InboxMessage, request: Any, intent: Fresh | Unresolved) -> None:
        self.record = record
        self.message = message
        self.request = request
        self.unresolved = isinstance(intent, Unresolved)
        self.untouched = not self.unresolved


class JournaledEffects:
    """Runs operations whose effect lies outside the journal's database, one record at a time."""

    def __init__(self, spec: WorkerSpec, settle: Settle, *, lease_margin: float = LEASE_MARGIN_SECONDS) -> None:
        """Args:
        spec: of the worker.
        settle: makes the outputs of an outcome.
        lease_margin: seconds beyond an operation's deadline for which an attempt that was cut off is left alone.
        """
        self._spec = spec
        self._settle = settle
        self._lease_margin = lease_margin
        self._owner = uuid.uuid4()
        self._running: set[Identity] = set()
        self._unstored: dict[Identity, Settled] = {}

    async def run(
        self,
        lane: Lane,
        records: Sequence[Record],
        messages: Sequence[InboxMessage],
        requests: Sequence[Any],
        journal: EffectJournal,
    ) -> list[Settled]:
        """Make the effects of a batch; all of it is durable when this returns.

        When it raises, some of it may be: those records are answered from the inbox at the next attempt.

        Raises:
            DependencyBusyError: another attempt at one of the records is under way; no attempt is spent.
            Exception: of the handler or the journal, for the executor to decide on.
        """
        identities = {identity_of(message) for message in messages}
        if not self._running.isdisjoint(identities):
            raise self._busy("another executor of this process")
        self._running |= identities
        try:
            return await self._run(lane, records, messages, requests, journal)
        finally:
            self._running -= identities

    async def settle(self, failure: Settled, message: InboxMessage, journal: EffectJournal) -> Settled:
        """Make a failure the outcome of a message, unless its effect was made and only its result is not stored yet.

        Raises:
            DependencyUnavailableError, TransientError: of the journal.
        """
        return await self._conclude(self._unstored.get(identity_of(message), failure), failure.record, message, journal)

    async def _run(
        self,
        lane: Lane,
        records: Sequence[Record],
        messages: Sequence[InboxMessage],
        requests: Sequence[Any],
        journal: EffectJournal,
    ) -> list[Settled]:
        lease = lane.operation.timeout_seconds + self._lease_margin
        lease_ends = time.monotonic() + lease
        settled, asked = await self._store_late(records, messages, requests, journal)
        intents = await journal.intend([one[1] for one in asked], owner=self._owner, lease_seconds=lease)
        turns: deque[_Turn] = deque()
        held = False
        for (record, message, request), intent in zip(asked, intents, strict=True):
            if isinstance(intent, AlreadyProcessed | Reused):
                settled.append(settled_before(record, intent))
            elif isinstance(intent, Held):
                held = True
            else:
                turns.append(_Turn(record, message, request, intent))
        while turns:
            try:
                settled.append(await self._take_turn(lane, turns[0], journal, lease_ends))
            except Exception:
                await self._let_go(journal, turns)
                raise
            turns.popleft()
        if held:
            raise self._busy("another attempt")
        return settled

    async def _store_late(
        self,
        records: Sequence[Record],
        messages: Sequence[InboxMessage],
        requests: Sequence[Any],
        journal: EffectJournal,
    ) -> tuple[list[Settled], list[tuple[Record, InboxMessage, Any]]]:
        """Store results that an earlier attempt could not store; return them, and what is left to be done."""
        settled: list[Settled] = []
        left: list[tuple[Record, InboxMessage, Any]] = []
        for record, message, request in zip(records, messages, requests, strict=True):
            unstored = self._unstored.get(identity_of(message))
            if unstored is None:
                left.append((record, message, request))
            else:
                settled.append(await self._conclude(unstored, record, message, journal))
        return settled, left

    async def _take_turn(self, lane: Lane, turn: _Turn, journal: EffectJournal, lease_ends: float) -> Settled:
        settled = self._settled(lane, turn.record, await self._outcome(lane, turn, lease_ends))
        # From here on the result is known, whatever happens to the journal.
        self._remember(turn.message, settled)
        return await self._conclude(settled, turn.record, turn.message, journal)

    async def _conclude(
        self, settled: Settled, record: Record, message: InboxMessage, journal: EffectJournal
    ) -> Settled:
        claim = await journal.conclude(message, settled.outputs)
        self._forget(message)
        if isinstance(claim, Fresh):
            return Settled(record, settled.outputs, failed=settled.failed)
        return settled_before(record, claim)

    def _settled(self, lane: Lane, record: Record, outcome: Any) -> Settled:
        try:
            return self._settle(lane, record, outcome)
        except OperationRejectedError as error:
            # Such as an answer that is too large: the effect stands, and nothing takes it back.
            return self._settle(lane, record, OperationFailed.from_error(error))

    async def _outcome(self, lane: Lane, turn: _Turn, lease_ends: float) -> Any:
        """Return how the effect ended: earlier, as far as that can be found out, or now."""
        if turn.unresolved or turn.record.redrive_id:
            found = await self._resolve(lane, turn)
            if not isinstance(found, NotDone):
                return found
        if type(turn.request) is OperationFailed:
            return turn.request
        if time.monotonic() > lease_ends:
            raise self._busy("perhaps another worker, since this one stood still")
        turn.untouched = False
        try:
            (outcome,) = await lane.handler.run([turn.request], self._context(turn.record))
        except OperationRejectedError as error:
            return OperationFailed.from_error(error)
        except DependencyError:
            turn.untouched = True  # by the port's words nothing happened
            raise
        return outcome

    async def _resolve(self, lane: Lane, turn: _Turn) -> Any:
        """Return the outcome of an earlier attempt, or `NotDone` when the effect may be made now."""
        handler, operation = lane.handler, lane.operation
        request = self._decoded(lane, turn)
        if request is None:
            return NotDone()  # it never could be run
        found: Any = None
        resolvable = isinstance(handler, ResolvableHandler)
        if isinstance(handler, ResolvableHandler):
            with contextlib.suppress(OperationRejectedError):
                # A refusal to tell is no answer to the question.
                found = await handler.resolve(request, self._context(turn.record))
        if found is None and (operation.repeatable or not (turn.unresolved or resolvable)):
            # Or a dead letter that is redriven on purpose, of an operation that cannot look.
            found = NotDone()
        if isinstance(found, NotDone):
            turn.untouched = True
        outcome = found if found is not None else self._unknown(operation.name, operation.needs)
        get_logger().warning(
            LogEvent.EFFECT_RESOLVED,
            operation=operation.name,
            record=repr(turn.record),
            message_id=turn.message.message_id,
            found="unknown" if found is None else "not done" if isinstance(found, NotDone) else "done",
        )
        return outcome

    def _decoded(self, lane: Lane, turn: _Turn) -> Any:
        """Return the request even where it is too late to run it; None when there is none."""
        if type(turn.request) is not OperationFailed:
            return turn.request
        try:
            return lane.handler.decode(turn.record.envelope.data)
        except OperationRejectedError:
            return None

    def _unknown(self, operation: str, needs: Sequence[str]) -> OperationFailed:
        return OperationFailed(
            code=OutcomeUnknownError.code,
            message=f"{operation} was begun before and did not report back; whether it took effect is not known",
            dependency=needs[0] if needs else None,
        )

    def _context(self, record: Record) -> BatchContext:
        envelope = record.envelope
        return BatchContext([envelope], None, self._spec, (idempotency_key(envelope),))

    async def _let_go(self, journal: EffectJournal, turns: Sequence[_Turn]) -> None:
        """Leave intents as the next attempt is to find them, here or elsewhere."""
        untouched = [turn.message for turn in turns if turn.untouched]
        others = [turn.message for turn in turns if not turn.untouched]
        # The failure that brought us here says more than this one; a lease ends by itself.
        with contextlib.suppress(DependencyError):
            if untouched:
                await journal.withdraw(untouched, owner=self._owner)
            if others:
                await journal.give_up(others, owner=self._owner)

    def _remember(self, message: InboxMessage, settled: Settled) -> None:
        if len(self._unstored) >= MOST_UNSTORED:
            del self._unstored[next(iter(self._unstored))]
        self._unstored[identity_of(message)] = settled

    def _forget(self, message: InboxMessage) -> None:
        self._unstored.pop(identity_of(message), None)

    def _busy(self, who: str) -> DependencyBusyError:
        return DependencyBusyError(f"{who} is at this message", dependency=self._spec.worker)


def identity_of(message: InboxMessage) -> Identity:
    """Return what makes a message the same message."""
    return (message.source, message.message_id, message.redrive_id)
