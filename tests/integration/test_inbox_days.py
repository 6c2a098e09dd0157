"""A running worker adds the days of inbox and outbox to come and drops those that are over, beside its work."""

from __future__ import annotations

import asyncio
import urllib.request
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg

from omnibase_infra.shared.core.settings import require_postgres
from omnibase_infra.shared.postgres.day_partitions import TABLES, add_day, read_partitions
from omnibase_infra.shared.testing.fleet import Fleet, WorkerProcess, eventually


def insertion(number: int) -> dict[str, object]:
    parameters = {"order_id": str(uuid4()), "sequence": number, "kind": "amended", "quantity": 1}
    return {"statement": "append_order_event", "parameters": parameters}


def metric(worker: WorkerProcess, name: str) -> float:
    (started,) = worker.logged("health_server_started")
    with urllib.request.urlopen(started["address"] + "/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{")), -1.0)


async def test_days_come_and_go_while_commands_are_answered(fleet: Fleet) -> None:
    today = datetime.now(UTC).date()
    connection = await asyncpg.connect(require_postgres(fleet.settings))
    try:
        for days in (40, 50, 60):
            await add_day(connection, today - timedelta(days=days), TABLES, 1.0)
        # As if nobody had looked for some days.
        for table in TABLES:
            await connection.execute(f"DROP TABLE omnibase.{table}_{today + timedelta(days=3):%Y%m%d}")
        workers = [await fleet.start_ready() for _ in range(2)]
        commands = [fleet.command("execute_statement", insertion(number)) for number in range(1, 200)]
        await fleet.send(commands)
        await fleet.answered([one.id for one in commands])

        async def only_days_in_use() -> bool:
            found = {(one.table, one.lower) for one in await read_partitions(connection)}
            return found == {(table, today + timedelta(days=days)) for table in TABLES for days in range(-1, 4)}

        await eventually(only_days_in_use, "the old days are gone and the new ones are there", 30.0)
    finally:
        await connection.close()
    dropped = [await asyncio.to_thread(metric, worker, "omnibase_inbox_partitions_dropped_total") for worker in workers]
    days_seen = [await asyncio.to_thread(metric, worker, "omnibase_inbox_partitions") for worker in workers]
    assert sum(dropped) == 3
    assert min(days_seen) >= 5
    assert [worker.terminate() for worker in workers] == [0, 0]
    assert not [line for worker in workers for line in worker.logged("inbox_maintenance_failed")]
