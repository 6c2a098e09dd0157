"""What it costs to be watched: commands with and without traces, with a collector that is killed, and scrapes of /metrics."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from tests.performance.command_throughput import Executed, run_commands
from tests.performance.figures import Figure, Floor, Section, expect, percentile, ratios
from tests.performance.scale import Scale
from tests.performance.servers import Say, Servers

from omnibase_infra.shared.observability.endpoint_files import announced_endpoints
from omnibase_infra.shared.testing.exposition_rules import exposition_problems
from omnibase_infra.shared.testing.fleet import WorkerProcess
from omnibase_infra.shared.testing.otlp_receiver import OtlpReceiver, otlp_receiver

_RATIO = "0.01"
_SCRAPES_APART_SECONDS = 0.25


class _Round(msgspec.Struct):
    """The same commands untraced, traced, and traced with a collector that is killed; seconds of scrapes."""

    untraced: Executed
    traced: Executed
    killed: Executed
    scrapes: list[float]


async def measure(servers: Servers, scale: Scale, say: Say) -> Section:
    """Work off the same backlog three times a round, each on fresh tables and topics.

    Raises:
        BenchmarkError: work was not done; no span arrived; a page of metrics breaks promtool's rules.
    """
    rounds: list[_Round] = []
    for number in range(1, scale.rounds + 1):
        scrapes: list[float] = []
        name = f"untraced-{number}"
        untraced = await _run(servers, name, scale, _scraping(servers.folder / name, scrapes))
        traced = await _traced(servers, f"traced-{number}", scale, kill=False)
        killed = await _traced(servers, f"killed-{number}", scale, kill=True)
        rounds.append(_Round(untraced, traced, killed, scrapes))
        say(
            f"round {number}: {untraced.per_second:,.0f}/s untraced, {traced.per_second:,.0f}/s traced, "
            f"{killed.per_second:,.0f}/s with the collector killed, scrapes of {max(scrapes) * 1000:.1f} ms at most"
        )
    return _section(rounds, scale.commands)


async def _traced(servers: Servers, name: str, scale: Scale, *, kill: bool) -> Executed:
    with otlp_receiver("grpc") as collector:
        result = await _run(
            servers,
            name,
            scale,
            _killing(collector) if kill else None,
            OMNIBASE_OTLP_ENDPOINT=collector.endpoint,
            OMNIBASE_TRACE_SAMPLE_RATIO=_RATIO,
        )
        expect(kill or collector.spans, "no span arrived")
        return result


async def _run(
    servers: Servers,
    name: str,
    scale: Scale,
    meanwhile: Callable[[WorkerProcess], Awaitable[None]] | None,
    **environment: str,
) -> Executed:
    async with servers.fleet(name) as fleet:
        return await run_commands(fleet, scale.commands, meanwhile, **environment)


def _killing(collector: OtlpReceiver) -> Callable[[WorkerProcess], Awaitable[None]]:
    async def kill(_: WorkerProcess) -> None:
        await asyncio.to_thread(collector.stop)

    return kill


def _scraping(folder: Path, seconds: list[float]) -> Callable[[WorkerProcess], Awaitable[None]]:
    async def scrape(process: WorkerProcess) -> None:
        (address,) = [one.address for one in announced_endpoints(folder) if one.pid == process.pid]
        while True:
            took, page = await asyncio.to_thread(_scrape, address)
            seconds.append(took)
            problems = exposition_problems(page)
            expect(not problems, f"the page breaks rules: {problems}")
            await asyncio.sleep(_SCRAPES_APART_SECONDS)

    async def at_least_one(process: WorkerProcess) -> None:
        try:
            await scrape(process)
        finally:
            if not seconds:  # few commands are done before one scrape is
                (address,) = [one.address for one in announced_endpoints(folder) if one.pid == process.pid]
                seconds.append((await asyncio.to_thread(_scrape, address))[0])

    return at_least_one


def _scrape(address: str) -> tuple[float, str]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        began = time.perf_counter()
        connection.request("GET", "/metrics")
        page = connection.getresponse().read()
        return time.perf_counter() - began, page.decode()
    finally:
        connection.close()


def _cpu(figure: Figure) -> Figure:
    return Figure(name=figure.name, unit="µs", values=figure.cpu_microseconds)


def _section(rounds: list[_Round], count: int) -> Section:
    def commands(name: str, of: Callable[[_Round], Executed]) -> Figure:
        results = [of(one) for one in rounds]
        return Figure(
            name=name,
            unit="commands/s",
            values=tuple(one.per_second for one in results),
            cpu_microseconds=tuple(one.cpu_microseconds for one in results),
        )

    def memory(name: str, of: Callable[[_Round], Executed]) -> Figure:
        return Figure(name=name, unit="MB", values=tuple(of(one).peak_megabytes for one in rounds))

    untraced = commands("commands, nothing traced", lambda one: one.untraced)
    traced = commands("commands, 1 % of conversations traced", lambda one: one.traced)
    killed = commands("commands, traced, the collector is killed", lambda one: one.killed)
    there = memory("memory, peak, collector there", lambda one: one.traced)
    gone = memory("memory, peak, collector killed", lambda one: one.killed)
    scrapes = [[seconds * 1000 for seconds in one.scrapes] for one in rounds]
    return Section(
        name="observed",
        title=f"One `omninode run postgres_adapter` on a backlog of {count:,} commands; the collector takes traces over gRPC and "
        f"is killed when the first answers are there; /metrics is read every {_SCRAPES_APART_SECONDS:g} s",
        figures=(
            untraced,
            traced,
            killed,
            ratios("traced / nothing traced", traced, untraced),
            ratios("collector killed / collector there", killed, traced, Floor(0.95)),
            # Less at the mercy of what else the machine does than the rate is.
            ratios("CPU, collector killed / collector there", _cpu(killed), _cpu(traced), Floor(1.05, at_least=False)),
            there,
            gone,
            ratios("memory, collector killed / collector there", gone, there, Floor(1.05, at_least=False)),
            Figure(
                name="scrape of /metrics under this load",
                unit="ms",
                values=tuple(percentile(one, 0.5) for one in scrapes),
                floor=Floor(20, at_least=False),
                digits=1,
            ),
            Figure(
                name="scrape of /metrics under this load, longest",
                unit="ms",
                values=tuple(max(one) for one in scrapes),
                digits=1,
            ),
        ),
        checks=(
            "of every run: each row once and in order, one answer each, all offsets committed, no dead letter",
            "spans arrived at the collector; every page of metrics keeps promtool's rules",
        ),
    )
