"""Offsets, topics and clocks that change under a worker: it goes on where that is safe, and else stops and says so."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from tests.faults.arena import Arena, Slot
from tests.faults.scenario import Scenario

from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.testing.fleet import eventually
from omnibase_infra.topics.cluster import Partition

_REQUEST_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 90.0
_WRONG_CONFIGURATION: Final = 2


async def partitions_added(arena: Arena) -> None:
    """A topic grows, keys move to its new partitions, and the workers are started anew one by one."""
    slots = await arena.start_workers(2)
    await arena.load.publish(600)
    await all_done(arena)
    name = arena.fleet.physical(arena.fleet.spec.subscribe[0])
    await asyncio.to_thread(admin(arena).add_partitions, name, arena.fleet.spec.partitions + 4)
    retry = [arena.fleet.physical(str(topic)) for topic in arena.fleet.spec.retry_topics.values()]
    for topic in retry:
        await asyncio.to_thread(admin(arena).add_partitions, topic, arena.fleet.spec.partitions + 4)
    # Clients hear of new partitions when they look again, which is seldom; whoever starts anew sees them at once.
    await arena.fleet.renew_producer()
    await arena.load.publish(600)
    for slot in slots:
        slot.is_kept = False
        assert await asyncio.to_thread(slot.worker.terminate) == 0
    await arena.start_workers(2)
    arena.healed()


async def group_deleted(arena: Arena) -> None:
    """The group's offsets expire while no worker runs: it must not begin anywhere by itself."""
    (slot,) = await arena.start_workers()
    await arena.load.publish(300)
    await all_done(arena)
    committed = await asyncio.to_thread(positions, arena)
    await stop(slot)
    await arena.load.publish(100)
    client = AdminClient({"bootstrap.servers": arena.brokers.direct, "log_level": 0})
    for future in client.delete_consumer_groups([group(arena)]).values():
        await asyncio.to_thread(future.result, _REQUEST_SECONDS)
    await stops_and_says(arena, "has no committed offset")
    # What a person does: look, and set the offsets.
    await asyncio.to_thread(admin(arena).commit, group(arena), committed)
    await arena.start_workers()
    arena.healed()


async def behind_the_log(arena: Arena) -> None:
    """Retention overtakes a worker that is away: it must not jump over what is gone."""
    (slot,) = await arena.start_workers()
    await arena.load.publish(300)
    await all_done(arena)
    await stop(slot)
    gone = await arena.load.publish(300)
    name = arena.fleet.physical(arena.fleet.spec.subscribe[0])
    partitions = [Partition(name, number) for number in range(arena.fleet.spec.partitions)]
    ends = await asyncio.to_thread(admin(arena).watermarks, partitions)
    client = AdminClient({"bootstrap.servers": arena.brokers.direct, "log_level": 0})
    everything = [TopicPartition(name, one.number, marks.high) for one, marks in ends.items()]
    for future in client.delete_records(everything).values():
        await asyncio.to_thread(future.result, _REQUEST_SECONDS)
    await stops_and_says(arena, "offsets reset")
    # They were lost to retention, and a person has accepted that: they are no inputs of the worker.
    arena.load.forget(one.id for one in gone)
    await asyncio.to_thread(admin(arena).commit, group(arena), {one: marks.high for one, marks in ends.items()})
    await arena.start_workers()
    arena.healed()
    await arena.load.publish(300)


async def topic_made_anew(arena: Arena) -> None:
    """The topic is deleted under the worker and made again, empty: offsets of the old one mean nothing in it."""
    (slot,) = await arena.start_workers()
    await arena.load.publish(600)
    await all_done(arena)
    slot.is_kept = False
    name = arena.fleet.physical(arena.fleet.spec.subscribe[0])
    client = AdminClient({"bootstrap.servers": arena.brokers.direct, "log_level": 0})
    await asyncio.to_thread(client.delete_topics([name])[name].result, _REQUEST_SECONDS)
    await eventually(lambda: slot.worker.exit_code is not None, "the worker stops", _STOP_SECONDS)
    assert slot.worker.exit_code == _WRONG_CONFIGURATION
    assert "does not exist" in slot.worker.log
    await asyncio.to_thread(admin(arena).create, name, arena.fleet.spec.partitions, 1, {})
    await arena.fleet.renew_producer()
    await stops_and_says(arena, "has no committed offset")
    await asyncio.to_thread(arena.fleet.provision)  # as it says: `omninode topics apply`
    await arena.start_workers()
    arena.healed()
    await arena.load.publish(300)


