"""Retry keeps flow: one key of 500 fails for minutes while the worker is kept as busy as it can be.

`python -m tests.faults.retry_flow --minutes 10` measures the other keys' rate before, while and after, in one run, and
checks that nothing was lost, doubled or reordered, and that the failing key's records came in their order.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from tests.faults.arena import Arena, open_arena
from tests.faults.servers import running_servers

from omnibase_infra.shared.testing.fleet import WorkerProcess, eventually

KEYS: Final = 499
STUCK: Final = "stuck"
# Each record of the failing key fails three times: in its lane, and after each delay of the contract but the last.
FAILURES: Final = 3
SECONDS_EACH: Final = 3.0
# Records sent and not done: enough to keep the worker busy, few enough for each to be done in a moment.
OUTSTANDING: Final = 2_500
WINDOW_SECONDS: Final = 10.0
ALLOWED_LOSS: Final = 0.10
_BATCH: Final = 250
_COMPLETED: Final = re.compile(r"^omnibase_records_completed_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
_ROWS: Final = "SELECT count(*) FROM faults.effects"
_DOUBLED: Final = "SELECT count(*) FROM (SELECT FROM faults.effects GROUP BY message_id HAVING count(*) > 1) AS twice"
_DISORDERED: Final = """SELECT count(*) FROM (SELECT sequence, lag(sequence) OVER (PARTITION BY key ORDER BY number) AS before
    FROM faults.commits JOIN faults.effects USING (position)) AS rows WHERE before >= sequence"""


class Flow:
    """A closed loop of load on one worker, and the rate at which it is done."""

    def __init__(self, arena: Arena, worker: WorkerProcess) -> None:
        self._arena = arena
        self._worker = worker
        self.sent = 0
        self._keys = itertools.cycle([f"key-{number:03d}" for number in range(KEYS)])

    async def done(self) -> int:
        """Return how many records the worker says are done."""
        return await asyncio.to_thread(completed, self._worker)

    async def run(self, seconds: float) -> list[float]:
        """Keep the worker busy for so long; return the records per second of each window."""
        rates: list[float] = []
        ends = time.monotonic() + seconds
        before, began = await self.done(), time.monotonic()
        while time.monotonic() < ends:
            done = await self.done()
            if (passed := time.monotonic() - began) >= WINDOW_SECONDS:
                rates.append((done - before) / passed)
                before, began = done, time.monotonic()
            for _ in range(max(0, OUTSTANDING - (self.sent - done)) // _BATCH):
                commands = [self._arena.load.command(next(self._keys)) for _ in range(_BATCH)]
                await self._arena.fleet.send(commands)
                self.sent += len(commands)
            await asyncio.sleep(0.02)
        return rates


def completed(worker: WorkerProcess) -> int:
    """Return the records a worker has completed."""
    address = worker.logged("health_server_started")[0]["address"]
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as response:
        return int(sum(float(value) for value in _COMPLETED.findall(response.read().decode())))


async def measure(arena: Arena, seconds: float, quiet: float, console: Console) -> list[str]:
    """Run the three phases; return what is not as it should be."""
    (slot,) = await arena.start_workers()
    flow = Flow(arena, slot.worker)
    await flow.run(WINDOW_SECONDS)  # warms up
    before = await flow.run(quiet)
    console.print(f"before:        {_line(before)}")
    failing = [
        arena.load.command(STUCK, {"action": "fail", "times": FAILURES})
        for _ in range(max(1, int(seconds / SECONDS_EACH)))
    ]
    await arena.fleet.send(failing)
    flow.sent += len(failing)
    during = await flow.run(seconds)
    left = len(failing) - await arena.fleet.fetch_value(f"SELECT count(*) FROM faults.effects WHERE key = '{STUCK}'")
    console.print(f"while it fails: {_line(during)}; {left} of its {len(failing)} records still waited")
    after = await flow.run(quiet)
    console.print(f"after:         {_line(after)}")

    async def all_done() -> bool:
        return bool(await arena.fleet.fetch_value(_ROWS) >= flow.sent)

    await eventually(all_done, "everything is done", 120 + left * SECONDS_EACH)
    normal, slowed = statistics.median(before + after), statistics.median(during)
    rows, doubled = await arena.fleet.fetch_value(_ROWS), await arena.fleet.fetch_value(_DOUBLED)
    disordered = await arena.fleet.fetch_value(_DISORDERED)
    console.print(f"{rows} rows of {flow.sent} records, {doubled} doubled, {disordered} out of order")
    console.print(f"the other keys' rate while one fails is {slowed / normal:.1%} of normal")
    problems = []
    if (rows, doubled, disordered) != (flow.sent, 0, 0):
        problems.append("records are lost, doubled or out of order")
    if slowed < normal * (1 - ALLOWED_LOSS):
        problems.append(f"the other keys lost more than {ALLOWED_LOSS:.0%}")
    return problems


def _line(rates: Sequence[float]) -> str:
    return f"median {statistics.median(rates):,.0f} records/s ({min(rates):,.0f} to {max(rates):,.0f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0 when all is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.retry_flow", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the key fails (default: 10)")
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds measured before and after (default: 60)")
    asked = parser.parse_args(arguments)
    console = Console(highlight=False)

    async def run(folder: Path) -> list[str]:
        with running_servers(folder) as servers:
            async with open_arena(servers, 1, folder) as arena:
                return await measure(arena, asked.minutes * 60, asked.quiet, console)

    with tempfile.TemporaryDirectory(prefix="omnibase-flow-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        problems = asyncio.run(run(folder))
    for problem in problems:
        console.print(f"✗ {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
