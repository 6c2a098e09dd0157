"""The checker finds bugs that are planted into a real worker: what it calls clean elsewhere is clean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.faults.arena import Arena, open_arena
from tests.faults.checker import Report
from tests.faults.servers import Servers

from omnibase_infra.shared.testing.fleet import eventually

pytestmark = [pytest.mark.demanding, pytest.mark.timeout(120)]


async def found(
    servers: Servers, folder: Path, run: Callable[[Arena], Awaitable[None]], wanted: Callable[[Report], bool]
) -> Report:
    """Run a worker with a bug until the checker sees what is wanted; return its report."""
    async with open_arena(servers, 1, folder) as arena:
        await run(arena)
        reports: list[Report] = []

        async def is_seen() -> bool:
            if (report := await arena.report()) is not None:
                reports.append(report)
            return bool(reports) and reports[-1].is_settled and wanted(reports[-1])

        await eventually(is_seen, "the planted bug is found", 40)
        return reports[-1]


async def test_offsets_committed_before_the_effects_are_seen_as_loss(fault_servers: Servers, tmp_path: Path) -> None:
    async def run(arena: Arena) -> None:
        slow = {"action": "sleep", "seconds": 2.0, "times": 1}
        (slot,) = await arena.start_workers(patches=["commit-early"])
        await arena.load.publish(300, 10_000, lambda number: slow if number % 50 == 49 else None)
        # The offsets of what sleeps have been committed by then.
        await arena.committed()
        slot.worker.kill()

    report = await found(fault_servers, tmp_path, run, lambda report: bool(report.lost))
    assert "≠" in str(report)


async def test_records_dropped_inside_the_worker_are_seen_as_loss(fault_servers: Servers, tmp_path: Path) -> None:
    async def run(arena: Arena) -> None:
        await arena.start_workers(patches=["drop:100"])
        await arena.load.publish(500)

    report = await found(fault_servers, tmp_path, run, lambda report: bool(report.lost))
    assert report.findings.keys() == {"lost"}


async def test_an_inbox_that_forgets_is_seen_as_doubled_effects(fault_servers: Servers, tmp_path: Path) -> None:
    async def run(arena: Arena) -> None:
        await arena.start_workers(patches=["forget-inbox", f"crash:after_effect:4:{arena.folder / 'died'}"])
        await arena.load.publish(300, 10_000)

    report = await found(fault_servers, tmp_path, run, lambda report: bool(report.doubled))
    assert not report.lost


async def test_an_order_that_is_not_kept_is_seen(fault_servers: Servers, tmp_path: Path) -> None:
    async def run(arena: Arena) -> None:
        await arena.load.publish(500, 20_000)
        await arena.start_workers(patches=["forget-order"])

    report = await found(fault_servers, tmp_path, run, lambda report: bool(report.disordered))
    assert not report.lost
    assert not report.doubled
