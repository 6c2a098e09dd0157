"""What a scenario is, how one is run, and the row that it ends in."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
from tests.faults.arena import Arena, open_arena
from tests.faults.checker import Report
from tests.faults.servers import Servers

# Beyond this a scenario hangs.
LIMIT_SECONDS: Final = 240.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A fault, put on workers under load.

    Attributes:
        name: what happens, in a few words; unique.
        run: puts the fault and the load, calls `arena.healed()` when the fault is over, and returns when the load is
            published. What it expects beyond the checker it asserts.
        bound: seconds within which what was published before the end of the fault has taken effect, and within which
            everything is in its place and committed after the end of the load.
        alarm: what tells a person: see `Arena.alarm_seen`; empty where nobody needs to know.
        brokers: 1 or 3.
        short: whether it is part of the short form in `make test`.
    """

    name: str
    run: Callable[[Arena], Awaitable[None]]
    bound: float = 20.0
    alarm: str = ""
    brokers: int = 1
    short: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of a scenario showed. `problem` is empty when all is as it should be."""

    scenario: Scenario
    report: Report | None
    recovery: float
    alarm_raised: bool
    problem: str = ""

    @property
    def is_well(self) -> bool:
        """Return whether the scenario went as it should."""
        return not self.problem


async def run_scenario(servers: Servers, scenario: Scenario, folder: Path, seed: int = 1) -> Row:
    """Run a scenario on servers that run; every failure is in the row."""
    folder.mkdir(parents=True, exist_ok=True)
    report: Report | None = None
    recovery, alarm_raised = 0.0, False
    try:
        async with asyncio.timeout(LIMIT_SECONDS), open_arena(servers, scenario.brokers, folder, seed) as arena:
            await arena.run(scenario.run)
            ended = time.monotonic()
            report = await arena.settled(scenario.bound)
            recovery = arena.recovery or time.monotonic() - ended
            alarm_raised = not scenario.alarm or arena.alarm_seen(scenario.alarm)
            problem = _problem(scenario, arena, report, recovery, alarm_raised)
    except Exception as error:  # noqa: BLE001 - becomes the row's problem
        problem = "".join(traceback.format_exception(error)[-6:])
    return Row(scenario=scenario, report=report, recovery=recovery, alarm_raised=alarm_raised, problem=problem)


def _problem(scenario: Scenario, arena: Arena, report: Report, recovery: float, alarm_raised: bool) -> str:
    problems = []
    if not report.is_clean:
        problems.append(str(report))
    if not report.is_settled or recovery > scenario.bound:
        problems.append(f"not settled within {scenario.bound:g} s: {report}")
    for place, found, expected in (
        ("dead letters", report.dead, arena.expected_dead),
        ("refused", report.refused, arena.expected_refused),
    ):
        if report.is_settled and found != expected:
            problems.append(f"{expected} {place} expected: {report}")
    if not alarm_raised:
        problems.append(f"no worker raised the alarm {scenario.alarm!r}")
    if problems:
        for worker in arena.fleet.processes[-2:]:
            said = [str(worker.get(path)) for path in ("/readyz", "/info")] if worker.exit_code is None else []
            problems += [f"process {worker.pid}, exit code {worker.exit_code}:", *said, worker.log[-1500:]]
    return "\n".join(problems)
