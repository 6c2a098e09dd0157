"""Random faults for a long time, under a steady load: the same zeros, and processes that do not grow."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tests.faults.arena import Arena, Slot, open_arena
from tests.faults.processes import Holding, holding
from tests.faults.servers import Servers

from omnibase_infra.shared.testing.fleet import eventually
from omnibase_infra.shared.testing.tcp_proxy import Traffic

_PER_SECOND: Final = 150.0
_PAUSE_SECONDS: Final = (2.0, 8.0)
_SETTLE_SECONDS: Final = 120.0
# A process that lived through the whole run may hold so much more at its end than after its first quiet minute.
_MORE_KILOBYTES: Final = 48 * 1024
_MORE_THREADS: Final = 4
_MORE_DESCRIPTORS: Final = 24
# A library warms up: caches, pools, lazily imported modules.
_WARM_UP_SECONDS: Final = 45.0
EXIT_BROKEN: Final = 1
_HELD: Final = re.compile(
    r"^(omnibase_(?:in_flight_records|in_flight_bytes|pool_in_use_connections|pool_waiting|producer_queue_records))"
    r"(?:\{[^}]*\})? (\S+)$",
    re.MULTILINE,
)

Fault = Callable[[Arena, random.Random], Awaitable[None]]


class Growth(msgspec.Struct):
    """A process that no fault ended, early and now."""

    early: Holding
    now: Holding

    def problems(self, pid: int) -> list[str]:
        """Return what has grown beyond its bound."""
        found = []
        for name, bound in (
            ("kilobytes", _MORE_KILOBYTES),
            ("threads", _MORE_THREADS),
            ("descriptors", _MORE_DESCRIPTORS),
        ):
            early, now = getattr(self.early, name), getattr(self.now, name)
            if now - early > bound:
                found.append(f"process {pid} held {early} {name} early and {now} at the end")
        return found


async def soak(servers: Servers, folder: Path, console: Console, seconds: float, seed: int) -> int:
    """Run for so many seconds; return the exit code."""
    console.print(f"soak: {seconds / 60:g} minutes, seed {seed}")
    chance = random.Random(seed)
    (folder / "soak").mkdir()
    counts: dict[str, int] = {}
    async with open_arena(servers, 3, folder / "soak", seed) as arena:
        # One that no fault ends, to see what it holds; two behind proxies, to be put faults on.
        (steady,) = await arena.start_workers()
        await arena.start_workers(2, proxied=True)
        stop = asyncio.Event()
        loading = asyncio.create_task(_load(arena, stop))
        watching = asyncio.create_task(_watch(steady, stop))
        await _faults(arena, chance, seconds, console, counts)
        stop.set()
        await loading
        growth = await watching
        await asyncio.to_thread(servers.mend)
        report = await arena.settled(_SETTLE_SECONDS)
        problems = growth.problems(steady.worker.pid) if growth is not None else ["nothing was measured"]
        for name, value in (await asyncio.to_thread(_gauges, steady)).items():
            if value:
                problems.append(f"{name} is {value:g} though nothing is under way")
        if steady.restarts:
            problems.append(f"the worker that nothing was done to was started {steady.restarts} times anew")
        restarts = sum(slot.restarts for slot in arena.slots)
    console.print(", ".join(f"{count} times {name}" for name, count in sorted(counts.items())))
    console.print(str(report), markup=False)
    console.print(f"{restarts} restarts; {growth}", markup=False)
    problems += [] if report.is_clean and report.is_settled else [str(report)]
    for problem in problems:
        console.print(problem, markup=False, style="red")
    return EXIT_BROKEN if problems else 0


async def _faults(
    arena: Arena, chance: random.Random, seconds: float, console: Console, counts: dict[str, int]
) -> None:
    deadline = time.monotonic() + seconds
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("soak", total=seconds)
        while (left := deadline - time.monotonic()) > 0:
            fault = chance.choice(FAULTS)
            name = fault.__name__.replace("_", " ")
            progress.update(bar, completed=seconds - left, description=name)
            counts[name] = counts.get(name, 0) + 1
            await fault(arena, chance)
            await asyncio.to_thread(arena.servers.mend)
            await asyncio.sleep(chance.uniform(*_PAUSE_SECONDS))


async def _load(arena: Arena, stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        wish = {"action": "fail", "times": 1 + number % 3} if number % 20 == 0 else None
        await arena.load.publish(40, _PER_SECOND, lambda index, wish=wish: wish if index == 7 else None)  # type: ignore[misc]
        await asyncio.sleep(40 / _PER_SECOND)


async def _watch(slot: Slot, stop: asyncio.Event) -> Growth | None:
    """Compare what the worker holds with what it held when it was warm."""
    growth: Growth | None = None
    began, pid = time.monotonic(), slot.worker.pid
    while not stop.is_set():
        await asyncio.sleep(1)
        now = holding(pid)
        if now is not None and time.monotonic() - began > _WARM_UP_SECONDS:
            growth = Growth(now, now) if growth is None else Growth(growth.early, now)
    return growth


def _gauges(slot: Slot) -> dict[str, float]:
    """Return what a worker says it holds; all of it is zero when nothing is under way. Blocks."""
    address = slot.worker.logged("health_server_started")[0]["address"]
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as response:
        return {name: float(value) for name, value in _HELD.findall(response.read().decode())}


async def worker_killed(arena: Arena, chance: random.Random) -> None:
    """Kill one of the workers."""
    victim = chance.choice(arena.slots[1:]).worker
    if victim.exit_code is None:
        victim.kill()


async def worker_frozen(arena: Arena, chance: random.Random) -> None:
    """Freeze one of the workers, for less or more than its session lasts."""
    victim = chance.choice(arena.slots[1:]).worker
    if victim.exit_code is None:
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(1, 12))
        victim.signal(signal.SIGCONT)


async def broker_killed(arena: Arena, chance: random.Random) -> None:
    """Kill one of the three brokers and start it again."""
    await asyncio.to_thread(chance.choice(arena.brokers.service.brokers).process.kill)
    await asyncio.sleep(chance.uniform(1, 8))
    await asyncio.to_thread(arena.brokers.service.start)


async def brokers_cut(arena: Arena, chance: random.Random) -> None:
    """Reset the connections of the workers to all brokers."""
    for proxy in arena.brokers.proxies:
        proxy.cut(refuse=False)
    await asyncio.sleep(chance.uniform(0, 1))


async def brokers_silent(arena: Arena, chance: random.Random) -> None:
    """Let brokers' answers be lost."""
    for proxy in arena.brokers.proxies:
        proxy.blackhole("down")
    await asyncio.sleep(chance.uniform(1, 10))


