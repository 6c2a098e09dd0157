"""Worker processes of the demo: started, watched, killed, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from omnibase_infra.shared.cli.demo_steps.plan import NODE, with_log
from omnibase_infra.shared.core.settings import Settings, require_kafka, require_postgres

READY_SECONDS: Final = 60.0
# A worker's own grace is 25 s, then it closes its clients.
STOP_SECONDS: Final = 45.0
_HURRIED_STOP_SECONDS: Final = 5.0
_REAP_SECONDS: Final = 10.0
_ENDPOINT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05

# Linux ends the worker when this process is gone, however that ended: SIGKILL leaves no time to clean up.
_TIED_TO_PARENT: Final = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A worker of the run. `exit_code` is negative when a signal ended it: -9 is SIGKILL."""

    name: str
    pid: int
    log: str
    exit_code: int | None


class WorkerProcess:
    """One `omninode run postgres_adapter`."""

    def __init__(self, name: str, environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._address: str | None = None
        self._is_killed = False
        with log.open("ab") as output:
            self._process = subprocess.Popen(_command(), stdout=output, stderr=subprocess.STDOUT, env=environment)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""
        return self._process.poll()

    def report(self) -> WorkerReport:
        """Return what the report tells of it."""
        return WorkerReport(name=self.name, pid=self.pid, log=str(self.log), exit_code=self.exit_code)

    async def kill(self) -> None:
        """End it by SIGKILL, and return when it is gone."""
        self.kill_soon()
        await self.wait(_REAP_SECONDS)

    def kill_soon(self) -> None:
        """End it by SIGKILL, and do not wait for that."""
        self._is_killed = True
        self._process.kill()

    def terminate(self) -> None:
        """Ask it by SIGTERM to finish its work and end."""
        self._process.terminate()

    def reap(self) -> None:
        """Take the exit code of one that was killed. Blocks for a moment."""
        self._process.wait(_REAP_SECONDS)

    async def wait(self, seconds: float) -> bool:
        """Wait until it has ended; return whether it has within the time."""
        deadline = time.monotonic() + seconds
        while self.exit_code is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    def require_running(self) -> None:
        """Make sure that it runs, unless it was killed on purpose.

        Raises:
            DemoError: it has ended by itself; shows the end of its log.
        """
        if self.exit_code is not None and not self._is_killed:
            raise with_log(f"{self.name} (pid {self.pid}) ended by itself with {self.exit_code}", self.log)

    async def partitions(self) -> Counter[str]:
        """Return how many partitions of each topic, by its physical name, it has; of one that is not ready, none."""
        return await asyncio.to_thread(self._partitions)

    def _partitions(self) -> Counter[str]:
        if self._get("/readyz")[0] != http.HTTPStatus.OK:
            return Counter()
        _, info = self._get("/info")
        return Counter(part["topic"] for part in info.get("assignment", ()))

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of an endpoint; (0, {}) while it does not listen."""
        self._address = self._address or self._logged_address()
        if self._address is None:
            return 0, {}
        # No urllib: a proxy of the environment has no business between two processes of one machine.
        connection = http.client.HTTPConnection(urlsplit(self._address).netloc, timeout=_ENDPOINT_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.load(response)
        except (OSError, http.client.HTTPException, ValueError):
            # Starting or ending; the caller asks again, within its time.
            return 0, {}
        finally:
            connection.close()

    def _logged_address(self) -> str | None:
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"health_server_started"' in line and line.endswith("}"):
                return str(json.loads(line)["address"])
        return None


class WorkerProcesses:
    """All workers of the run."""

    def __init__(self, settings: Settings, state: Path, logs: Path) -> None:
        self._environment = _environment(settings, state)
        self._logs = logs
        self._all: list[WorkerProcess] = []

    def start(self) -> WorkerProcess:
        """Start one more."""
        name = f"worker {len(self._all) + 1}"
        process = WorkerProcess(name, self._environment, self._logs / f"{name.replace(' ', '-')}.log")
        self._all.append(process)
        return process

    @property
    def running(self) -> Sequence[WorkerProcess]:
        """Return those that have not ended."""
        return [process for process in self._all if process.exit_code is None]

    def require_running(self) -> None:
        """Make sure that all run that were not killed on purpose.

        Raises:
            DemoError: one has ended by itself; shows the end of its log.
        """
        for process in self._all:
            process.require_running()

    async def wait_until_shared_out(self, topics: Mapping[str, int]) -> list[Counter[str]]:
        """Wait until the workers have all partitions of these topics between them, and each has some of its own.

        Returns:
            How many partitions of each topic each running worker has.

        Raises:
            DemoError: not in time, or one has ended; shows the ends of logs.
        """
        deadline = time.monotonic() + READY_SECONDS
        while True:
            shares = await asyncio.gather(*(process.partitions() for process in self.running))
            if all(shares) and sum(shares, Counter()) == Counter(topics):
                return shares
            self.require_running()
            if time.monotonic() > deadline:
                message = f"the workers were not ready, with all partitions shared out, within {READY_SECONDS:g} s"
                raise with_log(message, *(process.log for process in self.running))
            await asyncio.sleep(_LOOK_SECONDS)

    def reports(self) -> list[WorkerReport]:
        """Return what the report tells of all of them."""
        return [process.report() for process in self._all]

    async def stop(self, seconds: float = STOP_SECONDS) -> list[WorkerReport]:
        """End those that run by SIGTERM, by SIGKILL where that takes too long; return how they ended."""
        stopping = list(self.running)
        for process in stopping:
            process.terminate()
        ended = await asyncio.gather(*(process.wait(seconds) for process in stopping))
        for process, has_ended in zip(stopping, ended, strict=True):
            if not has_ended:
                await process.kill()
        return [process.report() for process in stopping]

    def kill_all(self) -> None:
        """End at once what still runs. Blocks for a moment."""
        for process in self.running:
            process.kill_soon()
        for process in self._all:
            process.reap()


@asynccontextmanager
async def worker_processes(settings: Settings, state: Path, logs: Path) -> AsyncIterator[WorkerProcesses]:
    """Provide the workers of a run; none is left when the block ends, whatever ends it."""
    workers = WorkerProcesses(settings, state, logs)
    try:
        yield workers
    finally:
        try:
            await workers.stop(_HURRIED_STOP_SECONDS)
        finally:
            workers.kill_all()


def _command() -> list[str]:
    run = ["-m", "omnibase_infra.shared.cli.main", "run", NODE]
    if sys.platform != "linux":
        return [sys.executable, *run]
    return [sys.executable, "-c", _TIED_TO_PARENT, str(os.getpid()), *run]


def _environment(settings: Settings, state: Path) -> dict[str, str]:
    """Return the environment of a worker: this one, but with the run's realm, database and endpoints."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMNIBASE_KAFKA_GROUP_INSTANCE_ID"}
    return inherited | {
        "OMNIBASE_STATE_DIR": str(state),
        "OMNIBASE_ENV": settings.env,
        "OMNIBASE_TENANT": settings.tenant,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": require_kafka(settings),
        "OMNIBASE_KAFKA_SESSION_TIMEOUT_SECONDS": f"{settings.kafka_session_timeout_seconds:g}",
        "OMNIBASE_POSTGRES_DSN": require_postgres(settings),
        # The address of the endpoints is read from the log.
        "OMNIBASE_HEALTH_HOST": "127.0.0.1",
        "OMNIBASE_HEALTH_PORT": "0",
        "OMNIBASE_LOG_FORMAT": "json",
        "OMNIBASE_LOG_LEVEL": "info",
    }
