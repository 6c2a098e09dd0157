"""The rows of the command benchmarks: events of 500 orders, the same in every run."""

from __future__ import annotations

from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

ORDERS: Final = 500
BATCH: Final = 500
STATEMENT: Final = "append_order_event"


class OrderEvent(msgspec.Struct, frozen=True):
    """The parameters of the statement."""

    order_id: UUID
    sequence: int
    kind: str
    quantity: int

    def request(self) -> dict[str, Any]:
        """Return the command's payload."""
        return {"statement": STATEMENT, "parameters": msgspec.to_builtins(self)}


def order_events(count: int) -> list[OrderEvent]:
    """Return `count` events; those of an order are numbered from 1."""
    orders = [uuid5(NAMESPACE_URL, f"urn:omnibase:bench:order:{number}") for number in range(ORDERS)]
    return [OrderEvent(orders[index % ORDERS], index // ORDERS + 1, "amended", 3) for index in range(count)]
