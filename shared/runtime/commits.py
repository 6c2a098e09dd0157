"""The commits of a consumer: finished positions, each with what it says about deaths of the process.

Used on the consumer thread alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.records import NO_OFFSET, PartitionWork

COMMIT_SECONDS: Final = 1.0
# Kafka forgets offsets of topics outside the subscription after seven days (KIP-211), and a retry topic is one.
RENEW_SECONDS: Final = 6 * 3600.0

Place = tuple[str, int]


class Committing(Protocol):
    """What the consumer thread asks of whatever commits its positions."""

    seconds: float
    last_at: float
    # While set nothing is committed: a topic may be another one than its offsets are of. From any thread.
    held: bool

    def commit(self, works: Iterable[PartitionWork], *, wait: bool, clean: bool = False) -> bool:
        """Commit what is finished of these partitions; see `Commits.commit`."""
        ...

    def own(self, works: Iterable[PartitionWork]) -> None:
        """Note partitions that were assigned, before anything of them runs."""
        ...

    def began(self, work: PartitionWork, position: int, metadata: str) -> None:
        """Note what was committed when the partition was assigned."""
        ...

    def forget(self, place: Place) -> None:
        """Forget a partition that was taken away."""
        ...

    def answered(self, error: KafkaError | None, offsets: Sequence[TopicPartition]) -> None:
        """Take the answer to a commit that was not waited for."""
        ...

    def failed(self, error: KafkaError, partitions: int) -> None:
        """Count and log a commit that failed."""
        ...

    @property
    def is_busy(self) -> bool:
        """Return whether the thread should look again at once."""
        ...

    @property
    def is_full(self) -> bool:
        """Return whether nothing more is to be consumed until something has been committed."""
        ...


class Commits:
    """Commits what is finished and was not committed yet; a failed commit is repeated with the next one."""

    # Between two commits.
    seconds = COMMIT_SECONDS
    is_busy = is_full = held = False

    def __init__(
        self, consumer: Consumer, metrics: WorkerMetrics, log: Any, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._consumer = consumer
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._committed: dict[Place, tuple[int, str]] = {}
        self._renewed_at = clock()
        self.last_at = clock()

    def commit(self, works: Iterable[PartitionWork], *, wait: bool, clean: bool = False) -> bool:
        """Commit the finished positions of these partitions; return whether nothing went wrong that is known yet.

        Args:
            works: partitions that are owned.
            wait: for the coordinator's answer.
            clean: whether they are given up in good order.
        """
        self.last_at = self._clock()
        if self.held:
            return False
        if self.last_at - self._renewed_at > RENEW_SECONDS:
            self._renewed_at = self.last_at
            self._committed.clear()
        offsets = [position for work in works if (position := self._position(work, clean=clean)) is not None]
        if not offsets:
            return True
        try:
            if wait:
                for answer in self._consumer.commit(offsets=offsets, asynchronous=False) or []:
                    if answer.error is not None:
                        raise KafkaException(answer.error)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self.failed(error.args[0], len(offsets))
            return False
        self._metrics.commits.inc()
        for one in offsets:
            self._committed[one.topic, one.partition] = one.offset, one.metadata or ""
        return True

    def own(self, works: Iterable[PartitionWork]) -> None:
        """Note partitions that were assigned: nothing to do."""

    def began(self, work: PartitionWork, position: int, metadata: str) -> None:
        """Note what was committed when the partition was assigned."""
        self._committed[work.physical, work.partition] = position, metadata

    def forget(self, place: Place) -> None:
        """Forget a partition that was taken away."""
        self._committed.pop(place, None)

    def answered(self, error: KafkaError | None, offsets: Sequence[TopicPartition]) -> None:
        """Take the answer to a commit that was not waited for."""
        failed = [(one, reason) for one in offsets if (reason := error or one.error) is not None]
        if failed:
            self.failed(failed[0][1], len(failed))
            for one, _ in failed:
                self._committed.pop((one.topic, one.partition), None)

    def _position(self, work: PartitionWork, *, clean: bool) -> TopicPartition | None:
        position = work.advance()
        if position == NO_OFFSET:
            return None
        metadata = work.crash.clean if clean else work.crash.metadata(position)
        if self._committed.get((work.physical, work.partition)) == (position, metadata):
            return None
        return TopicPartition(work.physical, work.partition, position, metadata)

    def failed(self, error: KafkaError, partitions: int) -> None:
        """Count and log a commit that failed."""
        self._metrics.commit_failures.inc()
        self._log.warning(LogEvent.COMMIT_FAILED, error=error.str(), partitions=partitions)
