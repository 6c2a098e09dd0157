"""Servers that are away or silent at the wrong moment: nothing dead, nothing lost, and a worker that ends when asked."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.local_services import KafkaService, PostgresService
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import eventually, running_fleet
from omnibase_infra.shared.testing.order_load import OrderLoad

pytestmark = [pytest.mark.demanding, pytest.mark.timeout(240)]

Servers = tuple[KafkaService, PostgresService, Settings]
GRACE, MARGIN = 5.0, 20.0


async def test_postgres_frozen_for_a_minute_under_load_costs_nothing_but_time(
    own_servers: Servers, tmp_path: Path
) -> None:
    async with running_fleet(load_spec("postgres_adapter"), own_servers[2], tmp_path) as fleet:
        load = OrderLoad(fleet)
        worker = await fleet.start_ready()
        publishing = asyncio.create_task(load.publish(6_000, per_second=100))
        await fleet.first_answers()
        with frozen(own_servers, "postgres"):
            await eventually(lambda: worker.get("/readyz")[0] == 503, "readiness is false", 40)
            assert worker.get("/livez")[0] == 200
            await asyncio.sleep(50)
            assert worker.exit_code is None
        await publishing
        await load.assert_done_once_in_order(90)
        await eventually(worker.is_ready, "readiness comes back")


@pytest.mark.parametrize(("server", "how"), [("postgres", "stopped"), ("postgres", "frozen"), ("kafka", "stopped")])
async def test_sigterm_while_a_server_is_away_ends_with_zero_in_time(
    own_servers: Servers, server: str, how: str, tmp_path: Path
) -> None:
    service = own_servers[0] if server == "kafka" else own_servers[1]
    async with running_fleet(load_spec("postgres_adapter"), own_servers[2], tmp_path) as fleet:
        load = OrderLoad(fleet)
        worker = await fleet.start_ready(OMNIBASE_SHUTDOWN_GRACE_SECONDS=str(GRACE))
        publishing = asyncio.create_task(load.publish(2_000, per_second=1_000))
        await fleet.first_answers()
        if how == "frozen":
            with frozen(own_servers, server):
                await asyncio.sleep(3)
                code, seconds = await asyncio.to_thread(ended, worker.terminate)
        else:
            await asyncio.to_thread(service.stop)
            await asyncio.sleep(3)
            code, seconds = await asyncio.to_thread(ended, worker.terminate)
            await asyncio.to_thread(service.start)
        assert code == 0, worker.log[-2000:]
        assert seconds < GRACE + MARGIN
        await fleet.start_ready()
        await publishing
        await load.assert_done_once_in_order()


def ended(terminate: object) -> tuple[int, float]:
    """Return exit code and seconds that a call took."""
    began = time.monotonic()
    assert callable(terminate)
    return int(terminate(60.0)), time.monotonic() - began


@contextmanager
def frozen(servers: Servers, server: str) -> Iterator[None]:
    """Stop every process of a server where it is: connections stay open and nobody answers."""
    kafka, postgres, _ = servers
    record = (kafka.brokers[0].process if server == "kafka" else postgres.process).record()
    assert record is not None
    stopped: list[int] = []
    try:
        # The parent first, so that it starts no child that is missed.
        for pid in (record.pid, *children(record.pid)):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def children(parent: int) -> list[int]:
    """Return the processes whose parent it is."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found
