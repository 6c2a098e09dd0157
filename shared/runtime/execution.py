"""Execution: run a batch of one operation to its outputs, once per message where the contract says so.

Effectively once: inbox rows, effects and answers are one transaction; a redelivered message is answered from
what was stored. At least once: the effect may repeat, its output ids do not change.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core.errors import ExpiredError, IdReusedError, OperationRejectedError
from omnibase_infra.shared.core.ids import uuid7_milliseconds
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    BatchContext,
    EffectSession,
    EffectStore,
    Fresh,
    InboxMessage,
    StoredOutput,
)
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import Record

# How far a producer's clock may be ahead of ours before its `expirytime` counts.
CLOCK_TOLERANCE_SECONDS = 5.0
_LAST_DAY_MS = 253_402_128_000_000  # 9999-12-30; the day after stands for infinity in some drivers


class Settled(msgspec.Struct):
    """A record whose outcome is durable, or needs no durability: its outputs may be produced.

    Attributes:
        refused: set when the record itself goes to the dead-letter topic instead.
        failed / repeated: whether the answer is a failure; whether it was answered from the inbox.
    """

    record: Record
    outputs: Sequence[StoredOutput]
    refused: IdReusedError | None = None
    failed: bool = False
    repeated: bool = False


def inbox_message(record: Record) -> InboxMessage:
    """Return the record's identity for the inbox; its day comes from the id's own time, so it never moves."""
    envelope = record.envelope
    own_ms = uuid7_milliseconds(envelope.id)
    day_ms = own_ms if own_ms is not None else max(record.timestamp_ms, 0)
    return InboxMessage(
        source=envelope.source,
        message_id=envelope.id,
        redrive_id="",
        payload_hash=hashlib.blake2b(bytes(envelope.data), digest_size=16).digest(),
        topic=record.work.physical,
        partition=record.work.partition,
        offset=record.offset,
        # A UUIDv7 reaches beyond the calendar; a record with such an id must not fail for ever.
        day_ms=min(day_ms, _LAST_DAY_MS),
    )


def split_repeats(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return (first of each identity, the rest): one transaction claims an identity once."""
    seen: set[tuple[str, str]] = set()
    first: list[Record] = []
    rest: list[Record] = []
    for record in records:
        identity = (record.envelope.source, record.envelope.id)
        (rest if identity in seen else first).append(record)
        seen.add(identity)
    return first, rest


