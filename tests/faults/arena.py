"""Where one scenario takes place: a realm, a database, supervised workers, a load, and the count at the end."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
from confluent_kafka import KafkaException
from tests.faults.checker import Report, check
from tests.faults.collector import Collector
from tests.faults.patched_worker import patched
from tests.faults.probe import ProbeFleet, ProbeLoad, probe_spec
from tests.faults.servers import Brokers, Servers

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.testing.fleet import RUN_MODULE, WorkerProcess, eventually

_HAPPENED: Final = "SELECT count(DISTINCT message_id) FROM faults.effects WHERE message_id = ANY($1)"
_LOOK_SECONDS: Final = 0.1
_COLLECT_SECONDS: Final = 0.5
# As a supervisor that lets a process come back at once, and gives up on one that never stays.
_RESTART_SECONDS: Final = 0.3
_MOST_RESTARTS: Final = 25
REPOSITORY: Final = Path(__file__).resolve().parents[2]


class Slot:
    """A place for a worker that is filled again when its process dies, as a supervisor does."""

    def __init__(self, arena: Arena, module: Sequence[str], environment: dict[str, str]) -> None:
        self._arena = arena
        self._module = module
        self._environment = environment
        self.worker = self._start()
        self.restarts = 0
        self.is_kept = True

    def _start(self) -> WorkerProcess:
        return self._arena.fleet.start(module=self._module, **self._environment)

    async def keep(self) -> None:
        """Start the process again whenever it has ended otherwise than asked to."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            code = self.worker.exit_code
            if self.is_kept and code is not None and code != 0:
                self.restarts += 1
                if self.restarts > _MOST_RESTARTS:
                    raise AssertionError(f"a worker died {self.restarts} times, last with {code}:\n{self._tail()}")
                await asyncio.sleep(_RESTART_SECONDS)
                self.worker = self._start()

    def is_back(self) -> bool:
        """Return whether a process that came after the first one is ready."""
        return self.restarts > 0 and self.worker.exit_code is None and self.worker.is_ready()

    def owned(self) -> int:
        """Return how many partitions its worker owns."""
        _, info = self.worker.get("/info")
        return len(info["assignment"]) if info else 0

    def _tail(self) -> str:
        return self.worker.log[-3000:]


