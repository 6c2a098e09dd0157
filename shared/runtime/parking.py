"""Retry without blocking: a record that failed waits in the retry topic, its key behind it, while other keys flow.

`PartitionParking` decides; this writes parked records and markers, keeps the clocks, and lets run what is due.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core.errors import InvalidEnvelopeError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.dead_letters import DeadLetters
from omnibase_infra.shared.runtime.delivery import OutputDelivery
from omnibase_infra.shared.runtime.intake import Ignored, Intake
from omnibase_infra.shared.runtime.lanes import Lanes
from omnibase_infra.shared.runtime.parked_key import ParkedKey
from omnibase_infra.shared.runtime.parked_keys import PartitionParking
from omnibase_infra.shared.runtime.parked_records import ParkedState, marker, parked_record, read_entry
from omnibase_infra.shared.runtime.records import DONE, GONE, RUNNING, WAITING, PartitionWork, Record

TICK_SECONDS: Final = 0.05
MAKE_ROOM_SECONDS: Final = 0.5
# Written at once; a batch holds many keys, and of each key its records in their order.
BATCH_RECORDS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024

Refuse = Callable[[Record, BaseException], None]


class Parking:
    """The parked records of one worker. All on the event loop but for `open`, which the consumer thread calls."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        spec: WorkerSpec,
        group: str,
        *,
        lanes: Lanes,
        intake: Intake,
        delivery: OutputDelivery,
        dead_letters: DeadLetters,
        refuse: Refuse,
        metrics: WorkerMetrics,
        log: Any,
        max_records: int,
        max_bytes: int,
    ) -> None:
        """Args:
        spec: of the worker.
        group: its consumer group; entries of another group are another major version's.
        lanes / intake / delivery / dead_letters: of the worker.
        refuse: gives up on a record.
        metrics / log: of the worker.
        max_records / max_bytes: of parked records kept in memory; the others are read again when they are due.
        """
        self._spec = spec
        self._group = group
        self._lanes = lanes
        self._intake = intake
        self._delivery = delivery
        self._dead_letters = dead_letters
        self._refuse = refuse
        self._metrics = metrics
        self._log = log
        self._max_records, self._max_bytes = max_records, max_bytes
        self._retry_topics = {str(source): str(retry) for source, retry in spec.retry_topics.items()}
        self._longest = max(spec.retry.tiers, default=0.0)
        self._partitions: set[PartitionParking] = set()
        self._clocks = {topic: _Clock() for topic in spec.subscribe}
        self._records = self._bytes = 0
        self._made_room_at = -math.inf
        self._writes: list[_Write] = []
        self._to_follow: dict[ParkedKey, PartitionParking] = {}
        self._something_to_write = asyncio.Event()
        self.seek: Callable[[PartitionWork, int], None] = lambda _work, _offset: None

    # -- partitions -------------------------------------------------------------------------------------------------

    def open(self, source: PartitionWork, retry: PartitionWork, *, start: int, folded: bool) -> PartitionParking:
        """Begin with a source partition and its retry partition, which are assigned now. Consumer thread."""
        parking = PartitionParking(source, retry, self, start=start, epoch=uuid.uuid4().hex, folded=folded)
        source.parking = retry.parking = parking
        return parking

    def read(self, records: Sequence[Record]) -> None:
        """Take records of retry partitions, in the order of each partition."""
        for record in records:
            parking = record.work.parking
            if parking is None or record.work.closed:
                continue
            self._partitions.add(parking)
            self._records += 1
            self._bytes += record.size
            self._read(parking, record)
        self._show()

    def reached_end(self, work: PartitionWork, offset: int) -> None:
        """Note that a partition was read to its end."""
        parking = work.parking
        if parking is None or work.closed:
            return
        self._partitions.add(parking)
        if work.is_retry:
            parking.reached_end()
        else:
            parking.source_read_to(offset)

    def closed(self, works: Iterable[PartitionWork]) -> None:
        """Forget partitions that are given up."""
        for work in works:
            if work.parking is not None:
                self._partitions.discard(work.parking)
                work.parking.clear()
        self._show()

    def stand_still(self, topics: frozenset[str]) -> None:
        """Stop the clocks of these topics, whose work waits for a dependency, and let the others go on."""
        now = time.monotonic()
        for topic, own in self._clocks.items():
            own.stand_still(now, topic in topics)

    def left(self, record: Record) -> None:
        """Note that a record of a retry partition is no longer in memory."""
        if record.size:
            self._records -= 1
            self._bytes -= record.size
            record.size = 0

    # -- what failed ------------------------------------------------------------------------------------------------

    def delay_after(self, attempts: int) -> float | None:
        """Return how long a record that failed so often waits before it is tried again; None when it is dead."""
        tiers = self._spec.retry.tiers
        index = attempts - max(1, self._spec.retry.in_lane)
        return tiers[index] if 0 <= index < len(tiers) else None

    def park(self, record: Record, error: BaseException, delay: float) -> None:
        """Let a record that failed wait in the retry topic. It stays in flight until that is written."""
        work = record.work
        parking = work.parking
        assert parking is not None
        not_before = time.time() + delay
        due = self.now(work.source_topic) + delay
        if record.origin is not None:
            sign = self._marker(record, ParkedState.RETRY, attempts=record.attempts, not_before=not_before)
            self._write(record, sign, lambda: self._delayed(parking, record, due))
            return
        assert record.lane is not None
        ordered = record.key is not None and record.lane.operation.ordering != "none"
        behind = self._lanes.give_up_key(record) if ordered else ()
        key = parking.park(record, due, ordered=ordered, behind=behind)
        self._partitions.add(parking)
        self._write_parked(parking, key, record, error, not_before)
        if key.followers:
            self.park_followers(parking, key)

    def done_marker(self, record: Record) -> OutboundRecord:
        """Return what says in the retry topic that a parked record has ended; to be sent after its outputs."""
        return self._marker(record, ParkedState.DONE)

    def hold(self, record: Record) -> OutboundRecord:
        """Keep the later records of a dead record's key back; return the marker that says so, which is its end."""
        assert record.work.parking is not None
        record.work.parking.hold(record)
        self._partitions.add(record.work.parking)
        return self._marker(record, ParkedState.HELD)

    # -- tasks ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what is to be parked and let run what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_writes(), name="parking-writes")
            group.create_task(self._run_clock(), name="parking-clock")

    async def _run_clock(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for parking in list(self._partitions):
                if parking.has_due:
                    parking.tick()
            self._show()  # records end, and keys are let go, without anything being written or read after it

    async def _run_writes(self) -> None:
        while True:
            await self._something_to_write.wait()
            self._something_to_write.clear()
            self._collect_followers()
            while self._writes:
                batch = self._next_batch()
                await self._delivery.deliver_owned([(write.owner, write.record) for write in batch])
                for write in batch:
                    write.written()
                self._collect_followers()
                self._show()

    def _next_batch(self) -> list[_Write]:
        size = count = 0
        for write in self._writes[:BATCH_RECORDS]:
            size += len(write.record.value or b"")
            count += 1
            if size > BATCH_BYTES:
                break
        batch, self._writes = self._writes[:count], self._writes[count:]
        return batch

    def _collect_followers(self) -> None:
        followed, self._to_follow = self._to_follow, {}
        now = time.time()
        for key, parking in followed.items():
            while key.followers and not parking.source.closed:
                record = key.followers.popleft()
                if record.stage != WAITING:
                    continue
                record.stage = RUNNING
                record.work.running += 1
                parking.deliver(key, record, self.now(record.work.source_topic))
                self._write_parked(parking, key, record, None, now)

    def _write_parked(
        self, parking: PartitionParking, key: ParkedKey, record: Record, error: BaseException | None, not_before: float
    ) -> None:
        failed_at = clock.rfc3339(time.time())
        why = self._dead_letters.failure_headers(record, error, failed_at)
        topic = self._retry_topics[record.work.source_topic]
        outbound = parked_record(topic, record, why, not_before=not_before, written_by=parking.epoch)
        self._write(record, outbound, lambda: self._parked(parking, key, record))

    def _parked(self, parking: PartitionParking, key: ParkedKey, record: Record) -> None:
        if record.stage == GONE:
            return
        counts = self._metrics.topics[record.work.topic]
        counts.parked.inc()
        counts.finished.inc()
        self._lanes.retire((record,))
        parking.delivered(key, record)

    def _delayed(self, parking: PartitionParking, record: Record, due: float) -> None:
        if record.stage == GONE:
            return
        self._lanes.put_back(record)
        if not record.work.closed:
            parking.delay(record, due)

    def _write(self, owner: Record, record: OutboundRecord, written: Callable[[], None]) -> None:
        self._writes.append(_Write(owner, record, written))
        self._something_to_write.set()

    def _marker(self, record: Record, state: ParkedState, attempts: int = 0, not_before: float = 0.0) -> OutboundRecord:
        parking = record.work.parking
        assert parking is not None
        return marker(
            self._retry_topics[record.work.source_topic],
            record,
            state,
            group=self._group,
            written_by=parking.epoch,
            attempts=attempts,
            not_before=not_before,
        )

    def _read(self, parking: PartitionParking, record: Record) -> None:
        refusal: Exception | None = None
        ordered = True
        try:
            entry = read_entry(record)
        except InvalidEnvelopeError as error:
            parking.read(record, error)
            return
        if entry.group != self._group:
            parking.read(record, None)
            return
        if entry.state is None:
            record.origin, record.headers = entry.origin, entry.own_headers
            record.timestamp_ms = entry.origin.timestamp_ms  # how long it has taken counts from there
            try:
                self._intake.admit(record)
            except Exception as error:  # noqa: BLE001 - decided on when all is known; one must not lose the rest
                refusal = error
            ordered = record.lane is None or record.lane.operation.ordering != "none"
        else:
            record.origin = entry.origin
        parking.read(record, entry, ordered=ordered, refusal=refusal)

    def _show(self) -> None:
        self._metrics.parked_records.set(sum(parking.size for parking in self._partitions))
        self._metrics.parked_keys.set(sum(len(parking.keys) for parking in self._partitions))

    # -- `parked_key.Host` --------------------------------------------------------------------------------------------

    def now(self, topic: str) -> float:
        """Return seconds on the topic's clock, which stands still during an outage of what it needs."""
        return self._clocks[topic].now(time.monotonic())

    def seconds_until(self, not_before: float) -> float:
        """Return how long until a Unix time; a wall clock that jumped cannot make it more than the longest delay."""
        return min(max(0.0, not_before - time.time()), self._longest)

    def has_room(self, *, due: bool = False) -> bool:
        """Return whether more parked records may be kept in memory; for those that are due there is twice the room."""
        share = 2 if due else 1
        return self._records <= share * self._max_records and self._bytes <= share * self._max_bytes

    def make_room(self) -> None:
        """Let go of contents that cannot run now, at most once in a while: it looks at all that is parked."""
        now = time.monotonic()
        if now - self._made_room_at >= MAKE_ROOM_SECONDS:
            self._made_room_at = now
            for parking in self._partitions:
                parking.let_go()

    def start(self, record: Record) -> None:
        """Let a parked record run."""
        assert record.lane is not None
        record.lane.push(record)

    def go_on(self, followers: Iterable[Record]) -> None:
        """Run records of the source whose key is not parked any more."""
        for record in followers:
            if record.stage == WAITING:
                self._lanes.submit(record)

    def skip(self, record: Record) -> None:
        """Finish a record without running it."""
        if record.stage not in (DONE, GONE):
            self._metrics.topics[record.work.topic].finished.inc()
            self._lanes.retire((record,))

    def refuse(self, record: Record, error: Exception) -> None:
        """Give up on a parked record, or finish one that asks nothing of us any more."""
        if isinstance(error, Ignored):
            self._write(record, self.done_marker(record), lambda: self._lanes.finish((record,)))
        else:
            self._refuse(record, error)

    def unload(self, record: Record) -> None:
        """Forget a waiting record's content."""
        self.left(record)
        record.forget_content()

    def sweep(self, parking: PartitionParking, offset: int) -> None:
        """Have the consumer read a retry partition again from here."""
        self.seek(parking.retry, offset)

    def park_followers(self, parking: PartitionParking, key: ParkedKey) -> None:
        """Write the source records behind this key to the retry topic, soon."""
        self._to_follow[key] = parking
        self._something_to_write.set()

    def void(self, record: Record) -> None:
        """Say that a stale entry's record has ended here."""
        self._log.warning(LogEvent.STALE_ENTRY, record=repr(record), offset=record.origin and record.origin.offset)
        self._write(record, self._marker(record, ParkedState.DONE), lambda: self.skip(record))


class _Write:
    """Something to write to a retry topic, about which record, and what to do when the broker has it."""

    __slots__ = ("owner", "record", "written")

    def __init__(self, owner: Record, record: OutboundRecord, written: Callable[[], None]) -> None:
        self.owner = owner
        self.record = record
        self.written = written


class _Clock:
    """A monotonic clock that can stand still."""

    def __init__(self) -> None:
        self._stood = 0.0
        self._since: float | None = None

    def now(self, monotonic: float) -> float:
        """Return the time on it."""
        return (monotonic if self._since is None else self._since) - self._stood

    def stand_still(self, monotonic: float, still: bool) -> None:
        """Stop it or let it go on."""
        if still and self._since is None:
            self._since = monotonic
        elif not still and self._since is not None:
            self._stood += monotonic - self._since
            self._since = None