async def brokers_slow(arena: Arena, chance: random.Random) -> None:
    """Make the line to the brokers slow."""
    for proxy in arena.brokers.proxies:
        proxy.set(up=Traffic(delay=0.05), down=Traffic(delay=0.05))
    await asyncio.sleep(chance.uniform(2, 8))


async def postgres_killed(arena: Arena, chance: random.Random) -> None:
    """Kill the database server and start it again."""
    await asyncio.to_thread(arena.servers.postgres.kill)
    await asyncio.sleep(chance.uniform(0.5, 5))
    await asyncio.to_thread(arena.servers.postgres.start)


async def postgres_cut(arena: Arena, chance: random.Random) -> None:
    """Reset the workers' connections to the database."""
    for _ in range(3):
        arena.servers.postgres_proxy.cut(refuse=False)
        await asyncio.sleep(chance.uniform(0.1, 0.5))


async def postgres_silent(arena: Arena, chance: random.Random) -> None:
    """Let the database say nothing any more."""
    arena.servers.postgres_proxy.blackhole()
    await asyncio.sleep(chance.uniform(1, 15))


async def member_added(arena: Arena, chance: random.Random) -> None:
    """Let a further member join and leave."""
    slot = arena.add_slot()
    await eventually(lambda: slot.worker.exit_code is not None or slot.worker.is_ready(), "it is ready", 60)
    await asyncio.sleep(chance.uniform(0, 4))
    slot.is_kept = False
    if slot.worker.exit_code is None:
        await asyncio.to_thread(slot.worker.terminate)
    arena.slots.remove(slot)


FAULTS: Final[tuple[Fault, ...]] = (
    worker_killed,
    worker_frozen,
    broker_killed,
    brokers_cut,
    brokers_silent,
    brokers_slow,
    postgres_killed,
    postgres_cut,
    postgres_silent,
    member_added,
)
