"""Brokers that die, restart, fall silent or slow down."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tests.faults.arena import Arena
from tests.faults.scenario import Scenario

from omnibase_infra.shared.testing.fleet import eventually
from omnibase_infra.shared.testing.tcp_proxy import Traffic

_ALL_DOWN_SECONDS: Final = 20.0
_SILENT_SECONDS: Final = 12.0


async def one_broker_killed(arena: Arena) -> None:
    """Of three brokers one after the other is killed and comes back; two are enough to write."""
    await arena.start_workers(2)
    publishing = asyncio.create_task(arena.load.publish(9_000, per_second=300))
    await arena.flowing()
    for broker in arena.brokers.service.brokers:
        await asyncio.to_thread(broker.process.kill)
        await asyncio.sleep(4)
        await asyncio.to_thread(arena.brokers.service.start)
        await asyncio.sleep(2)
    arena.healed()
    await publishing


async def one_broker_restarted(arena: Arena) -> None:
    """Of three brokers one is stopped as an upgrade does it, and started again."""
    await arena.start_workers(2)
    publishing = asyncio.create_task(arena.load.publish(4_000, per_second=300))
    await arena.flowing()
    await asyncio.to_thread(arena.brokers.service.brokers[0].process.stop)
    await asyncio.sleep(3)
    await asyncio.to_thread(arena.brokers.service.start)
    arena.healed()
    await publishing


async def all_brokers_down(arena: Arena) -> None:
    """Every broker is away for a while, with records in hand whose answers cannot be sent."""
    await arena.start_workers()
    in_hand = {"action": "sleep", "seconds": 2.0, "times": 1}
    await arena.load.publish(1_500, 3_000, lambda number: in_hand if number % 300 == 299 else None)
    await arena.flowing(1)
    await asyncio.to_thread(arena.brokers.service.stop)
    stopped = time.monotonic()
    await eventually(lambda: arena.alarm_seen("not ready: kafka"), "readiness is false", 30)
    await asyncio.sleep(max(0.0, stopped + _ALL_DOWN_SECONDS - time.monotonic()))
    await asyncio.to_thread(arena.brokers.service.start)
    arena.healed()


async def confirmations_lost(arena: Arena) -> None:
    """What the worker sends arrives, and what brokers answer does not: nobody tells it that its answers are there."""
    await arena.start_workers(proxied=True)
    publishing = asyncio.create_task(arena.load.publish(3_000, per_second=300))
    await arena.flowing()
    for proxy in arena.brokers.proxies:
        proxy.blackhole("down")
    await asyncio.sleep(_SILENT_SECONDS)
    for proxy in arena.brokers.proxies:
        proxy.restore()
    arena.healed()
    await publishing


async def connections_cut(arena: Arena) -> None:
    """Every connection to the brokers is reset again and again."""
    await arena.start_workers(2, proxied=True)
    publishing = asyncio.create_task(arena.load.publish(3_000, per_second=300))
    await arena.flowing()
    for _ in range(12):
        for proxy in arena.brokers.proxies:
            proxy.cut(refuse=False)
        await asyncio.sleep(arena.chance.uniform(0.2, 0.8))
    arena.healed()
    await publishing


async def slow_network(arena: Arena) -> None:
    """Brokers that are far away behind a thin line."""
    await arena.start_workers(2, proxied=True)
    for proxy in arena.brokers.proxies:
        proxy.set(up=Traffic(delay=0.05, bytes_per_second=300_000), down=Traffic(delay=0.05, bytes_per_second=300_000))
    await arena.load.publish(2_000, per_second=250)
    for proxy in arena.brokers.proxies:
        proxy.restore()
    arena.healed()


SCENARIOS: Final = (
    Scenario(name="three brokers killed in turn", run=one_broker_killed, bound=40, brokers=3),
    Scenario(name="one of three brokers restarted", run=one_broker_restarted, bound=30, brokers=3),
    Scenario(name="all brokers down for 20 s", run=all_brokers_down, bound=60, alarm="not ready: kafka"),
    Scenario(
        name="all of three brokers down for 20 s", run=all_brokers_down, bound=60, alarm="not ready: kafka", brokers=3
    ),
    Scenario(name="delivery reports lost after flush", run=confirmations_lost, bound=60),
    Scenario(name="connections to brokers cut again and again", run=connections_cut, bound=30),
    Scenario(name="slow line to the brokers", run=slow_network, bound=30),
)
