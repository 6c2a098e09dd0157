"""Ends a worker whose Kafka client finds no way back to brokers that answer others; a restart cures it.

librdkafka 2.10 and later drops its last broker, for good, when a metadata response names none (its issue 5301),
as a broker does for a moment after it stood still. Nothing but a new client helps then: pools of producers make one
themselves (`kafka.producer_watch`), a consumer is its worker. An outage is another matter: nobody answers, so the
worker waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from omnibase_infra.shared.core.errors import DependencyUnavailableError

LOOK_SECONDS: Final = 5.0
STUCK_SECONDS: Final = 30.0
# Longer than a rebalance can take, which waits for members that do not poll for as long as they may.
OUTSIDE_SECONDS: Final = 360.0

BrokersAnswer = Callable[[], Awaitable[bool]]


class ClientWatch:
    """Compares what the worker's clients see with what a fresh one sees."""

    def __init__(self, brokers_answer: BrokersAnswer) -> None:
        """Args:
        brokers_answer: asks a broker by a client of its own; called only while something is wrong.
        """
        self._brokers_answer = brokers_answer
        self._since: dict[str, float] = {}

    async def run(self, troubles: Callable[[], dict[str, float]]) -> None:
        """Look every few seconds until cancelled.

        Args:
            troubles: what is wrong now, in words, each with the seconds after which it counts.

        Raises:
            DependencyUnavailableError: something has been wrong for too long while brokers answer.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            overdue = self._overdue(troubles())
            if not overdue or not await self._brokers_answer():
                continue
            # Once more: they may have come back this very moment, and the clients with them.
            await asyncio.sleep(LOOK_SECONDS)
            for trouble in self._overdue(troubles()):
                if trouble in overdue and await self._brokers_answer():
                    raise DependencyUnavailableError(
                        f"{trouble} for {time.monotonic() - self._since[trouble]:.0f} s though brokers answer",
                        dependency="kafka",
                        hint="start the worker again: nothing was lost, and new clients find the brokers",
                    )

    def _overdue(self, troubles: dict[str, float]) -> list[str]:
        now = time.monotonic()
        self._since = {trouble: self._since.get(trouble, now) for trouble in troubles}
        return [trouble for trouble, limit in troubles.items() if now - self._since[trouble] >= limit]
