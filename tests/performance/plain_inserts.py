"""The yardstick of the commands, a process of its own: the same rows by batched inserts, one connection, no inbox."""

from __future__ import annotations

import time

import asyncpg
import msgspec
import uvloop
from tests.performance.order_events import BATCH, OrderEvent, order_events
from tests.performance.processes import read_request, write_result

from omnibase_infra.shared.core.settings import load_settings, require_postgres

_INSERT = """\
INSERT INTO orders.order_events (order_id, sequence, kind, quantity)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::integer[])"""


class InsertRequest(msgspec.Struct):
    """How many rows to insert."""

    rows: int


class InsertResult(msgspec.Struct):
    """Time from the first batch to the last commit."""

    seconds: float
    cpu_seconds: float


async def insert_all(request: InsertRequest, dsn: str) -> InsertResult:
    """Insert the rows, a transaction per batch."""
    events = order_events(request.rows)
    connection = await asyncpg.connect(dsn)
    try:
        began, cpu_began = time.perf_counter(), time.process_time()
        for first in range(0, len(events), BATCH):
            await connection.execute(_INSERT, *_columns(events[first : first + BATCH]))
        return InsertResult(time.perf_counter() - began, time.process_time() - cpu_began)
    finally:
        await connection.close()


def _columns(events: list[OrderEvent]) -> tuple[list[object], ...]:
    return (
        [event.order_id for event in events],
        [event.sequence for event in events],
        [event.kind for event in events],
        [event.quantity for event in events],
    )


if __name__ == "__main__":
    asked = read_request(InsertRequest)
    write_result(uvloop.run(insert_all(asked, require_postgres(load_settings()))))
