"""`omninode metrics` as people run it, on endpoints of this test."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.endpoint_files import WorkerEndpoint, announced
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.runtime.health_server import HealthServer


class Process:
    """The endpoints of a worker process that has committed a number of times."""

    def __init__(self, worker: str, commits: int) -> None:
        self.registry = MetricsRegistry(process_metrics=False)
        self.registry.counter(metric.COMMITS, worker=worker).inc(commits)

    def live(self) -> tuple[bool, str]:
        return True, "ok"

    def ready(self) -> tuple[bool, Mapping[str, str]]:
        return True, {}

    def info(self) -> Mapping[str, Any]:
        return {}

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        return self.registry.exposition(openmetrics=openmetrics)


class Machine:
    """Processes that have announced themselves in a state folder."""

    def __init__(self, state: Path, stack: AsyncExitStack) -> None:
        self.state = state
        self._stack = stack

    async def start(self, worker: str, commits: int) -> str:
        server = await self._stack.enter_async_context(HealthServer(Process(worker, commits)))
        address = f"http://127.0.0.1:{server.port}"
        # One test process stands for several workers; the file's name has the number of each.
        folder = self.state / "endpoints"
        folder.mkdir(exist_ok=True)
        endpoint = WorkerEndpoint(worker, "test", os.getpid(), address)
        self._stack.enter_context(announced(self.state, endpoint))
        (folder / f"{worker}-{os.getpid()}.json").rename(folder / f"{worker}-{server.port}.json")
        return address

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run, self.command(*arguments), capture_output=True, text=True, timeout=60, env=self.environment
        )

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"OMNIBASE_STATE_DIR": str(self.state)}

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "omnibase_infra.shared.cli.main", "metrics", *arguments]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with AsyncExitStack() as stack:
        yield Machine(tmp_path, stack)


async def test_processes_of_this_machine_are_found_and_added_up(machine: Machine) -> None:
    for worker, commits in (("order-store", 3), ("order-store", 4), ("billing", 5)):
        await machine.start(worker, commits)
    everything = await machine.run()
    assert 'omnibase_commits_total{worker="order-store"} 7.0' in everything.stdout
    assert 'omnibase_commits_total{worker="billing"} 5.0' in everything.stdout
    one = await machine.run("order_store")
    assert "billing" not in one.stdout
    assert (everything.returncode, one.returncode) == (0, 0)


async def test_what_does_not_answer_is_named_and_left_out(machine: Machine) -> None:
    address = await machine.start("order-store", 3)
    done = await machine.run("--target", address, "--target", "127.0.0.1:1")
    assert 'omnibase_commits_total{worker="order-store"} 3.0' in done.stdout
    assert "http://127.0.0.1:1 does not answer" in done.stderr
    assert done.returncode == 0


async def test_nobody_to_ask_is_said(machine: Machine) -> None:
    done = await machine.run()
    assert done.returncode == 1
    assert "no worker of this machine" in done.stderr
    assert "--target" in done.stderr


async def test_a_target_that_is_none_is_refused(machine: Machine) -> None:
    done = await machine.run("--target", "somewhere")
    assert (done.returncode, "'somewhere' is no HOST:PORT" in done.stderr) == (2, True)


async def test_the_page_is_served_afresh_until_it_is_stopped(machine: Machine) -> None:
    await machine.start("order-store", 3)
    server = await asyncio.create_subprocess_exec(
        *machine.command("--serve", "0"), env=machine.environment, stderr=asyncio.subprocess.PIPE
    )
    assert server.stderr is not None
    try:
        address = (await asyncio.wait_for(server.stderr.readline(), 30)).decode().strip()
        assert 'omnibase_commits_total{worker="order-store"} 3.0' in await asyncio.to_thread(_read, address)
        await machine.start("order-store", 4)
        assert 'omnibase_commits_total{worker="order-store"} 7.0' in await asyncio.to_thread(_read, address)
        server.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(server.wait(), 30) == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


def _read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as response:
        page: bytes = response.read()
        return page.decode()
