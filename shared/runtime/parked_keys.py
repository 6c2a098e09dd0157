"""What is parked of one partition: which keys wait, in which order, for what. No I/O; all on the event loop.

A key is parked while the retry partition holds unfinished records of it. Its records run one at a time in the order
of their original offsets, whatever their order in the retry topic; records of the key that come from the source
meanwhile follow behind them. `Parking` does what has to be written and waited for.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from omnibase_infra.shared.runtime.parked_contents import LOAD_AHEAD_SECONDS, ParkedContents
from omnibase_infra.shared.runtime.parked_key import Host, ParkedKey, ParkedRecord, Slot
from omnibase_infra.shared.runtime.parked_records import Entry, Identity, ParkedState
from omnibase_infra.shared.runtime.records import GONE, PartitionWork, Record

_DONE_KEPT: Final = 10_000


class PartitionParking:
    """The parked keys of one source partition, rebuilt from its retry partition on every assignment."""

    def __init__(
        self, source: PartitionWork, retry: PartitionWork, host: Host, *, start: int, epoch: str, folded: bool
    ) -> None:
        """Args:
        source / retry: the two partitions, of one number.
        host: the worker.
        start: committed offset of the source at the assignment.
        epoch: id of this assignment, written into every entry.
        folded: whether the retry partition is known to hold nothing.
        """
        self.source = source
        self.retry = retry
        self.epoch = epoch
        self.folded = folded
        self.keys: dict[Slot, ParkedKey] = {}
        # Below this a record of the source may be in the retry topic already, written before a crash.
        self.known_below = 0
        self._host = host
        self._start = start
        self._read_to = start
        self._by_identity: dict[Identity, ParkedKey] = {}
        self._done: dict[Identity, int] = {}
        self._done_kept = _DONE_KEPT
        self._due: list[tuple[float, int, Slot]] = []
        self._sequence = 0
        self._waiting_for_source: set[Slot] = set()
        self._stale: list[Record] = []
        self._contents = ParkedContents(
            self, host, topic=source.topic, key_of=self._by_identity.get, advance=self._advance
        )
        self._held_again: set[Identity] = set()
        # Whose HELD markers have been read: a repeat that lands after the release must not hold the key again.
        self._held_seen: set[Identity] = set()

    # -- the source -------------------------------------------------------------------------------------------------

    def takes_over(self, record: Record, *, ordered: bool) -> bool:
        """Return whether a source record is not to run now: it is parked already, or its key is."""
        if record.offset < self.known_below:
            identity = (record.offset, "")
            if identity in self._by_identity or identity in self._done:
                self._host.skip(record)
                return True
        if ordered and self.keys and record.key is not None and (key := self.keys.get(record.key)) is not None:
            key.followers.append(record)
            self._see_to_followers(key)
            return True
        return False

    def source_read_to(self, offset: int) -> None:
        """Note that all source records below this were handed over; parked ones that waited for them may run."""
        if offset > self._read_to:
            self._read_to = offset
            if self._waiting_for_source:
                self._advance_waiting()

    @property
    def waits_for_source(self) -> bool:
        """Return whether some parked record waits until the source was read past it. From any thread."""
        return bool(self._waiting_for_source)

    def key_is_free(self, key: bytes, behind: Iterable[Record]) -> None:
        """Take over a key whose record in flight has ended; `behind` are those that waited for it."""
        parked = self.keys[key]
        parked.followers.extendleft(reversed(list(behind)))
        self._see_to_followers(parked)
        self._advance(parked)

    def park(self, record: Record, due: float, *, ordered: bool, behind: Iterable[Record] = ()) -> ParkedKey:
        """Note a source record that is being written to the retry topic, and those of its key behind it."""
        slot: Slot = record.key if ordered and record.key is not None else (record.offset, "")
        key = self.keys.get(slot)
        if key is None:
            key = self.keys[slot] = ParkedKey(slot)
        self.deliver(key, record, due)
        key.followers.extendleft(reversed(list(behind)))
        return key

    def deliver(self, key: ParkedKey, record: Record, due: float) -> None:
        """Note that a source record is on its way into the retry topic."""
        parked = ParkedRecord((record.offset, ""), record.attempts, due, record.first_failed_at)
        key.delivering[parked.identity] = record
        key.add(parked)
        self._by_identity[parked.identity] = key

    def delivered(self, key: ParkedKey, record: Record) -> None:
        """Note that the retry topic holds a source record."""
        key.delivering.pop((record.offset, ""), None)
        self._advance(key)

    def hold(self, record: Record) -> None:
        """Keep the later records of a dead record's key back until somebody has decided on it."""
        if record.key is None:
            return
        offset = record.origin.offset if record.origin is not None else record.offset
        key = self.keys.get(record.key)
        if key is None:
            key = self.keys[record.key] = ParkedKey(record.key)
        key.held.setdefault(offset, None)
        if record.redrive_id:
            self._held_again.add((offset, record.redrive_id))

    # -- the retry topic --------------------------------------------------------------------------------------------

    def read(
        self, record: Record, entry: Entry | Exception | None, *, ordered: bool = True, refusal: Exception | None = None
    ) -> None:
        """Take a record of the retry partition, in the order of its offsets; after a sweep some come again.

        Args:
            record: as consumed.
            entry: what it is, why it is nothing, or None for another group's.
            ordered: whether its operation keeps the order of keys.
            refusal: why it cannot be run, if it cannot.
        """
        if not self._contents.is_new(record):
            self._contents.came_again(record)
        elif record.stage != GONE:
            self._read_new(record, entry, ordered=ordered, refusal=refusal)
        self._contents.was_read(record.offset)

    def fold(self) -> None:
        """Go to work: all that the retry partition held at the assignment is known."""
        self.folded = True
        for key in list(self.keys.values()):
            for parked in list(key.records.values()):
                if parked.refusal is not None and parked.record is not None and parked.loaded:
                    self._host.refuse(parked.record, parked.refusal)
            self._advance(key)

    def reached_end(self) -> None:
        """Note that the retry partition was read to its end."""
        if not self.folded:
            self.fold()
        self._contents.end_sweep()

    def finished(self, record: Record) -> None:
        """Note that a parked record has ended, and let the next of its key run.

        A redriven one whose key waited for it lets it go, unless it is dead again and the key is to be held.
        """
        assert record.origin is not None
        identity = (record.origin.offset, record.origin.redrive_id)
        key = self._by_identity.get(identity)
        if key is None:
            return
        self._forget(key, identity)
        if identity[1] and identity not in self._held_again:
            self._release(key, identity[0])
        self._held_again.discard(identity)
        self._see_to_followers(key)
        self._advance(key)

    def delay(self, record: Record, due: float) -> None:
        """Let a parked record that failed again wait; those behind it wait, too."""
        assert record.origin is not None
        identity = (record.origin.offset, record.origin.redrive_id)
        key = self._by_identity[identity]
        parked = key.records[identity]
        parked.attempts, parked.due, parked.first_failed_at = record.attempts, due, record.first_failed_at
        key.running = None
        self._contents.make_room(parked)
        self._see_to_followers(key)
        self._advance(key)

    def tick(self) -> None:
        """Let run what has become due since last time."""
        now = self._host.now(self.source.topic)
        while self._due and self._due[0][0] <= now:
            at, _, slot = heapq.heappop(self._due)
            if (key := self.keys.get(slot)) is not None:
                if key.alarm == at:
                    key.alarm = math.inf
                self._advance(key)
        self._contents.look_for_room()
        if self._stale:
            self._void_stale()

    def let_go(self) -> None:
        """Let go of the contents of records that cannot run now."""
        for key in self.keys.values():
            self._contents.let_go(key)

    @property
    def has_due(self) -> bool:
        """Return whether something waits for its time."""
        return bool(self._due or self._stale or self._contents.waits_for_room)

    @property
    def size(self) -> int:
        """Return how many records are parked."""
        return len(self._by_identity)

    def clear(self) -> None:
        """Forget everything: the partition is another member's now, who reads it from the retry topic."""
        self.keys.clear()
        self._by_identity.clear()
        self._done.clear()
        self._due.clear()
        self._held_seen.clear()
        self._waiting_for_source.clear()
        self._stale.clear()
        self._contents.clear()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _read_new(
        self, record: Record, entry: Entry | Exception | None, *, ordered: bool, refusal: Exception | None
    ) -> None:
        if entry is None:
            self._host.skip(record)
        elif isinstance(entry, Exception):
            self._host.refuse(record, entry)
        elif entry.state is not None:
            self._read_marker(record, entry)
        else:
            self._read_parked(record, entry, ordered=ordered, refusal=refusal)

    def _read_marker(self, record: Record, entry: Entry) -> None:
        foreign = self.folded and entry.written_by != self.epoch
        identity = entry.identity
        if entry.state is ParkedState.HELD and not foreign:
            if not self.folded:
                self._fold_done(identity, record.offset)
            key = self._held_key(record, identity)
            if key is not None:
                self._release(key, identity[0])  # an earlier marker: one is enough
                key.held[identity[0]] = record  # stays unfinished, so that no commit passes it
                self._host.unload(record)
                return
        elif entry.state is ParkedState.RELEASED and (not foreign or not entry.written_by):
            if record.key is not None and (key := self.keys.get(record.key)) is not None:
                self._release(key, identity[0])
                self._advance(key)
        elif not self.folded and entry.state is ParkedState.DONE:
            self._fold_done(identity, record.offset)
        elif not self.folded and entry.state is ParkedState.RETRY and (key := self._by_identity.get(identity)):
            parked = key.records[identity]
            parked.attempts = entry.attempts
            parked.due = self._due_at(entry.not_before)
            parked.first_failed_at = entry.first_failed_at or parked.first_failed_at
        self._host.skip(record)

    def _held_key(self, record: Record, identity: Identity) -> ParkedKey | None:
        """Return the key that a HELD marker holds; None where somebody has decided before it was read."""
        if record.key is None:
            return None
        key = self.keys.get(record.key)
        is_held = key is not None and identity[0] in key.held
        is_repeat = identity in self._held_seen
        self._held_seen.add(identity)
        if self.folded or is_repeat:
            return key if is_held else None
        return self.keys.setdefault(record.key, ParkedKey(record.key))

    def _fold_done(self, identity: Identity, offset: int) -> None:
        """Take in that a record has ended, as an owner before us wrote down."""
        key = self._by_identity.get(identity)
        if key is None:
            self._note_done(identity, offset)
            return
        parked = key.records[identity]
        self._forget(key, identity)
        if identity[1]:
            self._release(key, identity[0])
        if parked.record is not None:
            self._host.skip(parked.record)

    def _read_parked(self, record: Record, entry: Entry, *, ordered: bool, refusal: Exception | None) -> None:
        identity = entry.identity
        key = self._by_identity.get(identity)
        if key is not None:
            parked = key.records[identity]
            if parked.record is not None:
                self._host.skip(record)  # written twice: a producer's time-out, or two owners
                return
        elif identity in self._done or self._is_dead(record, identity):
            self._host.skip(record)
            return
        elif self._is_stale(entry):
            self._stale.append(record)
            return
        else:
            slot: Slot = record.key if ordered and record.key is not None else identity
            key = self.keys.setdefault(slot, ParkedKey(slot))
            parked = ParkedRecord(identity, entry.attempts, self._due_at(entry.not_before), entry.first_failed_at)
            key.add(parked)
            self._by_identity[identity] = key
            self.known_below = max(self.known_below, identity[0] + 1)
        self._attach(key, parked, record, refusal)

    def _is_dead(self, record: Record, identity: Identity) -> bool:
        """Return whether this is the original of a held record: it has ended as the dead letter that is decided on."""
        held = self.keys.get(record.key) if record.key is not None else None
        return held is not None and not identity[1] and identity[0] in held.held

    def _attach(self, key: ParkedKey, parked: ParkedRecord, record: Record, refusal: Exception | None) -> None:
        parked.record = record
        parked.refusal = refusal
        record.attempts = parked.attempts
        record.first_failed_at = parked.first_failed_at
        self._contents.take(key, parked)
        if self.folded:
            if refusal is not None:
                self._host.refuse(record, refusal)
            else:
                self._advance(key)

    def _is_stale(self, entry: Entry) -> bool:
        """Return whether an owner before us wrote this after we took over, about a record we have dealt with."""
        foreign = bool(entry.written_by) and entry.written_by != self.epoch
        return self.folded and foreign and not entry.origin.redrive_id and entry.origin.offset < self._read_to

    def _void_stale(self) -> None:
        """Answer stale entries once the record they are about is finished here: from then on they could mislead."""
        finished_to = self.source.finished_to
        waiting: list[Record] = []
        for record in self._stale:
            assert record.origin is not None
            identity = (record.origin.offset, "")
            if identity in self._by_identity or identity in self._done:
                self._host.skip(record)  # ours of the same record tells what becomes of it
            elif record.origin.offset < finished_to:
                self._host.void(record)
            else:
                waiting.append(record)
        self._stale = waiting

    def _see_to_followers(self, key: ParkedKey) -> None:
        """Have source records behind a key written to the retry topic, unless they are going to run soon.

        Below something parked they belong before it, and only what is parked is put in order.
        """
        if key.followers and (key.followers[0].offset < key.highest or not self._drains(key)):
            self._host.park_followers(self, key)

    def _drains(self, key: ParkedKey) -> bool:
        """Return whether the parked records of a key are running, so that it is not worth parking more."""
        if key.held:
            return False
        if key.running is not None:
            return True
        head = key.head()
        if head is None:
            return True
        return not key.delivering and head.due <= self._host.now(self.source.topic)

    def _advance(self, key: ParkedKey) -> None:
        """Let the head of a key run if it may."""
        if not self.folded or self.source.closed or key.slot in self.source.busy:
            return  # with a record of the source in flight, `key_is_free` comes when it has ended
        head = key.head()
        if head is None:
            if not key.delivering and not key.held and key.running is None:
                self._unpark(key)
        elif key.may_run(head) and self._is_time(key, head) and head.record is not None:
            if head.refusal is not None and head.loaded:
                return  # it is being given up, and `finished` will come
            if head.loaded:
                key.running = head
                self._host.start(head.record)
            else:
                self._contents.want(head)

    def _is_time(self, key: ParkedKey, head: ParkedRecord) -> bool:
        """Return whether a head is due, or soon if it must be read again; else see to it that it is looked at then."""
        ahead = LOAD_AHEAD_SECONDS if head.record is not None and not head.loaded else 0.0
        if head.due > self._host.now(self.source.topic) + ahead:
            at = head.due - ahead
            if at < key.alarm:
                key.alarm = at
                self._sequence += 1
                heapq.heappush(self._due, (at, self._sequence, key.slot))
            return False
        offset, redrive_id = head.identity
        if not redrive_id and self._start <= offset and self._read_to <= offset:
            # Records of the key before it may still come from the source.
            self._waiting_for_source.add(key.slot)
            return False
        return True

    def _unpark(self, key: ParkedKey) -> None:
        self.keys.pop(key.slot, None)
        self._waiting_for_source.discard(key.slot)
        followers, key.followers = key.followers, deque()
        if followers:
            self._host.go_on(followers)

    def _forget(self, key: ParkedKey, identity: Identity) -> None:
        parked = key.records.pop(identity)
        del self._by_identity[identity]
        if parked.record is not None:
            self._contents.forget(parked.record)
            self._note_done(identity, parked.record.offset)
        if key.running is parked:
            key.running = None

    def _note_done(self, identity: Identity, offset: int) -> None:
        self._done[identity] = offset
        self.known_below = max(self.known_below, identity[0] + 1) if not self.folded else self.known_below
        if len(self._done) > self._done_kept:
            # What lies below the commit is not read again, by nobody.
            kept = self.retry.finished_to
            self._done = {known: place for known, place in self._done.items() if place >= kept}
            # Something may keep the commit back for long, and then looking at all of them again is to be rare.
            self._done_kept = max(_DONE_KEPT, 2 * len(self._done))

    def _release(self, key: ParkedKey, offset: int) -> None:
        if offset in key.held and (marker := key.held.pop(offset)) is not None:
            self._host.skip(marker)

    def _due_at(self, not_before: float) -> float:
        return self._host.now(self.source.topic) + self._host.seconds_until(not_before)

    def _advance_waiting(self) -> None:
        waiting, self._waiting_for_source = self._waiting_for_source, set()
        for slot in waiting:
            if (key := self.keys.get(slot)) is not None:
                self._advance(key)
