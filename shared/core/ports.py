"""The protocols between the runtime and what surrounds it. Each says who calls, from where, and what a raise means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

import msgspec

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.worker_spec import WorkerSpec

IsolationLevel = Literal["read committed", "repeatable read", "serializable"]


class OutboundRecord(msgspec.Struct, frozen=True):
    """A record to produce. `topic` is logical; the producer adds the realm. `key` None has no order."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] | None = None
    partition: int | None = None


class RecordProducer(Protocol):
    """Sends records with acks=all and waits for the broker. Called from the event loop."""

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        """Return when the broker has confirmed every record; one future for all of them.

        Cancelling the wait does not recall records. Records of one key are sent in the order given.

        Raises:
            TopicNotDeclaredError: a topic the contract does not list; nothing was sent.
            DeliveryError: some records were not confirmed; they may or may not be in the log.
        """
        ...


class InboxMessage(msgspec.Struct, frozen=True):
    """A message about to be processed, as the inbox knows it.

    Attributes:
        source / message_id: its identity (CloudEvents: unique together).
        redrive_id: of a redriven dead letter; a new attempt with its own inbox row. Empty otherwise.
        payload_hash: 16 bytes over the payload; another payload under the same identity is refused.
        topic / partition / offset: where it lies, for the sweeper and for people.
        day_ms: Unix milliseconds that fix its inbox day: from the UUIDv7, else from the record's time stamp.
        timed: whether they come from the id itself, so that every record of this id has the same.
    """

    source: str
    message_id: str
    redrive_id: str
    payload_hash: bytes
    topic: str
    partition: int
    offset: int
    day_ms: int
    timed: bool = False


class StoredOutput(msgspec.Struct, frozen=True):
    """An output that was committed with its input, exactly as it is to be produced. `topic` is logical."""

    topic: str
    key: bytes | None
    value: bytes


class Fresh(msgspec.Struct, frozen=True):
    """The message is new: this transaction holds its inbox row until it ends."""


class AlreadyProcessed(msgspec.Struct, frozen=True):
    """The message was processed before; its outputs are sent again as they were."""

    outputs: tuple[StoredOutput, ...]


class Reused(msgspec.Struct, frozen=True):
    """The identity was used before with another payload."""


Claim = Fresh | AlreadyProcessed | Reused


class EffectSession(Protocol):
    """One transaction on the dependency: everything done through it happens together or not at all.

    Used by one task at a time, only inside its `async with`; leaving it by an exception rolls back.
    """

    @property
    def connection(self) -> Any:
        """The dependency's own connection, for the kit's processors; typed `Any` since the runtime never uses it."""
        ...

    async def claim(self, messages: Sequence[InboxMessage]) -> Sequence[Claim]:
        """Insert inbox rows and say, in the order given, which messages are new.

        Waits, within the store's lock time-out, for another transaction that holds one of the rows.
        Two messages of one identity must not be claimed in one call.
        """
        ...

    async def store(self, outputs: Sequence[tuple[InboxMessage, Sequence[StoredOutput]]]) -> None:
        """Keep the outputs of claimed messages in the outbox, in this transaction."""
        ...


class EffectStore(Protocol):
    """A dependency whose effects can be made to happen once. Called from the event loop; owns its time-outs."""

    @property
    def dependency(self) -> str:
        """The dependency's name, for example `postgres`."""
        ...

    def session(self, isolation: IsolationLevel | None = None) -> AbstractAsyncContextManager[EffectSession]:
        """Open a transaction; commit when the block ends normally.

        Raises (also from within the block's calls and the commit):
            DependencyUnavailableError, TransientError, BusinessError: what the driver's error stands for; an error that
                the kit does not know comes out as it is.
        """
        ...

    async def ping(self) -> None:
        """Do one cheap round trip.

        Raises:
            DependencyUnavailableError: it cannot be reached or does not answer in time.
        """
        ...


class Unresolved(msgspec.Struct, frozen=True):
    """The effect was begun before, `attempts` times, and nobody wrote down how it ended. It is this caller's now."""

    attempts: int


class Held(msgspec.Struct, frozen=True):
    """An attempt is under way, or was cut off a moment ago."""


Intent = Fresh | AlreadyProcessed | Reused | Unresolved | Held


