"""Flow control between the consumer thread and the loop: how much is in flight, and which topics must wait.

Each counter has one writer (the thread counts what enters, the loop what leaves), so no lock is needed to
read the difference.
"""

from __future__ import annotations

import threading
from typing import Final

# Below this share of the bound partitions flow again.
_LOW_SHARE: Final = 0.6


class FlowControl:
    """Bounds the records and bytes inside a worker."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._low_records = int(max_records * _LOW_SHARE)
        self._low_bytes = int(max_bytes * _LOW_SHARE)
        self._entered_records = self._entered_bytes = 0
        self._left_records = self._left_bytes = 0
        self._room = threading.Event()
        self._room.set()
        self._full = False
        self.blocked_topics: frozenset[str] = frozenset()

    @property
    def records(self) -> int:
        """Return the records in flight."""
        return self._entered_records - self._left_records

    @property
    def bytes(self) -> int:
        """Return the bytes of values in flight."""
        return self._entered_bytes - self._left_bytes

    def entered(self, records: int, size: int) -> None:
        """Count what was handed over. Consumer thread."""
        self._entered_records += records
        self._entered_bytes += size

    def left(self, records: int, size: int) -> None:
        """Count what left the worker. Event loop."""
        self._left_records += records
        self._left_bytes += size
        if not self._room.is_set() and self._below_low():
            self._room.set()

    def wait_for_room(self, seconds: float) -> bool:
        """Return whether more may be handed over, after waiting up to `seconds` for it. Consumer thread.

        A short wait here is cheaper than a pause: pausing throws away what the client has fetched already. For the
        same reason, once full it stays full until well below the bound.
        """
        if not self._full and self.records < self._max_records and self.bytes < self._max_bytes:
            return True
        self._room.clear()
        if self._below_low():  # the loop may have drained between the look and the clear
            self._room.set()
        self._full = not self._room.wait(seconds)
        return not self._full

    def interrupt(self) -> None:
        """End a wait for room."""
        self._room.set()

    def _below_low(self) -> bool:
        return self.records <= self._low_records and self.bytes <= self._low_bytes
