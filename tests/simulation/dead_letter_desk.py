"""The person who looks at dead letters: redrives some, with or without having mended the cause, and discards others."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.checker import Checker
from tests.simulation.workload import PARTITIONS, REALM

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.dead_letter_view import Attempt, DeadLetter, Place, parse_dead_letter
from omnibase_infra.shared.runtime.redrive_records import RedriveRecords
from omnibase_infra.shared.testing.simulated_kafka import SimulatedCluster, StoredRecord

MOST_REDRIVES = 2
LONGEST_LOOK_SECONDS = 8.0


class DeadLetterDesk:
    """Decides on each dead letter some time after it was written; one that comes again after that is discarded.

    Attributes:
        pending: dead letters not decided on yet.
    """

    def __init__(
        self,
        cluster: SimulatedCluster,
        spec: WorkerSpec,
        checker: Checker,
        *,
        redriven_share: float,
        mend: Callable[[int], None],
    ) -> None:
        self.pending = 0
        self._cluster = cluster
        self._chance = cluster.scheduler.random
        self._checker = checker
        self._share = redriven_share
        self._mend = mend
        self._letters = f"{REALM}.{spec.dead_letter_topic}"
        partitions: dict[TopicName, int] = dict.fromkeys(spec.retry_topics.values(), PARTITIONS)
        self._records = RedriveRecords(spec, REALM, partitions)
        self._decided: dict[Attempt, bool] = {}
        self._redrives = 0
        self._times: dict[int, int] = {}
        cluster.on_append.append(self._look)

    def _look(self, record: StoredRecord) -> None:
        if record.topic != self._letters:
            return
        place = Place(record.partition, record.offset)
        letter = parse_dead_letter(place, record.timestamp_ms, record.key, record.value, record.headers)
        if letter.attempt is None or self._decided.get(letter.attempt) is False:
            return  # one failure written twice is decided on once
        self._decided.setdefault(letter.attempt, False)
        self.pending += 1
        self._cluster.loop.call_later(self._chance.uniform(0.0, LONGEST_LOOK_SECONDS), self._decide, letter, record)

    def _decide(self, letter: DeadLetter, record: StoredRecord) -> None:
        if self._cluster.away:
            self._cluster.loop.call_later(0.5, self._decide, letter, record)
            return
        self.pending -= 1
        assert letter.original is not None
        assert letter.attempt is not None
        again, self._decided[letter.attempt] = self._decided[letter.attempt], True
        place = (letter.original.topic, letter.original.partition, letter.original.offset)
        number = self._checker.published[place].number
        times = self._times.get(number, 0)
        if not again and times < MOST_REDRIVES and self._chance.random() < self._share:
            self._times[number] = times + 1
            self._redrives += 1
            redrive_id = f"redrive-{self._redrives}"
            if self._chance.random() < 0.7:
                self._mend(number)
            self._checker.redriven(place, redrive_id)
            self._append(self._records.redriven(letter, record.key, record.value, record.headers, redrive_id))
        else:
            self._checker.discarded(place)
            if (marker := self._records.released(letter, record.key)) is not None:
                self._append(marker)

    def _append(self, record: OutboundRecord) -> None:
        physical = TopicName.parse(record.topic).physical(REALM)
        self._cluster.append(physical, record.partition, record.key, record.value, record.headers or ())
