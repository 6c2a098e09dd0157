"""A producer of the simulated cluster: late, failing before or after the append, and landing after its death."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.testing.simulated_kafka import Place, SimulatedCluster
from omnibase_infra.shared.testing.virtual_loop import VirtualLoop

# Appends to one partition keep the order of the calls, as an idempotent producer's do.
_APART_SECONDS: Final = 1e-6
_LATE_SECONDS: Final = 3.0
_TIMED_OUT_SECONDS: Final = 1.0


class SimulatedProducer:
    """Implements `RecordProducer`.

    Attributes:
        failures: chance that a record fails; half of those are in the log all the same.
        late: chance that a record takes seconds.
    """

    def __init__(self, cluster: SimulatedCluster, realm: Realm, loop: VirtualLoop) -> None:
        self.failures = 0.0
        self.late = 0.0
        self._cluster = cluster
        self._chance = cluster.scheduler.random
        self._realm = realm
        self._loop = loop
        self._last: dict[Place, float] = {}
        self._cut: dict[Place, float] | None = None
        self._physical: dict[str, str] = {}

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        """See `RecordProducer`.

        Raises:
            DeliveryError: some records were not confirmed.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed: dict[int, str] = {}
        confirmed = self._cluster.scheduler.now
        for index, record in enumerate(records):
            place = self._place(record)
            fate = self._chance.random()
            landing = self._landing(place)
            if self._cluster.away:
                failed[index] = "the brokers are away"
                confirmed = max(confirmed, self._cluster.scheduler.now + _TIMED_OUT_SECONDS)
                continue
            if fate < self.failures:
                failed[index] = "timed out"
            if fate >= self.failures / 2:
                self._last[place] = landing
                self._cluster.loop.call_at(landing, self._append, place, record)
            confirmed = max(confirmed, landing + self._chance.uniform(0.0, 0.02))
        self._cluster.loop.call_at(confirmed, self._confirm, future, failed, records)
        await future

    def die(self) -> None:
        """Lose what was not sent yet: some of what is under way to each partition still lands."""
        now = self._cluster.scheduler.now
        self._cut = {}
        for place, last in self._last.items():
            if last > now:
                self._cut[place] = self._chance.choice((now, self._chance.uniform(now, last), last))

    def _place(self, record: OutboundRecord) -> Place:
        physical = self._physical.get(record.topic)
        if physical is None:
            physical = self._physical[record.topic] = TopicName.parse(record.topic).physical(self._realm)
        if record.partition is not None:
            return physical, record.partition
        return physical, self._cluster.partition_of(physical, record.key)

    def _landing(self, place: Place) -> float:
        chance = self._chance
        delay = chance.uniform(0.0, _LATE_SECONDS) if chance.random() < self.late else chance.uniform(0.0, 0.02)
        return max(self._cluster.scheduler.now + delay, self._last.get(place, 0.0) + _APART_SECONDS)

    def _append(self, place: Place, record: OutboundRecord) -> None:
        if self._cut is not None and self._cluster.scheduler.now > self._cut.get(place, 0.0):
            return
        self._cluster.append(place[0], place[1], record.key, record.value, record.headers or ())

    def _confirm(self, future: asyncio.Future[None], failed: dict[int, str], records: Sequence[OutboundRecord]) -> None:
        if not self._loop.dead:
            self._loop.call_soon_threadsafe(self._answer, future, failed, records)

    def _answer(self, future: asyncio.Future[None], failed: dict[int, str], records: Sequence[OutboundRecord]) -> None:
        if future.done():
            return
        if failed:
            future.set_exception(DeliveryError(f"{len(failed)} of {len(records)} not confirmed", errors=failed))
        else:
            future.set_result(None)
