"""Which parked records have their contents in memory; the others are read again from the retry partition when due.

Half of the room is for records that may run. Where others have filled it - keys were held meanwhile, or what belongs
before them was read after them - their contents are let go of, so there is always room for something that leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from omnibase_infra.shared.runtime.parked_key import Host, ParkedKey, ParkedRecord
from omnibase_infra.shared.runtime.parked_records import Identity
from omnibase_infra.shared.runtime.records import Record

if TYPE_CHECKING:
    from omnibase_infra.shared.runtime.parked_keys import PartitionParking

# Records beyond what is kept in memory are read again this long before they are due.
LOAD_AHEAD_SECONDS: Final = 1.0


class ParkedContents:
    """The contents of one partition's parked records. A sweep is one reading again of its retry partition."""

    def __init__(
        self,
        parking: PartitionParking,
        host: Host,
        *,
        topic: str,
        key_of: Callable[[Identity], ParkedKey | None],
        advance: Callable[[ParkedKey], None],
    ) -> None:
        """Args:
        parking: whose.
        host: the worker.
        topic: whose clock says what is due.
        key_of: returns the key of a parked record.
        advance: lets the head of a key run if it may.
        """
        self.waits_for_room = False
        self._parking = parking
        self._host = host
        self._topic = topic
        self._key_of = key_of
        self._advance = advance
        self._unloaded: dict[int, ParkedRecord] = {}
        self._last_read = -1
        self._sweep_end: int | None = None
        self._came_again = self._found = False

    def is_new(self, record: Record) -> bool:
        """Return whether a record of the retry partition comes for the first time."""
        new = record.offset > self._last_read
        if new:
            self._last_read = record.offset
        return new

    def take(self, key: ParkedKey, parked: ParkedRecord) -> None:
        """Keep the content of a record that was just read, or not."""
        if parked.refusal is not None or self._has_room(key, parked):
            parked.loaded = True
        else:
            self.unload(parked)

    def make_room(self, parked: ParkedRecord) -> None:
        """Let go of the content of a record that failed and waits again, where room is short."""
        if parked.loaded and not self._host.has_room():
            self.unload(parked)

    def unload(self, parked: ParkedRecord) -> None:
        """Let go of a content."""
        assert parked.record is not None
        parked.loaded = False
        self._unloaded[parked.record.offset] = parked
        self._host.unload(parked.record)

    def forget(self, record: Record) -> None:
        """Forget a record that has ended."""
        self._unloaded.pop(record.offset, None)

    def clear(self) -> None:
        """Forget everything."""
        self._unloaded.clear()
        self._sweep_end = None
        self.waits_for_room = False

    def want(self, head: ParkedRecord) -> None:
        """Have a due record read again, as soon as there is room."""
        assert head.record is not None
        if self._sweep_end is not None or self.waits_for_room:
            return
        if self._host.has_room():
            self._sweep_end = self._last_read
            self._came_again = self._found = False
            self._host.sweep(self._parking, head.record.offset)
        else:
            self.waits_for_room = True

    def look_for_room(self) -> None:
        """Go on with what waits for room if there is some."""
        if self.waits_for_room and not self._host.has_room():
            self._host.make_room()
        if self.waits_for_room and self._host.has_room():
            self.waits_for_room = False
            self._look_at_heads()

    def let_go(self, key: ParkedKey) -> None:
        """Let go of the contents of a key's records that cannot run now."""
        for parked in key.records.values():
            if (
                parked.loaded
                and parked.refusal is None
                and key.running is not parked
                and not self._may_run(key, parked)
            ):
                self.unload(parked)

    def came_again(self, again: Record) -> None:
        """Give a parked record its content back, if there is room for it."""
        self._came_again = True
        parked = self._unloaded.get(again.offset)
        key = self._key_of(parked.identity) if parked is not None else None
        if parked is None or key is None or parked.record is None:
            self._host.unload(again)
            return
        # A sweep begins where there is room; the first that it is for has it, however large it may be.
        due = self._may_run(key, parked)
        if not (due and not self._found) and not self._has_room(key, parked):
            self._host.unload(again)
            if due and self._sweep_end is not None:
                self._sweep_end = None
                self.waits_for_room = True
                self._host.sweep(self._parking, self._last_read + 1)
            return
        self._found = self._found or due
        del self._unloaded[again.offset]
        record = parked.record
        record.key, record.value, record.headers = again.key, again.value, again.headers
        record.envelope, record.lane, record.origin = again.envelope, again.lane, again.origin
        record.size, again.size = again.size, 0
        parked.loaded = True
        self._advance(key)

    def was_read(self, offset: int) -> None:
        """End the sweep when it has come to its end; records fetched before it began do not count."""
        if self._sweep_end is not None and offset >= self._sweep_end and self._came_again:
            self.end_sweep()

    def end_sweep(self) -> None:
        """End the sweep if there is one, and see what is still wanted."""
        if self._sweep_end is not None:
            self._sweep_end = None
            self._look_at_heads()

    def _look_at_heads(self) -> None:
        for parked in list(self._unloaded.values()):
            key = self._key_of(parked.identity)
            if key is not None and key.head() is parked:
                self._advance(key)

    def _may_run(self, key: ParkedKey, parked: ParkedRecord) -> bool:
        """Return whether a record that does not run yet may run now or soon."""
        soon = parked.due <= self._host.now(self._topic) + LOAD_AHEAD_SECONDS
        return soon and key.head() is parked and key.may_run(parked)

    def _has_room(self, key: ParkedKey, parked: ParkedRecord) -> bool:
        return self._host.has_room() or (self._may_run(key, parked) and self._host.has_room(due=True))
