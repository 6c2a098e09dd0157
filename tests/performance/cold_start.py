"""How soon a worker is ready after its process starts, what its node costs, and how much memory it has when idle."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time

import msgspec
from tests.performance.figures import BenchmarkError, Figure, Floor, Section, expect
from tests.performance.node_construction import ConstructionRequest, ConstructionResult
from tests.performance.processes import cpu_seconds, resident_megabytes, run_child
from tests.performance.scale import Scale
from tests.performance.servers import NODE, Say, Servers, variables_of

from omnibase_infra.shared.testing.fleet import Fleet, WorkerProcess

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.005
_GIVE_UP_SECONDS = 30.0


class _Start(msgspec.Struct, frozen=True):
    """One start: seconds from the process to readiness, its CPU time until then, its memory when idle."""

    ready_seconds: float
    cpu_seconds: float
    idle_megabytes: float


async def measure(servers: Servers, scale: Scale, say: Say) -> Section:
    """Start worker processes one after the other; topics, offsets and tables are there.

    Raises:
        BenchmarkError: a worker did not get ready or did not stop in order.
    """
    first: list[_Start] = []
    starts: list[_Start] = []
    built: list[ConstructionResult] = []
    async with servers.fleet("cold-start") as fleet:
        # A place of its own for compiled modules: it is empty for the first start, whatever ran here before.
        compiled = {"PYTHONPYCACHEPREFIX": str(servers.folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
        first.append(await _start(fleet, compiled, 0))
        say(f"first start: ready after {first[-1].ready_seconds:.2f} s")
        for number in range(1, scale.starts + 1):
            built.append(await _construction(fleet, compiled))
            starts.append(await _start(fleet, compiled, scale.idle_seconds))
            say(
                f"start {number}: ready after {starts[-1].ready_seconds:.2f} s, {starts[-1].idle_megabytes:.0f} MB idle"
            )
    return Section(
        name="cold-start",
        title=f"`omninode run {NODE}` started {scale.starts} times, topics and tables there; idle memory is the resident "
        f"set {scale.idle_seconds:g} s after it was ready; for the first start nothing is compiled, not even Python's own modules",
        figures=(
            Figure(
                name="process start to /readyz 200",
                unit="s",
                values=tuple(one.ready_seconds for one in starts),
                floor=Floor(1, at_least=False),
                digits=2,
            ),
            Figure(name="CPU time until ready", unit="s", values=tuple(one.cpu_seconds for one in starts), digits=2),
            Figure(
                name="first start after installation",
                unit="s",
                values=tuple(one.ready_seconds for one in first),
                digits=2,
            ),
            _milliseconds("import of the node: driver and models", [one.import_seconds for one in built]),
            _milliseconds("construction of the node", [one.build_seconds for one in built]),
            Figure(
                name="memory, idle",
                unit="MB",
                values=tuple(one.idle_megabytes for one in starts),
                floor=Floor(120, at_least=False),
            ),
        ),
        checks=("every process answered /readyz with 200 by itself and stopped with 0 on SIGTERM",),
    )


async def _start(fleet: Fleet, environment: dict[str, str], idle_seconds: float) -> _Start:
    port = _free_port()
    began = time.perf_counter()
    process = fleet.start(**environment, OMNIBASE_HEALTH_HOST=_HOST, OMNIBASE_HEALTH_PORT=str(port))
    await asyncio.to_thread(_wait_until_ready, process, port)
    ready_seconds, cpu = time.perf_counter() - began, cpu_seconds(process.pid)
    await asyncio.sleep(idle_seconds)
    idle_megabytes = resident_megabytes(process.pid)
    code = await asyncio.to_thread(process.terminate)
    expect(code == 0, f"the worker stopped with {code}:\n{process.log[-2000:]}")
    return _Start(ready_seconds, cpu, idle_megabytes)


async def _construction(fleet: Fleet, environment: dict[str, str]) -> ConstructionResult:
    request = ConstructionRequest(NODE)
    result = await run_child(
        "node_construction", request, ConstructionResult, variables_of(fleet.settings) | environment
    )
    expect(result.operations == len(fleet.spec.operations), "the node lacks operations")
    return result


def _milliseconds(name: str, seconds: list[float]) -> Figure:
    return Figure(name=name, unit="ms", values=tuple(one * 1000 for one in seconds), digits=1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: WorkerProcess, port: int) -> None:
    give_up_at = time.monotonic() + _GIVE_UP_SECONDS
    while _readiness(port) != http.client.OK:
        expect(process.exit_code is None, f"the worker ended with {process.exit_code}:\n{process.log[-2000:]}")
        if time.monotonic() > give_up_at:
            raise BenchmarkError(f"the worker was not ready within {_GIVE_UP_SECONDS:g} s:\n{process.log[-2000:]}")
        time.sleep(_POLL_SECONDS)


def _readiness(port: int) -> int:
    """Return the status of `/readyz`, 0 while nobody listens."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
