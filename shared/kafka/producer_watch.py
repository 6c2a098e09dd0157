"""Gives up a producer that finds no way back to brokers that answer others, so that the pool makes a new one.

Its records would wait for their delivery time-out, minutes after everything else works again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from omnibase_infra.shared.kafka.lasting_trouble import LOOK_SECONDS, BrokersAnswer, LastingTrouble
from omnibase_infra.shared.kafka.pooled_producer import PooledProducer

REASON: Final = "it found no way back to brokers that answer others"


class ProducerWatch:
    """Looks at the producers of one pool."""

    def __init__(
        self, brokers_answer: BrokersAnswer, *, cut_off_seconds: float, look_seconds: float = LOOK_SECONDS
    ) -> None:
        """Args:
        brokers_answer: asks a broker by a client of its own; called only while a producer is cut off.
        cut_off_seconds: how long a producer may have work and no connection before brokers are asked. Less than what
            ends a worker (`runtime.client_watch`), because a new producer cures it without a restart.
        look_seconds: between two looks.
        """
        self._trouble: LastingTrouble[PooledProducer] = LastingTrouble(brokers_answer, look_seconds=look_seconds)
        self._cut_off_seconds = cut_off_seconds

    async def run(self, producers: Callable[[], Sequence[PooledProducer]]) -> None:
        """Look every few seconds until cancelled."""

        def cut_off() -> dict[PooledProducer, float]:
            return {one: self._cut_off_seconds for one in producers() if is_cut_off(one)}

        while True:
            for producer in await self._trouble.found(cut_off):
                if is_cut_off(producer):
                    producer.fail(REASON)


def is_cut_off(producer: PooledProducer) -> bool:
    """Return whether a producer that could be used has work and, as far as it knows, no broker."""
    return producer.usable and producer.connected_brokers == 0 and bool(producer.queued or producer.waiting)