class Arena:
    """One run of one scenario.

    Attributes:
        servers / brokers: what faults are put on.
        fleet / load: the workers and what they are given.
        settings: of the test's own clients, which no proxy is between.
        folder: for logs and for what a scenario keeps.
        chance: for scenarios that choose; seeded.
        collector: sees what has become of the inputs.
        expected_dead / expected_refused: how many inputs are to end so.
    """

    def __init__(self, servers: Servers, brokers: Brokers, settings: Settings, folder: Path, seed: int) -> None:
        self.servers = servers
        self.brokers = brokers
        self.settings = settings
        self.folder = folder
        self.fleet = ProbeFleet(probe_spec(), settings, folder)
        self.load = ProbeLoad(self.fleet, seed=seed)
        self.chance = random.Random(seed)
        self.expected_dead = 0
        self.expected_refused = 0
        self.slots: list[Slot] = []
        self.collector = Collector(self.fleet.spec, settings)
        self._keepers: list[asyncio.Task[None]] = []
        self._recovery: asyncio.Task[float] | None = None

    async def start_workers(
        self, count: int = 1, *, patches: Sequence[str] = (), proxied: bool = False, **environment: str
    ) -> list[Slot]:
        """Start supervised workers and wait until they are ready.

        Args:
            count: how many.
            patches: of `patched_worker`.
            proxied: whether they reach Kafka and PostgreSQL through the proxies.
            environment: further `OMNIBASE_*` variables.
        """
        slots = [self.add_slot(patches=patches, proxied=proxied, **environment) for _ in range(count)]
        for slot in slots:
            await eventually(slot.worker.is_ready, "the worker is ready", 40)
        return slots

    def add_slot(self, *, patches: Sequence[str] = (), proxied: bool = False, **environment: str) -> Slot:
        """Start one supervised worker without waiting for it."""
        variables = {}
        if patches:
            # Patches are of this folder, which is no part of what is installed.
            paths = [os.environ.get("PYTHONPATH", ""), str(REPOSITORY)]
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if proxied:
            variables["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"] = self.brokers.proxied
            variables["OMNIBASE_POSTGRES_DSN"] = self.servers.proxied_dsn(require_postgres(self.settings))
        module = patched(*patches) if patches else RUN_MODULE
        slot = Slot(self, module, variables | environment)
        self.slots.append(slot)
        self._keepers.append(asyncio.create_task(slot.keep()))
        return slot

    def healed(self) -> None:
        """Note that the fault is over: recovery is the time until everything published so far has taken effect."""
        self._recovery = asyncio.create_task(self._recovered(self.load.ids))

    async def _recovered(self, ids: Sequence[str]) -> float:
        """Return the seconds until all of these have left their rows."""
        began = time.monotonic()
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                if await self.everything_happened(ids):
                    return time.monotonic() - began
            await asyncio.sleep(_LOOK_SECONDS)

    async def settled(self, bound: float) -> Report:
        """Wait until nothing is under way, or for so many seconds; return the last report."""
        deadline = time.monotonic() + bound
        while True:
            self._check_keepers()
            report = await self.report()
            if (report is not None and report.is_settled) or time.monotonic() > deadline:
                assert report is not None, "the servers do not answer"
                return report
            await asyncio.sleep(_COLLECT_SECONDS)

    async def report(self) -> Report | None:
        """Return what the checker says now; None when the servers cannot be asked."""
        try:
            return check(await self.collector.collect(self.load.inputs))
        except (DependencyUnavailableError, KafkaException, OSError, asyncpg.PostgresConnectionError):
            return None

    async def committed(self, seconds: float = 20.0) -> None:
        """Wait until the offsets of everything that was published are committed."""

        async def is_committed() -> bool:
            return not (await self.collector.collect(self.load.inputs)).uncommitted

        await eventually(is_committed, "all offsets are committed", seconds)

    async def effects(self) -> int:
        """Return how many rows there are."""
        return int(await self.fleet.fetch_value("SELECT count(*) FROM faults.commits"))

    async def flowing(self, more: int = 20, seconds: float = 30.0) -> None:
        """Wait until that many more effects have been committed."""
        target = await self.effects() + more

        async def enough() -> bool:
            return await self.effects() >= target

        await eventually(enough, f"{more} more effects", seconds)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Provide a session on the database, beside all proxies."""
        connection = await asyncpg.connect(require_postgres(self.settings), timeout=10)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    def alarm_seen(self, alarm: str) -> bool:
        """Return whether a worker raised an alarm: `exit CODE`, `log EVENT`, `not ready: NAME` or `says TEXT`."""
        kind, _, what = alarm.partition(" ")
        workers = self.fleet.processes
        if kind == "exit":
            return any(worker.exit_code == int(what) for worker in workers)
        if kind == "log":
            return any(worker.logged(what) for worker in workers)
        if kind == "not":
            name = what.removeprefix("ready: ")
            return any(name in line for worker in workers for line in worker.logged("worker_not_ready"))
        return any(what in worker.log for worker in workers)

    async def everything_happened(self, ids: Sequence[str] | None = None) -> bool:
        """Return whether all of these inputs, or all there are, have left their rows."""
        wanted = self.load.ids if ids is None else ids
        async with self.connection() as connection:
            return bool(await connection.fetchval(_HAPPENED, wanted) == len(set(wanted)))

    @property
    def recovery(self) -> float | None:
        """Return the seconds from the end of the fault until what was published before it had taken effect, if it has.

        None also where some of it is never to take effect, or the scenario has no end of the fault.
        """
        task = self._recovery
        return task.result() if task is not None and task.done() and not task.cancelled() else None

    async def run(self, work: Callable[[Arena], Awaitable[None]]) -> None:
        """Run a scenario's work to its end.

        Raises:
            AssertionError: what it asserts, or a worker died again and again.
        """
        await work(self)
        self._check_keepers()

    def _check_keepers(self) -> None:
        for keeper in self._keepers:
            if keeper.done() and not keeper.cancelled() and (error := keeper.exception()) is not None:
                raise error

    async def close(self) -> None:
        """End the workers."""
        watching = [*self._keepers, *([self._recovery] if self._recovery is not None else [])]
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await self.fleet.close()


@asynccontextmanager
async def open_arena(servers: Servers, brokers: int, folder: Path, seed: int = 1) -> AsyncIterator[Arena]:
    """Provide an arena on servers that run; its topics exist and no worker runs."""
    cluster = await asyncio.to_thread(servers.brokers, brokers)
    await asyncio.to_thread(servers.mend)
    async with servers.place(cluster) as settings:
        arena = Arena(servers, cluster, settings, folder, seed)
        await asyncio.to_thread(arena.fleet.provision)
        arena.fleet.producer.start()
        try:
            yield arena
        finally:
            await arena.close()
