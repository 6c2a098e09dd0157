"""Which partitions are paused: for flow control, open breakers, retry partitions not read yet, records that stay.

Used on the consumer thread alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition

from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.flow_control import FlowControl
from omnibase_infra.shared.runtime.records import PartitionWork

# Finished records kept behind one that is not; beyond it their partition waits, or memory would grow without bound.
LEDGER_RECORDS: Final = 50_000
# Entries of a retry partition kept for the first that has not ended; beyond it no more of its source is read.
PARKED_RECORDS: Final = 200_000

Place = tuple[str, int]


class Pauses:
    """Keeps the paused set of a consumer. Retry partitions are never paused: what is parked there must be known."""

    def __init__(self, consumer: Consumer, flow: FlowControl, metrics: WorkerMetrics, log: Any) -> None:
        self._consumer = consumer
        self._flow = flow
        self._metrics = metrics
        self._log = log
        self._paused: frozenset[Place] = frozenset()
        self._held_up: frozenset[Place] = frozenset()

    def apply(self, works: Mapping[Place, PartitionWork], *, room: bool) -> None:
        """Bring the paused set to what is asked for now."""
        blocked, held_up = self._flow.blocked_topics, self._find_held_up(works)
        if room and not blocked and not held_up and not self._paused:
            return
        wanted = held_up.union(
            key for key, work in works.items() if not work.is_retry and (not room or work.topic in blocked)
        )
        if wanted == self._paused:
            return
        pause, resume = wanted - self._paused, (self._paused - wanted) & works.keys()
        if pause:
            self._consumer.pause([TopicPartition(*key) for key in pause])
        if resume:
            self._consumer.resume([TopicPartition(*key) for key in resume])
        self._paused = wanted
        self._metrics.paused_partitions.set(len(wanted))

    def begin(self, new: Mapping[Place, PartitionWork]) -> None:
        """Pause partitions just assigned of which nothing may run until what is parked of them is known."""
        wait = [key for key, work in new.items() if not work.is_retry and _is_held_up(work)]
        if wait:
            self._consumer.pause([TopicPartition(*key) for key in wait])
            self._paused |= frozenset(wait)

    def keep(self, owned: Iterable[Place]) -> None:
        """Forget partitions that are not owned any more; whoever gets one back starts without a pause."""
        self._paused = self._paused.intersection(owned)

    def _find_held_up(self, works: Mapping[Place, PartitionWork]) -> frozenset[Place]:
        """Return the source partitions that must wait: for what is parked of them, or for a record that stays."""
        held_up = frozenset(key for key, work in works.items() if not work.is_retry and _is_held_up(work))
        full = frozenset(key for key in held_up if (parking := works[key].parking) is None or parking.folded)
        if full - self._held_up:
            self._log.error(
                LogEvent.PARTITIONS_PAUSED,
                partitions=[f"{topic}[{number}]" for topic, number in sorted(full)],
                reason="a record stays unfinished, or very many are parked; earlier lines say why",
            )
        self._held_up = full
        return held_up


def _is_held_up(work: PartitionWork) -> bool:
    parking = work.parking
    if parking is not None and (not parking.folded or parking.retry.holds_more_than(PARKED_RECORDS)):
        return True
    return work.holds_more_than(LEDGER_RECORDS)