async def topic_made_anew_unseen(arena: Arena) -> None:
    """The topic is made anew while the worker is frozen, and is longer than the old one when it looks again.

    Its position means nothing in the new log: it must stop and say so. Until then it may have done later records, so
    here every record has a key of its own.
    """
    (slot,) = await arena.start_workers()
    await arena.load.publish(600)
    await all_done(arena)
    slot.is_kept = False
    slot.worker.signal(signal.SIGSTOP)
    try:
        name = arena.fleet.physical(arena.fleet.spec.subscribe[0])
        client = AdminClient({"bootstrap.servers": arena.brokers.direct, "log_level": 0})
        await asyncio.to_thread(client.delete_topics([name])[name].result, _REQUEST_SECONDS)
        await asyncio.to_thread(admin(arena).create, name, arena.fleet.spec.partitions, 1, {})
        await arena.fleet.renew_producer()
        await arena.load.send([arena.load.command(f"lone-{number}") for number in range(3_000)])
    finally:
        slot.worker.signal(signal.SIGCONT)
    await eventually(lambda: slot.worker.exit_code is not None, "the worker stops", _STOP_SECONDS)
    assert slot.worker.exit_code == _WRONG_CONFIGURATION, slot.worker.log[-2000:]
    await begin_at_the_beginning(arena)
    arena.healed()


async def begin_at_the_beginning(arena: Arena) -> None:
    """Do what a person does who was told that the topic is another one."""
    name = arena.fleet.physical(arena.fleet.spec.subscribe[0])
    beginnings = {Partition(name, number): 0 for number in range(arena.fleet.spec.partitions)}
    await asyncio.to_thread(admin(arena).commit, group(arena), beginnings)
    await arena.start_workers()


async def clock_moved(arena: Arena) -> None:
    """Of two workers one is an hour ahead and one an hour behind, and their partitions and retries pass between them."""
    (ahead,) = await arena.start_workers(patches=["clock:3600"])
    (behind,) = await arena.start_workers(patches=["clock:-3600"])
    await eventually(lambda: ahead.owned() and behind.owned(), "both own partitions", 30)
    failing = {"action": "fail", "times": 1}
    publishing = asyncio.create_task(
        arena.load.publish(2_000, 400, lambda number: failing if number % 100 == 7 else None)
    )
    for slot in (ahead, behind):
        await arena.flowing()
        slot.worker.kill()
        await eventually(slot.is_back, "it is back", 40)
    arena.healed()
    await publishing


def positions(arena: Arena) -> dict[Partition, int]:
    """Return what the group has committed, on its retry topics too. Blocks."""
    spec = arena.fleet.spec
    names = [arena.fleet.physical(topic) for topic in (*spec.subscribe, *map(str, spec.retry_topics.values()))]
    partitions = [Partition(name, number) for name in names for number in range(spec.partitions)]
    return dict(admin(arena).group(group(arena), partitions).committed)


def group(arena: Arena) -> str:
    """Return the worker's consumer group."""
    return arena.settings.realm.group(arena.fleet.spec.worker, arena.fleet.spec.major)


def admin(arena: Arena) -> KafkaTopicAdmin:
    """Return an administrator, new each time."""
    return KafkaTopicAdmin(arena.settings, log=lambda *_, **__: None)


async def all_done(arena: Arena) -> None:
    """Wait until everything is in its place and committed."""

    async def is_settled() -> bool:
        report = await arena.report()
        return report is not None and report.is_settled

    await eventually(is_settled, "all is done", 30)


async def stop(slot: Slot) -> None:
    """End a worker for good."""
    slot.is_kept = False
    assert await asyncio.to_thread(slot.worker.terminate) == 0


async def stops_and_says(arena: Arena, words: str) -> None:
    """Start a worker that must stop by itself, with these words, having done nothing."""
    before = await arena.effects()
    worker = arena.fleet.start()
    await eventually(lambda: worker.exit_code is not None, "the worker stops", _STOP_SECONDS)
    assert worker.exit_code == _WRONG_CONFIGURATION, worker.log[-2000:]
    assert words in worker.log
    assert await arena.effects() == before


SCENARIOS: Final = (
    Scenario(name="partitions added", run=partitions_added, bound=30),
    Scenario(name="offsets expired", run=group_deleted, bound=30, alarm="exit 2", short=True),
    Scenario(name="retention overtook the worker", run=behind_the_log, bound=30, alarm="exit 2"),
    Scenario(name="topic deleted and made anew", run=topic_made_anew, bound=30, alarm="exit 2"),
    Scenario(name="topic made anew while frozen", run=topic_made_anew_unseen, bound=30, alarm="exit 2"),
    Scenario(name="clocks an hour wrong", run=clock_moved, bound=30),
)
