"""The outputs of finished records, kept until the transaction that makes them visible with their input's offset.

The event loop adds, the consumer thread takes. An output of a source record may go out only with the offset after it,
since the record is run again from a lower one; one of a retry partition may go out at once, since the retry topic
itself says which of its records have ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.runtime.delivery import Owned
from omnibase_infra.shared.runtime.records import PartitionWork, Record

if TYPE_CHECKING:
    from omnibase_infra.shared.core.envelope import Envelope

_OVERHEAD_BYTES = 200  # of the objects around an output


class StagedOutputs:
    """What one record gave, and of the record what a dead letter of it takes: the lanes forget its content.

    Attributes:
        outputs: to produce, in order.
        alone: whether each goes in a request of its own, since the broker refused one of several.
        size: bytes that it holds, about.
    """

    __slots__ = ("_content", "_envelope", "alone", "outputs", "record", "size")

    def __init__(self, record: Record, outputs: Sequence[OutboundRecord]) -> None:
        self.record = record
        self.outputs = list(outputs)
        self.alone = False
        self._content = (record.key, record.value, record.headers)
        self._envelope: Envelope = record.envelope
        self.size = sum(_size(output) for output in outputs) + len(record.value or b"")

    def whole_record(self) -> Record:
        """Return a copy of the record with the content it had when it gave these outputs."""
        record = self.record
        copy = Record(record.work, record.offset, record.timestamp_ms, *self._content)
        copy.attempts, copy.first_failed_at = record.attempts, record.first_failed_at
        copy.envelope, copy.lane, copy.origin = self._envelope, record.lane, record.origin
        return copy


class TransactionStage:
    """Outputs of the partitions that are owned. Implements `delivery.OutputDelivery`."""

    def __init__(self, check: Callable[[Sequence[OutboundRecord]], Any]) -> None:
        """Take what raises on a topic that the contract does not list."""
        self._check = check
        self._lock = threading.Lock()
        self._works: dict[PartitionWork, list[StagedOutputs]] = {}
        self._bytes = 0

    async def deliver_owned(self, outputs: Sequence[Owned], markers: Sequence[Owned] = ()) -> None:
        """Keep outputs for the transaction of their records. Event loop; before the records are finished.

        What one record gives goes out in one transaction, markers and all. Those of partitions that were given up are dropped: their next owner runs the records again.

        Raises:
            TopicNotDeclaredError: the contract does not list the topic; nothing was kept.
        """
        given: dict[Record, list[OutboundRecord]] = {}
        for record, output in (*outputs, *markers):
            given.setdefault(record, []).append(output)
        self._check([output for own in given.values() for output in own])
        staged = [StagedOutputs(record, own) for record, own in given.items()]
        with self._lock:
            for one in staged:
                kept = self._works.get(one.record.work)
                if kept is not None:
                    kept.append(one)
                    self._bytes += one.size

    @property
    def bytes(self) -> int:
        """Return the bytes of outputs that no transaction has made visible."""
        return self._bytes

    def open(self, works: Iterable[PartitionWork]) -> None:
        """Keep outputs of these partitions from now on."""
        with self._lock:
            for work in works:
                self._works.setdefault(work, [])

    def close(self, work: PartitionWork) -> None:
        """Drop the outputs of a partition that was given up, and all that are still to come."""
        with self._lock:
            for one in self._works.pop(work, ()):
                self._bytes -= one.size

    def take(self, work: PartitionWork, below: int, room: int) -> tuple[list[StagedOutputs], int]:
        """Return, in order, what may go out in a transaction, and the offset that may be committed with it.

        Args:
            work: a partition. Of a retry partition all is taken.
            below: the offset up to which its records are finished.
            room: bytes of outputs, about; what is beyond them stays, and with it the offset.
        """
        with self._lock:
            kept = self._works.get(work)
            if not kept:
                return [], below
            if work.is_retry:
                self._works[work] = []
                return kept, below
            ready = sorted((one for one in kept if one.record.offset < below), key=_offset)
            if not ready:
                return [], below
            count = _fitting(ready, room)
            reached = below if count == len(ready) else ready[count].record.offset
            self._works[work] = [one for one in kept if one.record.offset >= reached]
        return ready[:count], reached

    def release(self, staged: Iterable[StagedOutputs]) -> None:
        """Count out what was taken, when it is visible or dropped."""
        size = sum(one.size for one in staged)
        with self._lock:
            self._bytes -= size

    def resized(self, staged: StagedOutputs, outputs: Sequence[OutboundRecord]) -> None:
        """Replace the outputs of something taken."""
        size = sum(_size(output) for output in outputs)
        with self._lock:
            self._bytes += size - staged.size
        staged.outputs, staged.size = list(outputs), size


def _fitting(staged: Sequence[StagedOutputs], room: int) -> int:
    """Return how many of the first fit into so many bytes."""
    for count, one in enumerate(staged):
        if room <= 0:
            return count
        room -= one.size
    return len(staged)


def _offset(staged: StagedOutputs) -> int:
    return staged.record.offset


def _size(output: OutboundRecord) -> int:
    return len(output.value or b"") + len(output.key or b"") + _OVERHEAD_BYTES
