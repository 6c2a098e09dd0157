"""Topics deleted, or deleted and made anew, under a worker: it stops and says so, and skips nothing of the new one."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Final

import pytest
from confluent_kafka.admin import AdminClient

from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.testing.fleet import Fleet, WorkerProcess, eventually
from omnibase_infra.topics.cluster import Partition

pytestmark = pytest.mark.timeout(120)

_WRONG_CONFIGURATION: Final = 2
_REQUEST_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 60.0


async def test_a_worker_whose_topic_is_deleted_stops_and_says_what_to_do(fleet: Fleet) -> None:
    worker = await working(fleet)
    await asyncio.to_thread(delete, fleet, fleet.physical(fleet.spec.subscribe[0]))
    await stops(worker)
    assert "does not exist" in worker.log
    assert "omninode topics apply" in worker.log


async def test_a_worker_whose_retry_topic_is_deleted_stops_and_says_what_to_do(fleet: Fleet) -> None:
    worker = await working(fleet)
    retry = next(iter(fleet.spec.retry_topics.values())).physical(fleet.realm)
    await asyncio.to_thread(delete, fleet, retry)
    await stops(worker)
    assert f"{retry} does not exist" in worker.log


async def test_a_topic_made_anew_under_a_worker_stops_it_and_whoever_starts_after_it_until_a_person_decides(
    fleet: Fleet,
) -> None:
    worker = await working(fleet)
    await asyncio.to_thread(make_anew, fleet)
    await stops(worker)
    # Nobody said where to begin, so nobody begins; offsets committed in between are of the old topic.
    after = fleet.start()
    await stops(after)
    assert "omninode offsets reset" in after.log
    assert after.logged("worker_ready") == []
    await decide_to_begin(fleet)
    await fleet.start_ready()
    await fleet.answered(await send(fleet, 20))


async def test_a_topic_made_anew_under_a_frozen_worker_and_grown_past_its_position_is_not_read_from_there(
    fleet: Fleet,
) -> None:
    worker = await working(fleet)
    worker.signal(signal.SIGSTOP)
    try:
        await asyncio.to_thread(make_anew, fleet)
        commands = await send(fleet, 2_000)
    finally:
        worker.signal(signal.SIGCONT)
    await stops(worker)
    after = fleet.start()
    await stops(after)
    assert "omninode offsets reset" in after.log
    await decide_to_begin(fleet)
    await fleet.start_ready()
    await fleet.answered(commands)


async def working(fleet: Fleet) -> WorkerProcess:
    """Return a worker that has answered something in every partition."""
    worker = await fleet.start_ready()
    await fleet.answered(await send(fleet, 200))
    return worker


async def send(fleet: Fleet, count: int) -> list[str]:
    """Publish commands with a producer that knows no topic yet; return their ids."""
    await fleet.producer.close()
    fleet.producer = ProducerPool(fleet.settings, client_id="test-fleet", log=quiet)
    fleet.producer.start()
    commands = [fleet.command("health_check", {}, partitionkey=f"k{number}") for number in range(count)]
    await fleet.send(commands)
    return [one.id for one in commands]


async def stops(worker: WorkerProcess) -> None:
    """Wait until it has ended by itself, for what is configured."""
    await eventually(lambda: worker.exit_code is not None, "the worker stops", _STOP_SECONDS)
    assert worker.exit_code == _WRONG_CONFIGURATION, worker.log[-2000:]


def delete(fleet: Fleet, topic: str) -> None:
    """Delete a topic. Blocks."""
    client = AdminClient({"bootstrap.servers": str(fleet.settings.kafka_bootstrap_servers)})
    client.delete_topics([topic])[topic].result(_REQUEST_SECONDS)


def make_anew(fleet: Fleet) -> None:
    """Delete the worker's source topic and create it again. Blocks."""
    topic = fleet.physical(fleet.spec.subscribe[0])
    delete(fleet, topic)
    KafkaTopicAdmin(fleet.settings, log=quiet).create(topic, fleet.spec.partitions, 1, {})


async def decide_to_begin(fleet: Fleet) -> None:
    """Do what a person does who was told that the topic is another one: `omninode offsets reset`."""
    topic = fleet.physical(fleet.spec.subscribe[0])
    beginnings = {Partition(topic, number): 0 for number in range(fleet.spec.partitions)}
    group = fleet.realm.group(fleet.spec.worker, fleet.spec.major)
    await asyncio.to_thread(KafkaTopicAdmin(fleet.settings, log=quiet).commit, group, beginnings)


def quiet(level: int, event: str, /, **fields: Any) -> None:
    """Drop client log lines: the tests look at the workers' own logs."""
