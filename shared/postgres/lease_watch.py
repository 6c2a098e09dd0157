"""Finds connections that are held for too long, and the place that acquired them: most leaks are a forgotten await.

One dictionary entry and a walk over a few stack frames per lease; nothing at all where no bound is set.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import msgspec

# Whose frames say nothing about who wants a connection.
_OURS: Final = str(Path(__file__).parent)
_LIBRARY: Final = "contextlib.py"
_SHOWN_PARTS: Final = 3


class Lease:
    """A connection that is lent. Times are the event loop's. Holds no frame, which would keep its variables alive."""

    __slots__ = ("code", "line", "reported", "since", "task")

    def __init__(self, code: CodeType | None, line: int, task: str, since: float) -> None:
        self.code = code
        self.line = line
        self.task = task
        self.since = since
        self.reported = False

    @property
    def place(self) -> str:
        """Return file, line and function of who acquired it."""
        if self.code is None:
            return "unknown"
        file = "/".join(Path(self.code.co_filename).parts[-_SHOWN_PARTS:])
        return f"{file}:{self.line} in {self.code.co_qualname}"


class OverdueLease(msgspec.Struct, frozen=True):
    """A connection that is held beyond the bound.

    Attributes:
        acquired_at: file, line and function outside this package.
        task: name of the task that acquired it.
        held_seconds: so far.
    """

    acquired_at: str
    task: str
    held_seconds: float


class LeaseWatch:
    """The leases of one pool. Used from its event loop."""

    def __init__(self, bound_seconds: float, report: Callable[[OverdueLease], None]) -> None:
        """Args:
        bound_seconds: holding a connection for longer is reported, once per lease.
        report: told of it by `look`.
        """
        self.bound_seconds = bound_seconds
        self._report = report
        self._leases: set[Lease] = set()

    def begin(self) -> Lease:
        """Note that the caller's caller gets a connection."""
        task = asyncio.current_task()
        code, line = _place()
        lease = Lease(code, line, task.get_name() if task is not None else "", asyncio.get_running_loop().time())
        self._leases.add(lease)
        return lease

    def end(self, lease: Lease) -> None:
        """Note that it was given back."""
        self._leases.discard(lease)

    def look(self) -> None:
        """Report what has become overdue since the last look."""
        now = asyncio.get_running_loop().time()
        for lease in [one for one in self._leases if not one.reported and now - one.since > self.bound_seconds]:
            lease.reported = True
            self._report(_overdue(lease, now))

    def overdue(self) -> list[OverdueLease]:
        """Return all that are overdue now, the longest first."""
        now = asyncio.get_running_loop().time()
        held = sorted((lease for lease in self._leases if now - lease.since > self.bound_seconds), key=_since)
        return [_overdue(lease, now) for lease in held]

    def overdue_count(self) -> int:
        """Return how many are overdue; callable from any thread."""
        return sum(lease.reported for lease in list(self._leases))


def _since(lease: Lease) -> float:
    return lease.since


def _overdue(lease: Lease, now: float) -> OverdueLease:
    return OverdueLease(lease.place, lease.task, round(now - lease.since, 1))


def _place() -> tuple[CodeType | None, int]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS) and not code.co_filename.endswith(_LIBRARY):
            return code, frame.f_lineno
        frame = frame.f_back
    return None, 0
