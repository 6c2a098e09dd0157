"""Writes a row per record and does what else the record asks for."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence

from fault_probe.v1_0_0.models import ModelProbe, ModelProbeDone
from fault_probe.v1_0_0.port import ProbeOutcome
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import BatchContext
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool

_COUNT_ATTEMPT = """INSERT INTO faults.attempts (message_id, made) VALUES ($1, 1)
    ON CONFLICT (message_id) DO UPDATE SET made = attempts.made + 1 RETURNING made"""
_WRITE = """INSERT INTO faults.effects (message_id, key, sequence, pid)
    SELECT id, key, sequence, $4 FROM unnest($1::text[], $2::text[], $3::int[]) AS rows (id, key, sequence)"""


class FaultAskedForError(Exception):
    """What a record that asks for `fail` gets; nobody knows whether a later attempt would work."""


class ProbeProcessor:
    """Writes a row and does what else the record asks for."""

    def __init__(self, postgres_pool: PostgresConnectionPool) -> None:
        self._pool = postgres_pool

    async def run(self, requests: Sequence[ModelProbe], context: BatchContext) -> Sequence[ProbeOutcome]:
        """Misbehave as asked for, then write the rows of those that are left at once."""
        ids = [envelope.id for envelope in context.envelopes]
        outcomes: list[ProbeOutcome] = []
        for request, message_id in zip(requests, ids, strict=True):
            outcomes.append(await self._misbehave(request, message_id, context))
        written = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, ModelProbeDone)]
        await context.connection.execute(
            _WRITE,
            [ids[index] for index in written],
            [requests[index].key for index in written],
            [requests[index].sequence for index in written],
            os.getpid(),
        )
        if any(requests[index].action == "exit_after_row" for index in written):
            await self._exit_unless_done([(requests[index], ids[index]) for index in written])
        return outcomes

    async def _misbehave(self, request: ModelProbe, message_id: str, context: BatchContext) -> ProbeOutcome:
        action = request.action
        if action == "reject":
            return OperationFailed(code="rejected-as-asked", message="the record asked for it")
        if action in {"fail", "exit", "sleep", "block"} and await self._goes_wrong(request, message_id):
            if action == "fail":
                raise FaultAskedForError(f"record {request.sequence} of its key asked for a failure")
            if action == "exit":
                os.kill(os.getpid(), signal.SIGKILL)
            elif action == "sleep":
                await asyncio.sleep(request.seconds)
            else:
                time.sleep(request.seconds)
        elif action == "lock":
            await context.connection.execute("SELECT pg_advisory_xact_lock($1)", request.lock)
        return ModelProbeDone(key=request.key, sequence=request.sequence)

    async def _exit_unless_done(self, written: Sequence[tuple[ModelProbe, str]]) -> None:
        for request, message_id in written:
            if request.action == "exit_after_row" and await self._goes_wrong(request, message_id):
                os.kill(os.getpid(), signal.SIGKILL)

    async def _goes_wrong(self, request: ModelProbe, message_id: str) -> bool:
        """Count the attempt, outside the transaction; return whether it is one of those that go wrong."""
        async with self._pool.acquire() as connection:
            made = await connection.fetchval(_COUNT_ATTEMPT, message_id)
        return not request.times or made <= request.times
