"""Tells a client that is stuck from an outage: its trouble lasts while brokers answer others.

librdkafka may drop its last broker for good when brokers come back from an outage (its issues 5301 and 5605), and only a
new client helps then. In an outage nobody answers, and waiting is right.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Final, Generic, TypeVar

LOOK_SECONDS: Final = 5.0

K = TypeVar("K", bound=Hashable)
BrokersAnswer = Callable[[], Awaitable[bool]]


class LastingTrouble(Generic[K]):
    """Looks at what is wrong with clients, every few seconds."""

    def __init__(self, brokers_answer: BrokersAnswer, *, look_seconds: float = LOOK_SECONDS) -> None:
        """Args:
        brokers_answer: asks a broker by a client of its own; called only while something has been wrong for too long.
        look_seconds: between two looks.
        """
        self._brokers_answer = brokers_answer
        self._look_seconds = look_seconds
        self._since: dict[K, float] = {}

    async def found(self, troubles: Callable[[], Mapping[K, float]]) -> list[K]:
        """Wait until something has been wrong for too long though brokers answer; return all that is.

        Args:
            troubles: what is wrong now, each with the seconds after which it counts.
        """
        while True:
            await asyncio.sleep(self._look_seconds)
            overdue = self._overdue(troubles())
            if not (overdue and await self._brokers_answer()):
                continue
            # Once more: they may have come back this very moment, and the clients with them.
            await asyncio.sleep(self._look_seconds)
            still = [trouble for trouble in self._overdue(troubles()) if trouble in overdue]
            if still and await self._brokers_answer():
                return still

    def seconds(self, trouble: K) -> float:
        """Return how long something has been wrong, as of the last look."""
        return time.monotonic() - self._since[trouble]

    def _overdue(self, troubles: Mapping[K, float]) -> list[K]:
        now = time.monotonic()
        self._since = {trouble: self._since.get(trouble, now) for trouble in troubles}
        return [trouble for trouble, limit in troubles.items() if now - self._since[trouble] >= limit]
