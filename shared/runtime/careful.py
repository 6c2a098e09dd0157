"""After a death of the process: run one group of records at a time, and name it in a commit before it runs.

If the group kills the process, its next owner finds the names and runs them one by one; a record that kills it again
is not run any more. A worker that is stopped cleanly never comes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.runtime.crash_record import GROUP_RECORDS
from omnibase_infra.shared.runtime.records import PartitionWork, Record

# Of each partition, after a first death: most deaths are nobody's fault, and the next one tells.
FIRST_RECORDS: Final = 2_000
_AGAIN_SECONDS: Final = 0.1

CommitNow = Callable[[Sequence[PartitionWork], Callable[[bool], None]], None]


class Careful:
    """Hands out turns while some partition is suspect. Event loop."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._turn = asyncio.Lock()
        self._waiting = 0
        # Records still to be run carefully; None is all there are.
        self._left: dict[PartitionWork, int | None] = {}
        # What is parked may not be due for long: the worker does not wait for it, but names it when it runs.
        self._retries: set[PartitionWork] = set()
        self._named: set[PartitionWork] = set()
        self._answer: asyncio.Future[bool] | None = None
        # While partitions are given up, the thread that commits waits for their records and for nothing else.
        self._giving_up = False
        self.commit_now: CommitNow | None = None
        self.hurry: Callable[[bool], None] = lambda _hurried: None

    def wants(self, batch: Sequence[Record]) -> bool:
        """Return whether these records must not run beside others."""
        if not self._left and not self._retries:
            return False
        self.look()
        return bool(self._left) or any(record.work in self._retries for record in batch)

    def watch(self, works: Iterable[PartitionWork]) -> None:
        """Look at partitions that were assigned; those with a death in their commits are suspect."""
        self._giving_up = False
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
            self._named.discard(work)
            self._end(work)
        self._giving_up = True
        if self._answer is not None:
            _set(self._answer, False)

    def choose(self, batch: Sequence[Record]) -> list[Record]:
        """Return the records of a batch that may run together: a suspect or guilty one alone, else a small group."""
        group: list[Record] = []
        for record in batch[:GROUP_RECORDS]:
            story = record.work.crash
            if record.offset in story.suspects or record.offset in story.guilty:
                return group or [record]
            group.append(record)
        return group

    @staticmethod
    def is_guilty(record: Record) -> bool:
        """Return whether a record must not run again."""
        return record.offset in record.work.crash.guilty

    @asynccontextmanager
    async def turn(self, group: Sequence[Record]) -> AsyncIterator[bool]:
        """Wait for the turn of a group and name its records; when it ends they have not killed anybody.

        Yields whether it may run: not while partitions are given up, its own or others.
        """
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            named = self._offsets(group)
            may_run = await self._name(named) and not any(record.work.closed for record in group)
            if not may_run:
                for work in named:
                    work.crash = work.crash.naming(())
            yield may_run
            self._clear(named if may_run else {})
        finally:
            self._turn.release()

    def _offsets(self, group: Sequence[Record]) -> dict[PartitionWork, list[int]]:
        offsets: dict[PartitionWork, list[int]] = {}
        for record in group:
            if record.offset < record.work.crash.until and record.offset not in record.work.crash.guilty:
                offsets.setdefault(record.work, []).append(record.offset)
        return offsets

    async def _name(self, named: dict[PartitionWork, list[int]]) -> bool:
        """Commit that these records run now, as often as it fails; return False while partitions are given up."""
        for work, offsets in named.items():
            work.crash = work.crash.naming(offsets)
        works = list(self._named.union(named))
        self._named = set(named)
        while works and self.commit_now is not None and not self._giving_up:
            self._answer = asyncio.get_running_loop().create_future()
            self.commit_now(works, partial(_answer, self._answer))
            if await self._answer:
                return True
            if not self._giving_up:
                await asyncio.sleep(_AGAIN_SECONDS)
            works = [work for work in works if not work.closed]
        return not self._giving_up

    def _clear(self, named: dict[PartitionWork, list[int]]) -> None:
        """Say that the records named last have run, so that nobody blames them for a later death."""
        for work, offsets in named.items():
            work.crash = work.crash.cleared(offsets)
            left = self._left.get(work)
            if left is not None:
                self._left[work] = left - len(offsets)
                if left <= len(offsets):
                    self._end(work)
        if named and not self._waiting and self.commit_now is not None:
            self.commit_now(list(named), lambda _: None)  # else the next group's commit says it
        self.look()

    def look(self) -> None:
        """Stop being careful with partitions that are past what may have killed the process. Cheap; call it often."""
        for work in [work for work in self._left if work.finished_to >= work.crash.until]:
            self._end(work)
        for work in [work for work in self._retries if work.finished_to >= work.crash.until]:
            self._retries.discard(work)

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
