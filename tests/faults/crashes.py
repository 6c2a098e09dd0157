"""Processes that die, are asked to end, or are frozen."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from tests.faults.arena import Arena
from tests.faults.scenario import Scenario

from omnibase_infra.shared.testing.fleet import eventually


def dies_at(point: str, nth: int) -> Callable[[Arena], Awaitable[None]]:
    """Return a scenario in which the process is killed the nth time it passes a point, and started again."""

    async def run(arena: Arena) -> None:
        marker = arena.folder / "died"
        # Published first, so that the death comes in the middle of full batches.
        await arena.load.publish(1_500, per_second=20_000)
        await arena.start_workers(patches=[f"crash:{point}:{nth}:{marker}"])
        await eventually(marker.exists, f"the worker dies {point}", 30)
        arena.healed()

    return run


async def killed_at_random(arena: Arena) -> None:
    """Two workers, ten kills at moments left to chance."""
    slots = await arena.start_workers(2)
    publishing = asyncio.create_task(arena.load.publish(6_000, per_second=600))
    for number in range(10):
        await asyncio.sleep(arena.chance.uniform(0.2, 1.2))
        victim = slots[number % 2].worker
        if victim.exit_code is None:
            victim.kill()
    arena.healed()
    await publishing


async def dies_in_an_effect(arena: Arena) -> None:
    """Records whose handler is killed after its row was written, before the commit, each once."""
    await arena.start_workers(2)
    await arena.load.publish(
        600, 600, lambda number: {"action": "exit_after_row", "times": 1} if number % 200 == 99 else None
    )


async def asked_to_end(arena: Arena) -> None:
    """SIGTERM under load, twice; a worker that ends so ends with 0 in its grace period and is replaced."""
    (slot,) = await arena.start_workers()
    publishing = asyncio.create_task(arena.load.publish(3_000, per_second=1_000))
    for _ in range(2):
        await arena.flowing()
        slot.is_kept = False
        code = await asyncio.to_thread(slot.worker.terminate)
        assert code == 0, f"SIGTERM ended the worker with {code}:\n{slot.worker.log[-2000:]}"
        (slot,) = await arena.start_workers()
    arena.healed()
    await publishing


async def frozen(arena: Arena) -> None:
    """SIGSTOP until the group has given its partitions to another, then SIGCONT: the zombie must do no harm."""
    first, second = await arena.start_workers(2)
    await eventually(lambda: first.owned() and second.owned(), "both own partitions", 30)
    publishing = asyncio.create_task(arena.load.publish(4_000, per_second=400))
    await arena.flowing()
    first.worker.signal(signal.SIGSTOP)
    try:
        await eventually(lambda: second.owned() == arena.fleet.spec.partitions, "the other one owns all", 30)
        await arena.flowing()
    finally:
        first.worker.signal(signal.SIGCONT)
    arena.healed()
    await publishing


async def frozen_in_a_transaction(arena: Arena) -> None:
    """SIGSTOP while transactions are open: their inbox rows stay locked until PostgreSQL ends the sessions."""
    first, second = await arena.start_workers(2)
    await eventually(lambda: first.owned() and second.owned(), "both own partitions", 30)
    in_hand = {"action": "sleep", "seconds": 3.0, "times": 1}
    await arena.load.publish(600, 2_000, lambda number: in_hand if number % 60 == 7 else None)
    await asyncio.sleep(1)
    first.worker.signal(signal.SIGSTOP)
    try:
        await eventually(lambda: second.owned() == arena.fleet.spec.partitions, "the other one owns all", 30)
        # As long as a session may be idle in a transaction, and what waited for it then.
        await eventually(arena.everything_happened, "what was locked is done", 100)
    finally:
        first.worker.signal(signal.SIGCONT)
    arena.healed()


SCENARIOS: Final = (
    Scenario(name="killed before the effect", run=dies_at("before_effect", 8), bound=60, alarm="exit -9"),
    Scenario(name="killed between effect and its commit", run=dies_at("before_commit", 8), bound=60, alarm="exit -9"),
    Scenario(name="killed between effect and answer", run=dies_at("after_effect", 8), alarm="exit -9", short=True),
    Scenario(
        name="killed between answer and offset commit", run=dies_at("after_answers", 8), alarm="exit -9", short=True
    ),
    Scenario(name="killed after the offset commit", run=dies_at("after_offsets", 1), bound=60, alarm="exit -9"),
    Scenario(name="killed ten times at random", run=killed_at_random, bound=60, alarm="exit -9"),
    Scenario(name="killed by records, once each", run=dies_in_an_effect, bound=60, alarm="exit -9"),
    Scenario(name="SIGTERM under load", run=asked_to_end, alarm="log worker_stopping"),
    Scenario(name="frozen inside a transaction", run=frozen_in_a_transaction, bound=25, alarm="log partitions_lost"),
    Scenario(name="frozen beyond the session time-out", run=frozen, bound=25, alarm="log partitions_lost"),
)
