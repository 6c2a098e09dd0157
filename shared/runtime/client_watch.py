"""Ends a worker whose Kafka client finds no way back to brokers that answer others; a restart cures it.

Pools of producers make a new client themselves (`kafka.producer_watch`); a consumer is its worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.kafka.lasting_trouble import LOOK_SECONDS, BrokersAnswer, LastingTrouble

STUCK_SECONDS: Final = 30.0
# Longer than a rebalance can take, which waits for members that do not poll for as long as they may.
OUTSIDE_SECONDS: Final = 360.0


class ClientWatch:
    """Compares what the worker's clients see with what a fresh one sees."""

    def __init__(self, brokers_answer: BrokersAnswer) -> None:
        """Args:
        brokers_answer: asks a broker by a client of its own; called only while something is wrong.
        """
        self._trouble: LastingTrouble[str] = LastingTrouble(brokers_answer, look_seconds=LOOK_SECONDS)

    async def run(self, troubles: Callable[[], dict[str, float]]) -> None:
        """Look every few seconds until cancelled.

        Args:
            troubles: what is wrong now, in words, each with the seconds after which it counts.

        Raises:
            DependencyUnavailableError: something has been wrong for too long while brokers answer.
        """
        trouble = (await self._trouble.found(troubles))[0]
        raise DependencyUnavailableError(
            f"{trouble} for {self._trouble.seconds(trouble):.0f} s though brokers answer",
            dependency="kafka",
            hint="start the worker again: nothing was lost, and new clients find the brokers",
        )