@runtime_checkable
class EffectJournal(Protocol):
    """Remembers effects made elsewhere: what was intended before, what came of it after.

    Beside the inbox: a message whose effect ended well or badly has its inbox row there and no intent any more.
    """

    async def intend(self, messages: Sequence[InboxMessage], *, owner: UUID, lease_seconds: float) -> Sequence[Intent]:
        """Write down that the effects of these messages are about to be made; durable when it returns.

        Until `lease_seconds` have passed or the lease is given up everybody gets `Held`, the owner too: what it cut off may
        go on for a while in a thread or on the server. Two messages of one identity must not come in one call.

        Raises:
            DependencyUnavailableError, TransientError: nothing was written, or it is not known whether it was: then
                later calls say `Held` and `Unresolved`.
        """
        ...

    async def withdraw(self, messages: Sequence[InboxMessage], *, owner: UUID) -> None:
        """Take intents of this owner back: nothing happened.

        Raises:
            DependencyUnavailableError, TransientError: likewise.
        """
        ...

    async def give_up(self, messages: Sequence[InboxMessage], *, owner: UUID) -> None:
        """End the lease of intents of this owner: it is not known what happened, and nobody is at it.

        Raises:
            DependencyUnavailableError, TransientError: likewise.
        """
        ...

    async def conclude(self, message: InboxMessage, outputs: Sequence[StoredOutput]) -> Claim:
        """Store inbox row and outputs and remove the intent, in one transaction.

        Returns `Fresh`, or what was stored before: then `outputs` are dropped, the first result counts.

        Raises:
            DependencyUnavailableError, TransientError: nothing was stored, or it is not known whether it was.
        """
        ...


class BatchContext(msgspec.Struct, frozen=True):
    """What a handler may know besides the requests. One per batch.

    Attributes:
        envelopes: the messages, in the order of the requests.
        session: the open transaction of an operation that needs one, else None.
        spec: the worker's spec.
        idempotency_keys: for an operation with a journal, a key per request that is the same at each attempt, for the
            server to tell repeats by; else empty.
    """

    envelopes: Sequence[Envelope]
    session: EffectSession | None
    spec: WorkerSpec
    idempotency_keys: Sequence[str] = ()

    @property
    def connection(self) -> Any:
        """Return the dependency's own connection of the open transaction, for the kit's processors.

        Raises:
            RuntimeError: the operation runs without a transaction.
        """
        if self.session is None:
            raise RuntimeError("this operation runs without a transaction")
        return self.session.connection


class OperationHandler(Protocol):
    """One operation of a node; generated. Called from the event loop, several batches at a time."""

    def decode(self, data: msgspec.Raw) -> Any:
        """Return the request model.

        Raises:
            InvalidPayloadError: with the path of what is wrong.
        """
        ...

    def isolation(self, requests: Sequence[Any]) -> IsolationLevel | None:
        """Return the isolation level the batch's transaction needs; None for the default."""
        ...

    async def run(self, requests: Sequence[Any], context: BatchContext) -> Sequence[Any]:
        """Run the batch; return an outcome per request in the same order: a response model or `OperationFailed`.

        Raises:
            DependencyUnavailableError: the dependency is down; nothing happened or all is rolled back.
            TransientError: a later attempt may work; likewise.
            BusinessError: one of the requests is refused; the runtime bisects to find which.
            OutcomeUnknownError: the effect was begun, and whether it happened is not known: no journaled operation may
                raise one of the first two then.
            Exception: anything else counts as unknown and is retried, bisected and finally dead-lettered.
        """
        ...


class NotDone(msgspec.Struct, frozen=True):
    """The effect did not happen, and what was begun can no longer bring it about; it may be made now."""


@runtime_checkable
class ResolvableHandler(Protocol):
    """What a handler may offer beside `OperationHandler`: finding out how an effect ended that nobody wrote down."""

    async def resolve(self, request: Any, context: BatchContext) -> Any:
        """Look, and change nothing; return the outcome `run` would have had, `NotDone`, or None when it cannot be told.

        By compare-and-set index, version, read-back or the idempotency key. `context` is that of one request.

        Raises:
            DependencyUnavailableError: the dependency is down.
            TransientError: a later attempt may work.
        """
        ...


class WorkerNode(Protocol):
    """A generated node: its spec and one handler per operation, ready to run."""

    @property
    def spec(self) -> WorkerSpec:
        """The worker's spec."""
        ...

    @property
    def handlers(self) -> Mapping[str, OperationHandler]:
        """Handlers by operation name; complete, or building the node failed."""
        ...
