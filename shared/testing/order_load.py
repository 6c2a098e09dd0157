"""A load of order events for `postgres_adapter`, and the check that every one was done once and in order."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Final

from omnibase_infra.shared.testing.fleet import Fleet

ROWS: Final = "SELECT count(*) FROM orders.order_events"
REPEATED: Final = (
    "SELECT count(*) FROM (SELECT 1 FROM orders.order_events GROUP BY order_id, sequence HAVING count(*) > 1) x"
)
DISORDERED: Final = """SELECT count(*) FROM (SELECT sequence, lag(sequence) OVER (PARTITION BY order_id ORDER BY position)
    AS before FROM orders.order_events) x WHERE before >= sequence"""
_BATCH: Final = 50


class OrderLoad:
    """Order events over many keys, each key's numbered, published at a steady pace."""

    def __init__(self, fleet: Fleet, keys: int = 100) -> None:
        self._fleet = fleet
        self._orders = [str(uuid.uuid4()) for _ in range(keys)]
        self.ids: list[str] = []

    async def publish(self, count: int, per_second: float) -> None:
        """Publish `count` more events."""
        first, began = len(self.ids), time.monotonic()
        for start in range(first, first + count, _BATCH):
            batch = []
            for number in range(start, min(start + _BATCH, first + count)):
                order = self._orders[number % len(self._orders)]
                event = {"order_id": order, "sequence": number // len(self._orders) + 1, "kind": "amended"}
                payload = {"statement": "append_order_event", "parameters": event}
                batch.append(self._fleet.command("execute_statement", payload, subject=order))
            self.ids += [one.id for one in batch]
            await self._fleet.send(batch)
            await asyncio.sleep(max(0.0, began + (start - first) / per_second - time.monotonic()))

    async def assert_done_once_in_order(self, seconds: float = 90.0) -> None:
        """Every event answered, by one id each; one row each; per key in order; no dead letter.

        Raises:
            AssertionError: says which of these is not so.
        """
        answers = await self._fleet.answered(self.ids, seconds)
        assert set(self.ids) == answers.keys()
        assert all(len({answer.id for answer in repeats}) == 1 for repeats in answers.values())
        assert all(repeats[0].type.endswith("-completed.v1") for repeats in answers.values())
        assert await self._fleet.fetch_value(ROWS) == len(self.ids)
        assert await self._fleet.fetch_value(REPEATED) == 0
        assert await self._fleet.fetch_value(DISORDERED) == 0
        assert await asyncio.to_thread(self._fleet.count_dead_letters) == 0
