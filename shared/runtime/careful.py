"""After a death of the process: run one record at a time, and name it in a commit before it runs.

If that record kills the process, its name is found by the next owner; a record named often enough is not run again.
The first death costs a few records run this way; a second one, before all that may have caused it is finished, as
many as it takes. A worker that is stopped cleanly never comes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.runtime.crash_record import NOBODY
from omnibase_infra.shared.runtime.records import DONE, GONE, PartitionWork, Record

# Of each partition, after a first death: most deaths are nobody's fault, and the next one tells.
FIRST_RECORDS: Final = 100
_AGAIN_SECONDS: Final = 0.1

CommitNow = Callable[[Sequence[PartitionWork], Callable[[bool], None]], None]


class Careful:
    """Hands out turns while some partition is suspect. On the event loop but for `watch`."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._left: dict[PartitionWork, int | None] = {}
        # What is parked may not be due for long: the worker does not wait for it, but names it when it runs.
        self._retries: set[PartitionWork] = set()
        self._named: PartitionWork | None = None
        self.commit_now: CommitNow | None = None
        self.hurry: Callable[[bool], None] = lambda _hurried: None

    def wants(self, batch: Sequence[Record]) -> bool:
        """Return whether these records must run one at a time."""
        if not self._left and not self._retries:
            return False
        self._look()
        return bool(self._left) or any(record.work in self._retries for record in batch)

    def watch(self, works: Iterable[PartitionWork]) -> None:
        """Look at partitions that were assigned; those with a death in their commits are suspect."""
        troubled = [work for work in works if work.crash.deaths]
        if not troubled:
            return
        if not self._left:
            self._log.warning(
                LogEvent.CAREFUL_START,
                partitions=[f"{work.physical}[{work.partition}]" for work in troubled],
                deaths=max(work.crash.deaths for work in troubled),
            )
        self._retries.update(work for work in troubled if work.is_retry)
        self._left |= {
            work: FIRST_RECORDS if work.crash.deaths == 1 else None for work in troubled if not work.is_retry
        }
        self.hurry(bool(self._left))

    def forget(self, works: Iterable[PartitionWork]) -> None:
        """Forget partitions that are given up."""
        for work in works:
            self._retries.discard(work)
            self._end(work)

    def _look(self) -> None:
        """Stop being careful with partitions that are past what may have killed the process."""
        for work in [work for work in self._left if work.finished_to >= work.crash.until]:
            self._end(work)
        for work in [work for work in self._retries if work.finished_to >= work.crash.until]:
            self._retries.discard(work)

    @asynccontextmanager
    async def turn(self, record: Record) -> AsyncIterator[int]:
        """Wait for this record's turn and name it; yield the deaths it is to be given up for, 0 to run it."""
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            work = record.work
            guilty = work.crash.is_guilty(record.offset)
            if not guilty and record.offset < work.crash.until:
                await self._name(record)
            yield work.crash.deaths if guilty else 0
            if record.stage in (DONE, GONE):
                self._count(work)
            self._look()
        finally:
            self._unname(record.work)
            self._turn.release()

    def _unname(self, work: PartitionWork) -> None:
        """Say that the record named last has ended, so that nobody blames it for a later death."""
        if work.crash.running != NOBODY:
            work.crash = work.crash.naming(NOBODY)
            if not self._waiting and self.commit_now is not None:
                self.commit_now((work,), lambda _: None)  # else the next one's commit says it

    async def _name(self, record: Record) -> None:
        """Commit that this record is running; a commit that fails is repeated while the partition is ours."""
        work = record.work
        work.crash = work.crash.naming(record.offset)
        works = [work] if self._named in (None, work) or self._named.closed else [self._named, work]
        self._named = work
        assert self.commit_now is not None
        while not work.closed:
            answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self.commit_now(works, partial(_answer, answer))
            if await answer:
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    def _count(self, work: PartitionWork) -> None:
        left = self._left.get(work)
        if left is not None:
            self._left[work] = left - 1
            if left <= 1:
                self._end(work)

    def _end(self, work: PartitionWork) -> None:
        if work in self._left:
            del self._left[work]
            if not self._left:
                self._log.info(LogEvent.CAREFUL_END)
                self.hurry(False)


def _answer(answer: asyncio.Future[bool], done: bool) -> None:
    """Tell the event loop how a commit went. Consumer thread."""
    answer.get_loop().call_soon_threadsafe(_set, answer, done)


def _set(answer: asyncio.Future[bool], done: bool) -> None:
    if not answer.done():
        answer.set_result(done)
