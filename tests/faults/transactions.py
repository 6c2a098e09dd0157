"""Transactions from topic to topic, and two processes that believe to be the same one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from tests.faults.arena import REPOSITORY, Arena
from tests.faults.checker import Effect, Input, Run
from tests.faults.collector import Collector, record_id
from tests.faults.scenario import Scenario
from tests.faults.transactional_copier import FENCED

from omnibase_infra.shared.core.settings import require_kafka
from omnibase_infra.shared.testing.fleet import eventually

MODULE: Final = "tests.faults.transactional_copier"
_STOP_SECONDS: Final = 30.0


class CopyCollector(Collector):
    """What a copier leaves behind: a copy is the effect, and there are no answers."""

    async def collect(self, inputs: Sequence[Input]) -> Run:
        """Return what has become of these inputs."""
        uncommitted = await asyncio.to_thread(self.uncommitted)
        copies = await asyncio.to_thread(self.read, self.spec.publish[0])
        known = {one.id: one for one in inputs}
        effects = [known.get(record_id(copy), Input(record_id(copy), "unknown")) for copy in copies]
        return Run(
            inputs=inputs,
            effects=[Effect(one.id, str(one.key), one.sequence) for one in effects],
            uncommitted=uncommitted,
            answered=False,
        )


async def two_with_one_id(arena: Arena) -> None:
    """A process that copies records in transactions is frozen, another one takes its id over, the first one wakes up."""
    arena.collector = CopyCollector(arena.fleet.spec, arena.settings)
    with ExitStack() as stack:
        first = _start(arena, stack, "first")
        publishing = asyncio.create_task(arena.load.publish(2_000, per_second=300))
        await _copied(arena)
        first.send_signal(signal.SIGSTOP)
        try:
            _start(arena, stack, "second")
            await _copied(arena)
        finally:
            first.send_signal(signal.SIGCONT)
        # It finds out at its next commit, and must not have written anything by then.
        await eventually(lambda: first.poll() is not None, "the first one ends", _STOP_SECONDS)
        assert first.returncode == FENCED, f"the zombie ended with {first.returncode}"
        await publishing
        report = await arena.settled(_STOP_SECONDS)
        assert report.is_settled, str(report)


async def _copied(arena: Arena) -> None:
    """Wait until further records have been copied."""
    before = await arena.report()
    assert before is not None

    async def more() -> bool:
        report = await arena.report()
        return report is not None and report.effects > before.effects

    await eventually(more, "records are copied", 40)


def _start(arena: Arena, stack: ExitStack, name: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(REPOSITORY)]))
    realm = arena.settings.realm
    command = [sys.executable, "-m", MODULE, require_kafka(arena.settings), realm.environment, realm.tenant]
    log = stack.enter_context((arena.folder / f"{name}.log").open("wb"))
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdout=log, stderr=log)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)


SCENARIOS: Final = (Scenario(name="two processes with one transactional id", run=two_with_one_id, bound=30),)
