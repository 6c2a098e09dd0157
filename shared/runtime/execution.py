"""Execution: run a batch of one operation to its outputs, once per message where the contract says so.

Effectively once: inbox rows, effects and answers are one transaction; a redelivered message is answered from
what was stored. At least once: the effect may repeat, its output ids do not change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core.errors import ConfigurationError, ExpiredError, OperationRejectedError
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import (
    BatchContext,
    EffectJournal,
    EffectSession,
    EffectStore,
    Fresh,
    StoredOutput,
)
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.journaled_effects import LEASE_MARGIN_SECONDS, JournaledEffects
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import Record
from omnibase_infra.shared.runtime.settled import Settled, inbox_message, settled_before

# How far a producer's clock may be ahead of ours before its `expirytime` counts.
CLOCK_TOLERANCE_SECONDS = 5.0

__all__ = ["CLOCK_TOLERANCE_SECONDS", "Execution", "Settled", "inbox_message", "split_repeats"]


def split_repeats(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return (first of each identity, the rest): one transaction claims an identity once."""
    seen: set[tuple[str, str, str]] = set()
    first: list[Record] = []
    rest: list[Record] = []
    for record in records:
        identity = (record.envelope.source, record.envelope.id, record.redrive_id)
        (rest if identity in seen else first).append(record)
        seen.add(identity)
    return first, rest


class Execution:
    """Runs batches of a worker's operations. Errors of the effect come out; the caller decides on them."""

    def __init__(
        self,
        spec: WorkerSpec,
        answers: Answers,
        stores: dict[str, EffectStore],
        *,
        lease_margin: float = LEASE_MARGIN_SECONDS,
    ) -> None:
        """Args:
        spec: whose operations.
        answers: makes their answers.
        stores: by dependency.
        lease_margin: see `JournaledEffects`.
        """
        self._spec = spec
        self._answers = answers
        self._stores = stores
        self._journaled = JournaledEffects(spec, self._settled_one, lease_margin=lease_margin)

    async def run(self, lane: Lane, records: Sequence[Record]) -> list[Settled]:
        """Run a batch; all of it is durable when this returns, none of it when it raises."""
        requests = self._requests(lane, records)
        if lane.operation.effect == "journal":
            return await self._run_elsewhere(lane, records, requests)
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
        if lane.operation.guarantee == "at_least_once":
            return Settled(record, outputs, failed=True)
        message = inbox_message(record)
        if lane.operation.effect == "journal":
            return await self._journaled.settle(Settled(record, outputs, failed=True), message, self._journal_of(lane))
        store = self._store_of(lane)
        if store is None:
            return Settled(record, outputs, failed=True)
        async with store.session() as session:
            (claim,) = await session.claim([message])
            if isinstance(claim, Fresh):
                await session.store([(message, outputs)])
                return Settled(record, outputs, failed=True)
        return settled_before(record, claim)

    def _store_of(self, lane: Lane) -> EffectStore | None:
        """Return the store whose transaction an operation runs in, if it needs one."""
        for name in lane.operation.needs:
            if name in self._stores:
                return self._stores[name]
        return None

    def _journal_of(self, lane: Lane) -> EffectJournal:
        for name in lane.operation.needs:
            store: object = self._stores.get(name)
            if isinstance(store, EffectJournal):
                return store
        raise ConfigurationError(
            f"{lane.operation.name}: an effect elsewhere that happens once needs a journal",
            hint="add `postgres` to what the operation needs",
        )

    async def _run_elsewhere(self, lane: Lane, records: Sequence[Record], requests: Sequence[Any]) -> list[Settled]:
        """Run what has its effect outside the store: with a journal where it must happen once."""
        if lane.operation.guarantee == "at_least_once":
            return await self._run_plain(lane, records, requests, None)
        messages = [inbox_message(record) for record in records]
        return await self._journaled.run(lane, records, messages, requests, self._journal_of(lane))

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
            settled_before(record, claim)
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
        if requests and OperationFailed not in set(map(type, requests)):  # most often nothing was refused
            return [*await self._results(lane, records, requests, session)]
        runnable = [index for index, request in enumerate(requests) if not _is_failure(request)]
        outcomes = list(requests)
        if not runnable:
            return outcomes
        chosen = [records[index] for index in runnable]
        results = await self._results(lane, chosen, [requests[index] for index in runnable], session)
        for index, result in zip(runnable, results, strict=True):
            outcomes[index] = result
        return outcomes

    async def _results(
        self, lane: Lane, records: Sequence[Record], requests: Sequence[Any], session: EffectSession | None
    ) -> Sequence[Any]:
        """Return what the handler makes of requests, one outcome each."""
        context = BatchContext([record.envelope for record in records], session, self._spec)
        results = await lane.handler.run(requests, context)
        if len(results) != len(requests):
            raise RuntimeError(
                f"{lane.operation.name}: the handler returned {len(results)} outcomes for {len(requests)} requests"
            )
        return results

    def _requests(self, lane: Lane, records: Sequence[Record]) -> list[Any]:
        """Return the request model of each record, or the failure that a rejected command is answered with."""
        decode = lane.handler.decode
        requests: list[Any] = []
        for record in records:
            if record.refusal is not None:
                requests.append(OperationFailed.from_error(record.refusal))
                continue
            envelope = record.envelope
            try:
                # A redrive is a new attempt: the time its sender waited for the first one is long over.
                if envelope.expirytime is not None and not record.redrive_id:
                    _check_expiry(envelope.expirytime)
                requests.append(decode(envelope.data))
            except OperationRejectedError as error:
                requests.append(OperationFailed.from_error(error))
        return requests

    def _settled_one(self, lane: Lane, record: Record, outcome: Any) -> Settled:
        return self._settled(lane, (record,), (outcome,))[0]

    def _settled(self, lane: Lane, records: Sequence[Record], outcomes: Sequence[Any]) -> list[Settled]:
        operation = lane.operation
        if not operation.answer_topic:
            return [
                Settled(record, (), failed=type(outcome) is OperationFailed)
                for record, outcome in zip(records, outcomes, strict=True)
            ]
        now = clock.rfc3339(time.time())
        of = self._answers.of
        return [
            Settled(record, of(record, operation, outcome, now), failed=type(outcome) is OperationFailed)
            for record, outcome in zip(records, outcomes, strict=True)
        ]


def _is_failure(outcome: Any) -> bool:
    """Return whether a request or outcome is the failure that its command is answered with."""
    return type(outcome) is OperationFailed


def _check_expiry(expirytime: str) -> None:
    late = time.time() - CLOCK_TOLERANCE_SECONDS - clock.parse_rfc3339(expirytime).timestamp()
    if late > 0:
        raise ExpiredError(f"the command expired at {expirytime}, it was not run")
