"""Time from request to answer under an even load, counted from when each request was due."""

from __future__ import annotations

import asyncio
import time

from tests.performance.figures import BenchmarkError, Figure, Floor, Section, expect, percentile
from tests.performance.order_events import OrderEvent, order_events
from tests.performance.processes import cpu_seconds
from tests.performance.scale import Scale
from tests.performance.servers import NODE, Say, Servers

from omnibase_infra.shared.client.fleet_client import FleetClient
from omnibase_infra.shared.testing.fleet import Fleet

_WARM_UP_SECONDS = 1.0
_TIMEOUT_SECONDS = 30.0
_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "longest": 1.0}


async def measure(servers: Servers, scale: Scale, say: Say) -> Section:
    """Send requests at fixed times, however long answers take, and note when each answer is there.

    Raises:
        BenchmarkError: a request failed or its row is missing.
    """
    rate = scale.requests_per_second
    count = round(rate * scale.request_seconds)
    warm_up = round(rate * min(_WARM_UP_SECONDS, scale.request_seconds))
    events = iter(order_events(warm_up + count * scale.rounds))
    latencies: list[list[float]] = []
    cpu: list[float] = []
    async with servers.fleet("latency") as fleet:
        process = await fleet.start_ready(OMNIBASE_LOG_LEVEL="info")
        async with FleetClient(fleet.settings) as client:
            await _load(client, [next(events) for _ in range(warm_up)], rate)
            for number in range(1, scale.rounds + 1):
                cpu_began = cpu_seconds(process.pid)
                latencies.append(await _load(client, [next(events) for _ in range(count)], rate))
                cpu.append((cpu_seconds(process.pid) - cpu_began) / count * 1e6)
                shown = ", ".join(
                    f"{name} {_milliseconds(latencies[-1], share):.1f}" for name, share in _SHARES.items()
                )
                say(f"round {number}: {shown} ms")
        await _expect_rows(fleet, warm_up + count * scale.rounds)
        code = await asyncio.to_thread(process.terminate)
        expect(code == 0, f"the worker stopped with {code}:\n{process.log[-2000:]}")
    figures = [
        Figure(
            name=f"request to answer, {name}",
            unit="ms",
            values=tuple(_milliseconds(values, share) for values in latencies),
            cpu_microseconds=tuple(cpu) if name == "p50" else (),
            floor=Floor(50, at_least=False) if name == "p95" else None,
            digits=1,
        )
        for name, share in _SHARES.items()
    ]
    return Section(
        name="latency",
        title=f"`FleetClient.request` at {rate} requests/s for {scale.request_seconds:g} s a round, effectively once; "
        "from the moment a request was due, so that a stall counts for all who wait behind it; CPU is the worker's",
        figures=tuple(figures),
        checks=("every request was answered `completed`, every row is there",),
    )


async def _load(client: FleetClient, events: list[OrderEvent], rate: int) -> list[float]:
    """Send one request per event at its due time; return the seconds from due time to answer."""
    began = time.perf_counter()

    async def send(event: OrderEvent, due: float) -> float:
        answer = await client.request(
            NODE, "execute_statement", event.request(), key=str(event.order_id), timeout=_TIMEOUT_SECONDS
        )
        (row,) = answer.payload.rows
        expect((row.order_id, row.sequence) == (event.order_id, event.sequence), "an answer holds another row")
        return time.perf_counter() - due

    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            for index, event in enumerate(events):
                due = began + index / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.append(group.create_task(send(event, due)))
    except ExceptionGroup as failed:
        first = failed.exceptions[0]
        raise BenchmarkError(f"{len(failed.exceptions)} requests failed, one with {first!r}") from first
    return [task.result() for task in tasks]


async def _expect_rows(fleet: Fleet, count: int) -> None:
    rows = await fleet.fetch_value("SELECT count(*) FROM orders.order_events")
    expect(rows == count, f"{count} requests were answered, {rows} rows are there")


def _milliseconds(seconds: list[float], share: float) -> float:
    return percentile(seconds, share) * 1000
