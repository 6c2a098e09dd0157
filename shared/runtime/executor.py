"""Executors: take batches from lanes, run them, decide on failures, deliver outputs, finish records.

The one place where an error becomes an answer, a retry or a dead letter.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core.errors import (
    DependencyBusyError,
    DependencyError,
    DependencyUnavailableError,
    NewerContractError,
    OmnibaseError,
    OperationRejectedError,
    QuarantinedError,
    RateLimitedError,
    TransientError,
    error_code,
)
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import StoredOutput
from omnibase_infra.shared.core.redaction import sanitised
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.resilience.retry_policy import RetryPolicy
from omnibase_infra.shared.runtime.careful import Careful
from omnibase_infra.shared.runtime.completion import Completion
from omnibase_infra.shared.runtime.dead_letters import DeadLetters
from omnibase_infra.shared.runtime.delivery import OutputDelivery
from omnibase_infra.shared.runtime.execution import Execution, Settled, split_repeats
from omnibase_infra.shared.runtime.lane_retry import LONGEST_WAIT_SECONDS
from omnibase_infra.shared.runtime.lanes import Lane, Lanes, Passage
from omnibase_infra.shared.runtime.newer_contract import newer_contract
from omnibase_infra.shared.runtime.parking import Parking
from omnibase_infra.shared.runtime.rate_gate import RateGate
from omnibase_infra.shared.runtime.records import GONE, Record
from omnibase_infra.shared.runtime.refusal_answers import RefusalAnswers

# Between two tries while a dependency fails and its breaker has not opened yet.
UNAVAILABLE_DELAY_SECONDS: Final = 0.2
# Until records are offered again that could not run while partitions were given up.
GIVEN_BACK_SECONDS: Final = 0.05
# Between two tries to make a failure durable.
SETTLE_DELAY_SECONDS: Final = 1.0


class Executor:
    """Runs the lanes of one worker. All on the event loop; `run` lives as long as the worker."""

    def __init__(  # noqa: PLR0913 - the parts it puts together
        self,
        spec: WorkerSpec,
        *,
        lanes: Lanes,
        execution: Execution,
        delivery: OutputDelivery,
        dead_letters: DeadLetters,
        refusal_answers: RefusalAnswers,
        retry: RetryPolicy,
        metrics: WorkerMetrics,
        log: Any,
        parking: Parking,
        careful: Careful,
        rates: RateGate | None = None,
    ) -> None:
        self._spec = spec
        self._lanes = lanes
        self._execution = execution
        self._dead_letters = dead_letters
        self._retry = retry
        self._log = log
        self._parking = parking
        self._careful = careful
        self._rates = rates
        self._completion = Completion(
            spec,
            lanes=lanes,
            delivery=delivery,
            dead_letters=dead_letters,
            refusal_answers=refusal_answers,
            parking=parking,
            metrics=metrics,
            log=log,
        )
        self._refusals: deque[tuple[Record, BaseException]] = deque()
        self._refused = asyncio.Event()

    async def run(self) -> None:
        """Run all lanes until cancelled.

        Raises:
            TooManyDeadLettersError: the contract's limit is reached (in an exception group).
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_refusals(), name="refusals")
            group.create_task(self._parking.run(), name="parking")
            for lane in self._lanes.by_operation.values():
                for number in range(lane.operation.concurrency):
                    group.create_task(self._run_lane(lane), name=f"{lane.operation.name}-{number}")

    def refuse(self, record: Record, error: BaseException) -> None:
        """Send a record that no handler may see to the dead-letter topic."""
        self._refusals.append((record, error))
        self._refused.set()

    def died_late(self) -> None:
        """Count a dead letter of a record that had finished, and whose output the broker does not take.

        Raises:
            TooManyDeadLettersError: the contract's limit is reached.
        """
        self._completion.died(1)

    async def _run_refusals(self) -> None:
        while True:
            await self._refused.wait()
            self._refused.clear()
            while self._refusals:
                refused = [self._refusals.popleft() for _ in range(min(500, len(self._refusals)))]
                await self._completion.bury([(record, error) for record, error in refused if record.stage != GONE])

    async def _run_lane(self, lane: Lane) -> None:
        once = lane.operation.guarantee != "at_least_once"
        while True:
            batch, passage = await lane.take()
            if self._rates is not None and not (batch := self._within_limits(self._rates, lane, batch)):
                passage.release()
                continue
            if newer := self._newer(lane, batch):
                batch = await self._set_newer_aside(lane, batch, newer, passage)
            if not batch:
                passage.release()
                continue
            if self._careful.wants(batch):
                await self._run_carefully(lane, batch, passage)
                continue
            repeats: list[Record] = []
            if once and len(batch) > 1:
                batch, repeats = split_repeats(batch)
            await self._run_batch(lane, batch, passage)
            if repeats:
                self._lanes.requeue(repeats)

    def _newer(self, lane: Lane, batch: Sequence[Record]) -> dict[Record, NewerContractError]:
        """Return which records of a batch are meant for a newer version of this worker."""
        usual = (None, lane.operation.request_schema)
        # One record of each schema says it for all, and there are few: a batch seldom needs the second look.
        examples = {record.envelope.dataschema: record for record in batch}
        if all(newer_contract(self._spec, lane, record) is None for record in examples.values()):
            return {}
        return {
            record: error
            for record in batch
            if record.envelope.dataschema not in usual
            and (error := newer_contract(self._spec, lane, record)) is not None
        }

    async def _set_newer_aside(
        self, lane: Lane, batch: Sequence[Record], newer: Mapping[Record, NewerContractError], passage: Passage
    ) -> list[Record]:
        """Let records wait as after a failure that may pass; return the others."""
        settled: list[Settled] = []
        for record, error in newer.items():
            settled += await self._failed(lane, record, error, passage)
        if settled:
            await self._completion.complete(lane, settled)
        return [record for record in batch if record not in newer]

    def _within_limits(self, rates: RateGate, lane: Lane, batch: Sequence[Record]) -> list[Record]:
        """Return the records that may run now; let the others wait, in their lane or in the retry topic."""
        runnable, held = rates.split(lane.operation.name, batch)
        for record, seconds, park in held:
            if park and record.work.parking is not None:
                self._parking.park(record, RateLimitedError("waits for its place in the contract's limits"), seconds)
            else:
                self._lanes.postpone(record, seconds)
        return runnable

    async def _run_batch(self, lane: Lane, batch: Sequence[Record], passage: Passage) -> None:
        started = time.perf_counter()
        settled = await self._attempt(lane, batch, passage)
        self._completion.observe(lane, len(batch), time.perf_counter() - started)
        if settled:
            await self._completion.complete(lane, settled)

    async def _run_carefully(self, lane: Lane, batch: Sequence[Record], passage: Passage) -> None:
        """Run a group with nothing beside it in the whole process, named in a commit first: it may kill the process."""
        group = self._careful.choose(batch)
        self._lanes.requeue(batch[len(group) :])
        try:
            async with self._careful.turn(group) as may_run:
                if not may_run:
                    for record in group:
                        self._lanes.postpone(record, GIVEN_BACK_SECONDS)
                elif len(group) == 1 and self._careful.is_guilty(group[0]):
                    await self._quarantine(lane, group[0])
                else:
                    first, repeats = split_repeats(group)
                    await self._run_batch(lane, first, passage)
                    self._lanes.requeue(repeats)
        finally:
            passage.release()

    async def _quarantine(self, lane: Lane, record: Record) -> None:
        """Give up on a record unseen."""
        deaths = record.work.crash.deaths
        error = QuarantinedError(f"the process died {deaths} times while this record ran; it was not run again")
        record.attempts = deaths
        self._log_failure(lane, record, error)
        dead = self._dead_letters.output(record, error, time.time())
        await self._completion.complete(
            lane, [await self._settle_somehow(lane, record, _last_failure(error, record), (dead,))]
        )

    async def _settle_somehow(
        self, lane: Lane, record: Record, failed: OperationFailed, extra: Sequence[StoredOutput]
    ) -> Settled:
        """Make a failure durable, however long that takes."""
        while True:
            try:
                return await self._execution.settle(lane, record, failed, extra)
            except DependencyError as error:
                self._log_failure(lane, record, error)
                await asyncio.sleep(SETTLE_DELAY_SECONDS)

    async def _attempt(self, lane: Lane, records: Sequence[Record], passage: Passage) -> list[Settled]:
        """Run records, halving the batch until the ones that fail are alone; return those with an outcome."""
        try:
            settled = await self._within_deadline(lane, records, passage)
        except DependencyUnavailableError as error:
            self._unavailable(records, error, passage)
            return []
        except asyncio.CancelledError:
            passage.release()
            raise
        except Exception as error:  # noqa: BLE001 - decided on below: answer, retry or dead letter
            if _came_from(error, lane.operation.needs):
                passage.succeeded()
            else:
                passage.release()
            if self._tried_again_whole(lane, records, error):
                return []
            if len(records) == 1:
                return await self._failed(lane, records[0], error, passage)
            middle = len(records) // 2
            first = await self._attempt(lane, records[:middle], passage)
            return [*first, *await self._attempt(lane, records[middle:], passage)]
        passage.succeeded()
        return settled

    def _tried_again_whole(self, lane: Lane, records: Sequence[Record], error: Exception) -> bool:
        """Postpone a batch as it is where halving would find nobody to blame: no room, a deadlock, a time-out.

        A busy dependency spends no attempt. Otherwise each record spends one; when they are used up the batch is
        halved after all, so that one record cannot hold the others for ever.
        """
        if isinstance(error, DependencyBusyError):
            self._log.warning(LogEvent.DEPENDENCY_BUSY, dependency=error.dependency, error=error.message)
            for record in records:
                self._lanes.postpone(record, UNAVAILABLE_DELAY_SECONDS)
            return True
        attempt = max(record.attempts for record in records) + 1
        if len(records) == 1 or not isinstance(error, TransientError) or not self._retry.allows(attempt):
            return False
        self._completion.count(lane, "retried", len(records))
        self._log_failure(lane, records[0], error)
        delay = self._retry.delay(attempt)
        for record in records:
            record.attempts = attempt
            self._lanes.postpone(record, delay)
        return True

    async def _within_deadline(self, lane: Lane, records: Sequence[Record], passage: Passage) -> list[Settled]:
        """Run records; a deadline missed while a dependency is silent is the dependency's fault, else the handler's."""
        limit = lane.operation.timeout_seconds
        try:
            async with asyncio.timeout(limit) as deadline:
                return await self._execution.run(lane, records)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            late = f"{lane.operation.name} did not finish within {limit:g} s"
            if (silent := passage.silent()) is not None:
                raise DependencyUnavailableError(f"{late}, and {silent} does not answer", dependency=silent) from error
            raise TransientError(late, dependency=self._spec.worker) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this executor: let through, it would end one silently and leave its lane short of it.
            raise TransientError(
                f"{lane.operation.name} waited for something that was cancelled", dependency=self._spec.worker
            ) from error

    async def _failed(self, lane: Lane, record: Record, error: Exception, passage: Passage) -> list[Settled]:
        """Decide on a record that failed alone."""
        record.attempts += 1
        try:
            if isinstance(error, OperationRejectedError):
                record.attempts -= 1
                return [await self._execution.settle(lane, record, OperationFailed.from_error(error))]
            now = time.time()
            record.first_failed_at = record.first_failed_at or clock.rfc3339(now)
            self._log_failure(lane, record, error)
            if self._retry.allows(record.attempts):
                self._completion.count(lane, "retried", 1)
                self._lanes.postpone(record, self._retry.delay(record.attempts))
                return []
            delay = self._parking.delay_after(record.attempts)
            if delay is not None and record.work.parking is not None:
                self._completion.count(lane, "retried", 1)
                self._log.info(LogEvent.RECORD_PARKED, record=repr(record), attempt=record.attempts, seconds=delay)
                self._parking.park(record, error, delay)
                return []
            dead = self._dead_letters.output(record, error, now)
            self._log_death(record, error)
            return [await self._execution.settle(lane, record, _last_failure(error, record), (dead,))]
        except DependencyUnavailableError as unavailable:
            record.attempts = max(0, record.attempts - 1)
            self._unavailable((record,), unavailable, passage)
        except Exception as failure:  # noqa: BLE001 - one record whose outcome cannot be stored must not end the worker
            # It is not finished, so it is tried again from the start, and nothing after it is committed.
            self._log_failure(lane, record, failure)
            self._lanes.postpone(record, SETTLE_DELAY_SECONDS)
        return []

    def _unavailable(self, records: Iterable[Record], error: DependencyUnavailableError, passage: Passage) -> None:
        """Put records back without spending an attempt; the breaker decides when anything runs again."""
        self._log.warning(LogEvent.DEPENDENCY_UNAVAILABLE, dependency=error.dependency, error=error.message)
        passage.failed(error)
        # A service that has its breaker in the handler says when asking it again is worth it.
        retry_in = min(getattr(error, "retry_in_seconds", 0.0), LONGEST_WAIT_SECONDS)
        for record in records:
            self._lanes.postpone(record, max(UNAVAILABLE_DELAY_SECONDS, retry_in))

    def _log_death(self, record: Record, error: Exception) -> None:
        self._log.error(
            LogEvent.RECORD_DEAD,
            record=repr(record),
            message_id=record.envelope.id,
            correlation_id=record.envelope.conversation,
            attempts=record.attempts,
            code=error_code(error),
        )

    def _log_failure(self, lane: Lane, record: Record, error: BaseException) -> None:
        self._log.warning(
            LogEvent.BATCH_FAILED,
            operation=lane.operation.name,
            record=repr(record),
            correlation_id=record.envelope.conversation,
            message_id=record.envelope.id,
            attempt=record.attempts,
            code=error_code(error),
            error_type=type(error).__name__,
            error=sanitised(str(error)),
        )


def _came_from(error: Exception, needs: tuple[str, ...]) -> bool:
    """Return whether the error is an answer of one of the dependencies, which proves that it is there.

    Having no room for us is none: our own connections may all hang in a server that is silent.
    """
    return getattr(error, "dependency", None) in needs and not isinstance(error, DependencyBusyError)


def _last_failure(error: Exception, record: Record) -> OperationFailed:
    """Return the answer to a command that is given up on. An unknown error's text stays in the dead letter."""
    known = isinstance(error, OmnibaseError)
    return OperationFailed(
        code=error_code(error),
        message=sanitised(str(error)) if known else f"failed {record.attempts} times; its dead letter says why",
        retryable=known and error.retryable,  # type: ignore[attr-defined]  # `known` is the isinstance test
        dependency=getattr(error, "dependency", None),
        attempts=record.attempts,
    )
