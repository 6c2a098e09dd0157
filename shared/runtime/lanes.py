"""Lanes: records of one key run in order, different keys in parallel, batches hold one record of a key.

A lane is one operation's queue of runnable records. Only the first unfinished record of a key is ever runnable;
the others wait in their partition's `busy` table and move up one by one. All on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.ports import OperationHandler
from omnibase_infra.shared.core.worker_spec import OperationSpec
from omnibase_infra.shared.runtime.records import DONE, GONE, RUNNING, WAITING, PartitionWork, Record

# Below this a batch is not divided: the fixed cost of a transaction would outweigh what runs side by side.
SMALLEST_SHARE: Final = 64


class Passage(Protocol):
    """A batch's way past the gate. Its holder reports how the dependencies behaved; reporting twice is harmless."""

    @property
    def limit(self) -> int | None:
        """How many records may use it: None for no bound, 1 for the probe of a breaker."""
        ...

    def succeeded(self) -> None:
        """Report that the dependencies answered."""
        ...

    def failed(self, error: DependencyUnavailableError) -> None:
        """Report that one of them is down."""
        ...

    def silent(self) -> str | None:
        """Return the name of a dependency that did not answer when it was last asked, if there is one."""
        ...

    def release(self) -> None:
        """Give the passage back without saying anything about the dependencies."""
        ...


class Gate(Protocol):
    """What may hold a lane back: the breakers of the dependencies its operation needs."""

    def enter(self) -> Passage | None:
        """Return a passage, or None when nothing may start now."""
        ...

    def seconds_until_open(self) -> float:
        """Return how long to wait before asking again, when there was no passage."""
        ...


class ParkingLot(Protocol):
    """What keeps the records of retry partitions."""

    def left(self, record: Record) -> None:
        """Note that a record of a retry partition is no longer in memory."""
        ...

    def closed(self, works: Iterable[PartitionWork]) -> None:
        """Forget partitions that are given up."""
        ...


