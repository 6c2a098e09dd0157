"""Workers killed, servers stopped: rows exactly once, order per key kept, every command answered, nothing dead."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.local_services import KafkaService, PostgresService
from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate, read_migrations
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import Fleet, eventually, running_fleet
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer

pytestmark = [pytest.mark.demanding, pytest.mark.timeout(240)]

ROWS = "SELECT count(*) FROM orders.order_events"
REPEATED = "SELECT count(*) FROM (SELECT 1 FROM orders.order_events GROUP BY order_id, sequence HAVING count(*) > 1) x"
DISORDERED = """SELECT count(*) FROM (SELECT sequence, lag(sequence) OVER (PARTITION BY order_id ORDER BY position) AS
    before FROM orders.order_events) x WHERE before >= sequence"""


class Load:
    """Order events over many keys, each key's numbered, published at a steady pace."""

    def __init__(self, fleet: Fleet, keys: int = 100) -> None:
        self._fleet = fleet
        self._orders = [str(uuid.uuid4()) for _ in range(keys)]
        self.ids: list[str] = []

    async def publish(self, count: int, per_second: float) -> None:
        """Publish `count` more events."""
        first, began = len(self.ids), time.monotonic()
        for start in range(first, first + count, 50):
            batch = []
            for number in range(start, min(start + 50, first + count)):
                order = self._orders[number % len(self._orders)]
                event = {"order_id": order, "sequence": number // len(self._orders) + 1, "kind": "amended"}
                payload = {"statement": "append_order_event", "parameters": event}
                batch.append(self._fleet.command("execute_statement", payload, subject=order))
            self.ids += [one.id for one in batch]
            await self._fleet.send(batch)
            await asyncio.sleep(max(0.0, began + (start - first) / per_second - time.monotonic()))

    async def assert_done_once_in_order(self, seconds: float = 90.0) -> None:
        """Every event answered, by one id each; one row each; per key in order; no dead letter."""
        answers = await self._fleet.answered(self.ids, seconds)
        assert set(self.ids) == answers.keys()
        assert all(len({answer.id for answer in repeats}) == 1 for repeats in answers.values())
        assert all(repeats[0].type.endswith("-completed.v1") for repeats in answers.values())
        assert await self._fleet.fetch_value(ROWS) == len(self.ids)
        assert await self._fleet.fetch_value(REPEATED) == 0
        assert await self._fleet.fetch_value(DISORDERED) == 0
        with pytest.raises(AssertionError, match="1 dead letters"):
            await self._fleet.dead_letters(1, seconds=0.5)


async def test_ten_kills_at_random_moments_lose_double_and_reorder_nothing(fleet: Fleet) -> None:
    load, chance = Load(fleet, keys=500), random.Random()
    workers = [await fleet.start_ready(), await fleet.start_ready()]
    publishing = asyncio.create_task(load.publish(10_000, per_second=700))
    for number in range(10):
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        victim = number % 2
        workers[victim].kill()
        workers[victim] = fleet.start()
    await publishing
    await load.assert_done_once_in_order()


async def test_sigterm_under_load_ends_with_zero_within_the_grace_period_and_no_answer_is_repeated(
    fleet: Fleet,
) -> None:
    load = Load(fleet)
    worker = await fleet.start_ready()
    publishing = asyncio.create_task(load.publish(3_000, per_second=1_500))
    await fleet.first_answers()
    began = time.monotonic()
    assert await asyncio.to_thread(worker.terminate) == 0
    assert time.monotonic() - began < 25
    await publishing
    await fleet.start_ready()
    await load.assert_done_once_in_order()
    assert all(len(repeats) == 1 for repeats in fleet.answers.values())


@pytest.fixture
async def own_servers(realm: Realm, tmp_path: Path) -> AsyncIterator[tuple[KafkaService, PostgresService, Settings]]:
    """A broker and a database server of this test alone, to be stopped."""
    kafka, postgres = KafkaService(tmp_path / "kafka", brokers=1), PostgresService(tmp_path / "postgres")

    def start() -> Settings:
        for service in (kafka, postgres):
            service.prepare()
            service.start()
        address = kafka.variables()["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"]
        dsn = postgres.variables()["OMNIBASE_POSTGRES_DSN"]
        return KafkaServer(address, tmp_path / "env").settings(realm, postgres_dsn=dsn)

    def stop() -> None:
        for service in (kafka, postgres):
            service.kill()
            service.delete_data()

    settings = await asyncio.to_thread(start)
    try:
        from omnibase_infra import workers
        from omnibase_infra.shared.registry.nodes import find_node  # noqa: F401

        folder = Path(str(workers.__file__)).parent / "postgres_adapter" / "v1_0_0" / "migrations"
        await migrate(
            settings.postgres_dsn.get_secret_value(),  # type: ignore[union-attr]
            [infrastructure_migrations(), read_migrations("postgres_adapter", folder)],
        )
        yield kafka, postgres, settings
    finally:
        await asyncio.to_thread(stop)


@pytest.mark.parametrize("server", ["postgres", "kafka"])
async def test_a_server_stopped_for_a_minute_under_load_costs_nothing_but_time(
    own_servers: tuple[KafkaService, PostgresService, Settings], server: str, tmp_path: Path
) -> None:
    kafka, postgres, settings = own_servers
    service: KafkaService | PostgresService = kafka if server == "kafka" else postgres
    async with running_fleet(load_spec("postgres_adapter"), settings, tmp_path) as fleet:
        load = Load(fleet)
        worker = await fleet.start_ready()
        publishing = asyncio.create_task(load.publish(6_000, per_second=300))
        await fleet.first_answers()
        await asyncio.to_thread(service.stop)
        stopped_at = time.monotonic()
        await eventually(lambda: worker.get("/readyz")[0] == 503, "readiness is false", 30)
        status, ready = worker.get("/readyz")
        assert (status, ready["not_usable"]) == (503, [server])
        assert worker.get("/livez")[0] == 200
        peak = 0
        while time.monotonic() - stopped_at < 60:
            peak = max(peak, resident_kilobytes(worker.pid))
            await asyncio.sleep(0.5)
        assert peak < 512 * 1024, f"{peak} kB resident during the outage"
        await asyncio.to_thread(service.start)
        await publishing
        await load.assert_done_once_in_order(90)
        await eventually(worker.is_ready, "readiness comes back")


def resident_kilobytes(pid: int) -> int:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
