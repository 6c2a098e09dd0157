"""Members that come and go, that nobody hears from, and handlers that are too slow for their group."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from tests.faults.arena import Arena
from tests.faults.scenario import Scenario

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.testing.fleet import eventually
from omnibase_infra.shared.testing.kafka_proxy import is_coordinator

_CUT_SECONDS: Final = 12.0
_POLL_SECONDS: Final = 6
_SLOW_SECONDS: Final = 9.0


def joining_and_leaving(protocol: str) -> Callable[[Arena], Awaitable[None]]:
    """Return a scenario in which every two seconds a member joins or leaves."""

    async def run(arena: Arena) -> None:
        slots = await arena.start_workers(2, OMNIBASE_KAFKA_GROUP_PROTOCOL=protocol)
        publishing = asyncio.create_task(arena.load.publish(6_000, per_second=450))
        leaving: list[asyncio.Task[int]] = []
        for number in range(8):
            if number % 2:
                slot = slots.pop(0)
                slot.is_kept = False
                leaving.append(asyncio.create_task(asyncio.to_thread(slot.worker.terminate)))
            else:
                slots.append(arena.add_slot(OMNIBASE_KAFKA_GROUP_PROTOCOL=protocol))
            await asyncio.sleep(2)
        arena.healed()
        await publishing
        # One that is still starting when it is asked to end has no handler for the signal yet.
        assert set(await asyncio.gather(*leaving)) <= {0, -signal.SIGTERM}

    return run


async def cut_from_the_coordinator(arena: Arena) -> None:
    """One of two workers is heard by its group no more, while everything else reaches it: it must let go by itself."""
    (cut,) = await arena.start_workers(proxied=True)
    (other,) = await arena.start_workers()
    await eventually(lambda: cut.owned() and other.owned(), "both own partitions", 30)
    publishing = asyncio.create_task(arena.load.publish(5_000, per_second=300))
    await arena.flowing()
    (proxy,) = arena.brokers.proxies
    proxy.blackhole(where=is_coordinator)
    try:
        await eventually(lambda: other.owned() == arena.fleet.spec.partitions, "the other one owns all", 30)
        await asyncio.sleep(_CUT_SECONDS - 8)
    finally:
        proxy.restore()
    arena.healed()
    await publishing


async def slower_than_the_poll_interval(arena: Arena) -> None:
    """Handlers that take longer than the group waits between two polls: polling goes on beside them."""
    await arena.start_workers(2, patches=[f"poll-interval:{_POLL_SECONDS}"])
    slow = {"action": "sleep", "seconds": _SLOW_SECONDS, "times": 1}
    await arena.load.publish(400, 400, lambda number: slow if number % 200 == 50 else None)
    await asyncio.sleep(_SLOW_SECONDS)
    arena.healed()
    assert not arena.alarm_seen("log partitions_lost"), "a slow handler cost the worker its partitions"


async def blocked_loop(arena: Arena) -> None:
    """A handler that blocks the event loop for longer than the session lasts: membership is another thread's."""
    await arena.start_workers(2)
    block = {"action": "block", "seconds": 8.0, "times": 1}
    await arena.load.publish(400, 400, lambda number: block if number == 100 else None)
    await asyncio.sleep(8)
    arena.healed()
    assert not arena.alarm_seen("log partitions_lost"), "a blocked loop cost the worker its partitions"


async def hanging_handler(arena: Arena) -> None:
    """A handler that never comes back, once: its deadline ends it and the record is tried again."""
    await arena.start_workers()
    hang = {"action": "sleep", "seconds": 600.0, "times": 1}
    await arena.load.publish(400, 400, lambda number: hang if number == 100 else None)


async def delivered_to_two_at_once(arena: Arena) -> None:
    """Each message lies in two partitions of two workers, which get it at the same time."""
    slots = await arena.start_workers(2)
    await eventually(lambda: all(slot.owned() for slot in slots), "both own partitions", 30)
    commands = [arena.load.command(f"twin-{number}") for number in range(300)]
    topic = arena.fleet.spec.subscribe[0]
    copies = [
        OutboundRecord(topic, envelopes.encode(one), f"{one.id}-{copy}".encode(), STRUCTURED_HEADERS)
        for one in commands
        for copy in range(2)
    ]
    await arena.fleet.producer.send(copies)
    arena.load.remember(commands)


SCENARIOS: Final = (
    Scenario(name="members join and leave every 2 s, classic", run=joining_and_leaving("classic"), bound=25),
    Scenario(name="members join and leave every 2 s, KIP-848", run=joining_and_leaving("consumer"), bound=25),
    Scenario(name="cut from the coordinator only", run=cut_from_the_coordinator, bound=30, alarm="log partitions_lost"),
    Scenario(name="handler slower than max.poll.interval", run=slower_than_the_poll_interval, bound=25),
    Scenario(
        name="handler blocks the event loop", run=blocked_loop, bound=25, alarm="log event_loop_blocked", short=True
    ),
    Scenario(name="handler never comes back", run=hanging_handler, bound=40, alarm="says did not finish within"),
    Scenario(name="delivered to two workers at once", run=delivered_to_two_at_once, short=True),
)