class Lane:
    """The runnable records of one operation, and the executors that wait for them."""

    def __init__(self, operation: OperationSpec, handler: OperationHandler, gate: Gate) -> None:
        self.operation = operation
        self.handler = handler
        self.gate = gate
        self._ready: deque[Record] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def push(self, record: Record) -> None:
        """Make a record runnable."""
        self._ready.append(record)
        if self._waiting:
            self._wake_one()

    def push_back(self, records: Iterable[Record]) -> None:
        """Make records runnable again, before all others; they are the first of their keys still."""
        self._ready.extendleft(records)
        self._wake_one()

    async def take(self) -> tuple[list[Record], Passage]:
        """Wait for runnable records and return up to a batch of them, with their passage.

        Records of partitions given up meanwhile are left out. An operation with a linger waits that long for
        a fuller batch; without one a batch is whatever became ready while the executors were busy.
        """
        operation = self.operation
        while True:
            await self._something_ready()
            if operation.linger_seconds and len(self._ready) < operation.batch_max:
                await asyncio.sleep(operation.linger_seconds)
            if not self._ready:
                continue
            passage = self.gate.enter()
            if passage is None:
                await asyncio.sleep(self.gate.seconds_until_open())
                continue
            batch = self._pop(self._share() if passage.limit is None else 1)
            if batch:
                if self._ready:
                    self._wake_one()
                return batch, passage
            passage.release()

    def _share(self) -> int:
        """Return how many records this executor takes: its share, so that idle ones work beside it.

        With few keys there are never more runnable records than keys, and one executor that took them all would
        leave the others idle: while its transaction waits for the server, theirs could be prepared.
        """
        ready, idle = len(self._ready), len(self._waiting)
        return min(self.operation.batch_max, max(SMALLEST_SHARE, -(-ready // (idle + 1))))

    def _pop(self, limit: int) -> list[Record]:
        batch: list[Record] = []
        ready = self._ready
        while ready and len(batch) < limit:
            record = ready.popleft()
            if record.work.closed:
                continue
            record.stage = RUNNING
            record.work.running += 1
            batch.append(record)
        return batch

    def withdraw(self, wanted: Callable[[Record], bool]) -> list[Record]:
        """Take runnable records out of the lane, in order, as if to run them; the others stay."""
        taken: list[Record] = []
        kept: deque[Record] = deque()
        for record in self._ready:
            if not record.work.closed and wanted(record):
                record.stage = RUNNING
                record.work.running += 1
                taken.append(record)
            else:
                kept.append(record)
        self._ready = kept
        return taken

    def drop(self, works: set[PartitionWork]) -> None:
        """Forget runnable records of partitions given up."""
        self._ready = deque(record for record in self._ready if record.work not in works)

    async def _something_ready(self) -> None:
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # the wake-up meant for this executor goes to another one
                raise

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Lanes:
    """All lanes of a worker and the order of keys across them."""

    def __init__(self, on_left: Callable[[int, int], None]) -> None:
        """Take the callback for (records, bytes) that left the worker."""
        self._on_left = on_left
        self.by_operation: dict[str, Lane] = {}
        self.parking: ParkingLot | None = None

    def add(self, lane: Lane) -> None:
        """Register an operation's lane."""
        self.by_operation[lane.operation.name] = lane

    def submit(self, record: Record) -> None:
        """Run the record now if its key is free, else queue it behind its key. A null key has no order."""
        key = record.key
        lane, work = record.lane, record.work
        assert lane is not None
        ordered = key is not None and lane.operation.ordering != "none"
        parking = work.parking
        if (
            parking is not None
            and (parking.keys or record.offset < parking.known_below)
            and parking.takes_over(record, ordered=ordered)
        ):
            return
        if key is None or not ordered:
            lane.push(record)
            return
        busy = work.busy
        if key not in busy:
            busy[key] = None
            lane.push(record)
            return
        waiting = busy[key]
        if waiting is None:
            busy[key] = deque((record,))
        else:
            waiting.append(record)

    def finish(self, records: Iterable[Record]) -> None:
        """Mark records done and let the next of their keys run."""
        count = size = 0
        for record in records:
            if record.stage == GONE:
                continue  # given up while its dead letter was being written; counted then
            work = record.work
            if record.stage == RUNNING:
                work.running -= 1
            record.stage = DONE
            key = record.key
            if record.origin is not None and work.parking is not None:
                self._left_retry(record)
                work.parking.finished(record)
            elif work.is_retry:
                self._left_retry(record)
            else:
                count += 1
                size += record.size
                # Only a key that is ordered and in flight is in the table, so membership says it all.
                if key is not None and key in work.busy and record.lane is not None:
                    self._release(work, key, record.lane)
            record.forget_content()
        self._on_left(count, size)

    def retire(self, records: Iterable[Record]) -> None:
        """Mark records done that hold no key: parked ones, and those that are known already."""
        count = size = 0
        for record in records:
            if record.stage == GONE:
                continue
            if record.stage == RUNNING:
                record.work.running -= 1
            record.stage = DONE
            if record.work.is_retry:
                self._left_retry(record)
            else:
                count += 1
                size += record.size
            record.forget_content()
        self._on_left(count, size)

    def give_up_key(self, record: Record) -> Iterable[Record]:
        """Free the key of a record in flight without letting the next run; return those that waited behind it."""
        assert record.key is not None
        return record.work.busy.pop(record.key, None) or ()

    def put_back(self, record: Record) -> None:
        """Let a running record wait, outside its lane; of a partition given up it leaves the worker."""
        record.work.running -= 1
        if record.work.closed:
            self._leave((record,))
        else:
            record.stage = WAITING

    def requeue(self, records: Iterable[Record]) -> None:
        """Make running records runnable again, in order; those of partitions given up leave the worker."""
        again: dict[Lane, list[Record]] = {}
        gone: list[Record] = []
        for record in records:
            record.work.running -= 1
            if record.work.closed:
                gone.append(record)
            else:
                record.stage = WAITING
                assert record.lane is not None
                again.setdefault(record.lane, []).append(record)
        for lane, waiting in again.items():
            lane.push_back(reversed(waiting))
        self._leave(gone)

    def postpone(self, record: Record, delay: float) -> None:
        """Make a running record runnable again after `delay` seconds; its key waits, others flow."""
        record.work.running -= 1
        record.stage = WAITING
        asyncio.get_running_loop().call_later(delay, self._resume, record)

    def _resume(self, record: Record) -> None:
        if record.stage == WAITING and record.lane is not None:
            if record.work.closed:
                self._leave((record,))
            else:
                record.lane.push_back((record,))

    def close(self, works: Iterable[PartitionWork]) -> None:
        """Drop everything of these partitions that has not started; what runs goes on to its end."""
        closing = set(works)
        for work in closing:
            work.closed = True
            work.busy.clear()
        if self.parking is not None:
            self.parking.closed(closing)
        for lane in self.by_operation.values():
            lane.drop(closing)
        for work in closing:
            self._leave(work.waiting())

    def _leave(self, records: Iterable[Record]) -> None:
        count = size = 0
        for record in records:
            record.stage = GONE
            if record.work.is_retry:
                self._left_retry(record)
            else:
                count += 1
                size += record.size
        if count:
            self._on_left(count, size)

    def _left_retry(self, record: Record) -> None:
        """Count a record of a retry partition out where it was counted in: they have a bound of their own."""
        if self.parking is not None:
            self.parking.left(record)

    def _release(self, work: PartitionWork, key: bytes, lane: Lane) -> None:
        """Let the next record of a key run."""
        if lane.operation.ordering == "none":
            return
        busy = work.busy
        waiting = busy[key]
        if work.parking is not None and key in work.parking.keys:
            del busy[key]
            work.parking.key_is_free(key, waiting or ())
            return
        if not waiting:
            del busy[key]
            return
        following = waiting.popleft()
        assert following.lane is not None
        following.lane.push(following)