class Execution:
    """Runs batches of a worker's operations. Errors of the effect come out; the caller decides on them."""

    def __init__(self, spec: WorkerSpec, answers: Answers, stores: dict[str, EffectStore]) -> None:
        self._spec = spec
        self._answers = answers
        self._stores = stores

    async def run(self, lane: Lane, records: Sequence[Record]) -> list[Settled]:
        """Run a batch; all of it is durable when this returns, none of it when it raises."""
        requests = self._requests(lane, records)
        store = self._store_of(lane)
        if store is None:
            return await self._run_plain(lane, records, requests, None)
        isolation = lane.handler.isolation([request for request in requests if not _is_failure(request)])
        async with store.session(isolation) as session:
            if lane.operation.guarantee == "at_least_once":
                return await self._run_plain(lane, records, requests, session)
            return await self._run_once(lane, records, requests, session)

    async def settle(
        self, lane: Lane, record: Record, failed: OperationFailed, extra: Sequence[StoredOutput] = ()
    ) -> Settled:
        """Make a failure the record's outcome, without running it; `extra` outputs (a dead letter) go with it."""
        outputs = (*extra, *self._answers.of(record, lane.operation, failed, clock.rfc3339(time.time())))
        store = self._store_of(lane)
        if store is None or lane.operation.guarantee == "at_least_once":
            return Settled(record, outputs, failed=True)
        message = inbox_message(record)
        async with store.session() as session:
            (claim,) = await session.claim([message])
            if isinstance(claim, Fresh):
                await session.store([(message, outputs)])
                return Settled(record, outputs, failed=True)
        return _settled_before(record, claim)

    def _store_of(self, lane: Lane) -> EffectStore | None:
        """Return the store whose transaction an operation runs in, if it needs one."""
        for name in lane.operation.needs:
            if name in self._stores:
                return self._stores[name]
        return None

    async def _run_plain(
        self, lane: Lane, records: Sequence[Record], requests: Sequence[Any], session: EffectSession | None
    ) -> list[Settled]:
        outcomes = await self._outcomes(lane, records, requests, session)
        return self._settled(lane, records, outcomes)

    async def _run_once(
        self, lane: Lane, records: Sequence[Record], requests: Sequence[Any], session: EffectSession
    ) -> list[Settled]:
        messages = [inbox_message(record) for record in records]
        claims = await session.claim(messages)
        fresh = [index for index, claim in enumerate(claims) if isinstance(claim, Fresh)]
        settled = [
            _settled_before(record, claim)
            for record, claim in zip(records, claims, strict=True)
            if not isinstance(claim, Fresh)
        ]
        if fresh:
            new = [records[index] for index in fresh]
            outcomes = await self._outcomes(lane, new, [requests[index] for index in fresh], session)
            done = self._settled(lane, new, outcomes)
            await session.store([(messages[index], one.outputs) for index, one in zip(fresh, done, strict=True)])
            settled.extend(done)
        return settled

    async def _outcomes(
        self, lane: Lane, records: Sequence[Record], requests: Sequence[Any], session: EffectSession | None
    ) -> list[Any]:
        """Return an outcome per record: what was refused before running stays, the handler gives the others."""
        runnable = [index for index, request in enumerate(requests) if not _is_failure(request)]
        outcomes = list(requests)
        if not runnable:
            return outcomes
        context = BatchContext([records[index].envelope for index in runnable], session, self._spec)
        results = await lane.handler.run([requests[index] for index in runnable], context)
        if len(results) != len(runnable):
            raise RuntimeError(
                f"{lane.operation.name}: the handler returned {len(results)} outcomes for {len(runnable)} requests"
            )
        for index, result in zip(runnable, results, strict=True):
            outcomes[index] = result
        return outcomes

    def _requests(self, lane: Lane, records: Sequence[Record]) -> list[Any]:
        """Return the request model of each record, or the failure that a rejected command is answered with."""
        decode = lane.handler.decode
        requests: list[Any] = []
        for record in records:
            envelope = record.envelope
            try:
                if envelope.expirytime is not None:
                    _check_expiry(envelope.expirytime)
                requests.append(decode(envelope.data))
            except OperationRejectedError as error:
                requests.append(OperationFailed.from_error(error))
        return requests

    def _settled(self, lane: Lane, records: Sequence[Record], outcomes: Sequence[Any]) -> list[Settled]:
        operation = lane.operation
        if not operation.answer_topic:
            return [
                Settled(record, (), failed=_is_failure(outcome))
                for record, outcome in zip(records, outcomes, strict=True)
            ]
        now = clock.rfc3339(time.time())
        of = self._answers.of
        return [
            Settled(record, of(record, operation, outcome, now), failed=_is_failure(outcome))
            for record, outcome in zip(records, outcomes, strict=True)
        ]


def _is_failure(outcome: Any) -> bool:
    """Return whether a request or outcome is the failure that its command is answered with."""
    return type(outcome) is OperationFailed


def _settled_before(record: Record, claim: object) -> Settled:
    """Return what an earlier delivery of the message left to do: send its outputs again, or refuse a reused id."""
    if isinstance(claim, AlreadyProcessed):
        return Settled(record, claim.outputs, repeated=True)
    envelope = record.envelope
    return Settled(
        record,
        (),
        refused=IdReusedError(
            f"id {envelope.id[:80]!r} of {envelope.source[:120]!r} was used before with another payload",
            hint="a new message needs a new id",
        ),
    )


def _check_expiry(expirytime: str) -> None:
    late = time.time() - CLOCK_TOLERANCE_SECONDS - clock.parse_rfc3339(expirytime).timestamp()
    if late > 0:
        raise ExpiredError(f"the command expired at {expirytime}, it was not run")
