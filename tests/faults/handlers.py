"""Handlers that raise, and records that kill whoever runs them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from tests.faults.arena import Arena
from tests.faults.scenario import Scenario

from omnibase_infra.shared.testing.fleet import eventually

_BEFORE_THE_FAILING_KEY: Final = """SELECT count(*) FROM faults.commits JOIN faults.effects USING (position)
    WHERE number < (SELECT min(number) FROM faults.commits JOIN faults.effects USING (position) WHERE key = 'stuck')"""


async def raises_a_few_times(arena: Arena) -> None:
    """Records whose handler raises once to three times: in the lane, then on the retry topic; their keys wait."""
    await arena.start_workers(2)

    def sometimes(number: int) -> Mapping[str, Any] | None:
        return {"action": "fail", "times": 1 + number % 3} if number % 25 == 7 else None

    await arena.load.publish(1_500, 800, sometimes)


async def raises_always(arena: Arena) -> None:
    """Records that no attempt can help: dead after the last one, with a failed answer, and their keys go on."""
    await arena.start_workers(2)
    await arena.load.publish(1_500, 800, lambda number: {"action": "fail"} if number % 50 == 7 else None)
    arena.expected_dead = 30


async def raises_and_dies(arena: Arena) -> None:
    """Records wait for their retries while their workers are killed: what waits is durable."""
    slots = await arena.start_workers(2)
    await arena.load.publish(1_000, 1_000, lambda number: {"action": "fail", "times": 3} if number % 40 == 7 else None)
    for slot in slots:
        await arena.flowing(1)
        slot.worker.kill()
    arena.healed()


async def one_key_fails(arena: Arena) -> None:
    """A key whose first record fails until it is dead: its others wait behind it, in order, and no other key does.

    It fails always, not so many times: a batch that is halved to find it runs it several times per attempt.
    """
    await arena.start_workers()
    failing = [arena.load.command("stuck", {"action": "fail"})]
    failing += [arena.load.command("stuck") for _ in range(200)]
    await arena.load.send(failing)
    await arena.load.publish(1_000, per_second=2_000)
    await eventually(partial(arena.everything_happened, [failing[1].id]), "the next of its key got through", 30)
    before = await arena.fleet.fetch_value(_BEFORE_THE_FAILING_KEY)
    assert before >= 500, f"only {before} records of other keys were done while one key waited"
    arena.expected_dead = 1


async def rejected(arena: Arena) -> None:
    """Records that the operation refuses: answered `failed`, no effect, no dead letter, no retry."""
    await arena.start_workers()
    await arena.load.publish(500, 1_000, lambda number: {"action": "reject"} if number % 10 == 3 else None)
    arena.expected_refused = 50


async def kills_its_process(arena: Arena) -> None:
    """A record that kills every process that runs it: quarantined unseen after three deaths."""
    await arena.start_workers(2)
    await arena.load.publish(600, 1_000, lambda number: {"action": "exit"} if number == 300 else None)
    arena.expected_dead = 1


SCENARIOS: Final = (
    Scenario(name="handler raises a few times", run=raises_a_few_times, bound=30, alarm="log batch_failed", short=True),
    Scenario(name="handler always raises", run=raises_always, bound=30, alarm="log batch_failed"),
    Scenario(name="killed while records wait for retries", run=raises_and_dies, bound=40, alarm="exit -9"),
    Scenario(name="one key fails for seconds", run=one_key_fails, bound=30, alarm="log batch_failed"),
    Scenario(name="operation refuses", run=rejected),
    Scenario(name="a record that kills its process", run=kills_its_process, bound=60, alarm="says quarantined"),
)
