"""Gives up a producer that finds no way back to brokers that answer others, so that the pool makes a new one.

librdkafka may drop its last broker for good when brokers come back from an outage (its issues 5301 and 5605). Records
would then wait for their delivery time-out, minutes after everything else works again. An outage is another matter:
nobody answers, and the records wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from omnibase_infra.shared.kafka.pooled_producer import PooledProducer

LOOK_SECONDS: Final = 5.0
REASON: Final = "it found no way back to brokers that answer others"


class ProducerWatch:
    """Looks at the producers of one pool."""

    def __init__(
        self,
        brokers_answer: Callable[[], Awaitable[bool]],
        *,
        cut_off_seconds: float,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Args:
        brokers_answer: asks a broker by a client of its own; called only while a producer is cut off.
        cut_off_seconds: how long a producer may have work and no connection before brokers are asked. Less than what
            ends a worker (`runtime.client_watch`), because a new producer cures it without a restart.
        look_seconds: between two looks.
        """
        self._brokers_answer = brokers_answer
        self._look_seconds = look_seconds
        self._cut_off_seconds = cut_off_seconds
        self._since: dict[PooledProducer, float] = {}

    async def run(self, producers: Callable[[], Sequence[PooledProducer]]) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await asyncio.sleep(self._look_seconds)
            overdue = self._overdue(producers())
            if not (overdue and await self._brokers_answer()):
                continue
            # Once more: they may have come back this very moment, and the producer with them.
            await asyncio.sleep(self._look_seconds)
            still = [producer for producer in self._overdue(producers()) if producer in overdue]
            if still and await self._brokers_answer():
                for producer in still:
                    if is_cut_off(producer):
                        producer.fail(REASON)

    def _overdue(self, producers: Sequence[PooledProducer]) -> list[PooledProducer]:
        now = time.monotonic()
        self._since = {one: self._since.get(one, now) for one in producers if is_cut_off(one)}
        return [one for one, since in self._since.items() if now - since >= self._cut_off_seconds]


def is_cut_off(producer: PooledProducer) -> bool:
    """Return whether a producer that could be used has work and, as far as it knows, no broker."""
    return producer.usable and producer.connected_brokers == 0 and bool(producer.queued or producer.waiting)
