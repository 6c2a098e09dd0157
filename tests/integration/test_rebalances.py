"""Partitions that move under load: rows exactly once, order per key kept, every command answered, nothing dead."""

from __future__ import annotations

import asyncio
import signal

import pytest
from confluent_kafka.admin import AdminClient

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.testing.fleet import Fleet, WorkerProcess, eventually
from omnibase_infra.shared.testing.order_load import OrderLoad

pytestmark = [pytest.mark.demanding, pytest.mark.timeout(240)]

PROTOCOLS = ("classic", "consumer")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_workers_that_join_and_leave_every_two_seconds_lose_double_and_reorder_nothing(
    fleet: Fleet, protocol: str
) -> None:
    load = OrderLoad(fleet, keys=300)
    workers = [await fleet.start_ready(OMNIBASE_KAFKA_GROUP_PROTOCOL=protocol) for _ in range(2)]
    publishing = asyncio.create_task(load.publish(10_000, per_second=450))
    leaving: list[asyncio.Task[int]] = []
    for number in range(10):
        if number % 2:
            leaving.append(asyncio.create_task(asyncio.to_thread(workers.pop(0).terminate)))
        else:
            workers.append(fleet.start(OMNIBASE_KAFKA_GROUP_PROTOCOL=protocol))
        await asyncio.sleep(2)
    await publishing
    await load.assert_done_once_in_order()
    assert await asyncio.gather(*leaving) == [0] * 5
    assert all(worker.exit_code is None for worker in workers)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_static_member_restarted_in_time_moves_no_partition_of_its_neighbour(
    fleet: Fleet, protocol: str
) -> None:
    common = {"OMNIBASE_KAFKA_GROUP_PROTOCOL": protocol, "OMNIBASE_KAFKA_SESSION_TIMEOUT_SECONDS": "20"}
    load = OrderLoad(fleet)
    first = await fleet.start_ready(**common, OMNIBASE_KAFKA_GROUP_INSTANCE_ID="pod-0")
    second = await fleet.start_ready(**common, OMNIBASE_KAFKA_GROUP_INSTANCE_ID="pod-1")
    await eventually(lambda: owned(first) and owned(second), "both own partitions")
    publishing = asyncio.create_task(load.publish(3_000, per_second=400))
    await fleet.first_answers()
    before, mine = len(moves(second)), owned(first)
    assert await asyncio.to_thread(first.terminate) == 0
    first = await fleet.start_ready(**common, OMNIBASE_KAFKA_GROUP_INSTANCE_ID="pod-0")
    await publishing
    await load.assert_done_once_in_order()
    assert len(moves(second)) == before
    assert owned(first) == mine


async def test_a_worker_frozen_until_its_partitions_are_another_ones_lets_them_go_and_comes_back(fleet: Fleet) -> None:
    load = OrderLoad(fleet)
    frozen = await fleet.start_ready()
    other = await fleet.start_ready()
    await eventually(lambda: owned(frozen) and owned(other), "both own partitions")
    everything = owned(frozen) | owned(other)
    publishing = asyncio.create_task(load.publish(6_000, per_second=300))
    await fleet.first_answers()
    frozen.signal(signal.SIGSTOP)
    await eventually(lambda: owned(other) == everything, "the other one owns all", 30)
    frozen.signal(signal.SIGCONT)
    await eventually(lambda: frozen.logged("partitions_lost"), "the thawed one notices", 30)
    await eventually(lambda: frozen.is_ready() and owned(frozen), "it owns partitions again", 30)
    await publishing
    await load.assert_done_once_in_order()


async def test_a_group_whose_offsets_are_gone_stops_the_worker_and_it_says_what_to_do(fleet: Fleet) -> None:
    worker = await fleet.start_ready()
    assert await asyncio.to_thread(worker.terminate) == 0
    await asyncio.to_thread(delete_group, fleet)
    worker = fleet.start()
    await eventually(lambda: worker.exit_code is not None, "the worker stops", 30)
    assert worker.exit_code == 2
    assert "omninode topics apply" in worker.log


async def test_partitions_added_later_start_at_their_beginning_though_most_never_got_a_record(fleet: Fleet) -> None:
    admin = KafkaTopicAdmin(fleet.settings, log=lambda *_, **__: None)
    requests = TopicName.parse(fleet.spec.subscribe[0])
    for topic in (requests, fleet.spec.retry_topics[requests]):  # as `topics apply` does
        await asyncio.to_thread(admin.add_partitions, topic.physical(fleet.realm), fleet.spec.partitions + 6)
    for _ in range(3):
        workers = [await fleet.start_ready() for _ in range(2)]
        load = OrderLoad(fleet, keys=3)
        await load.publish(30, per_second=1_000)
        await fleet.answered(load.ids)
        codes = await asyncio.gather(*(asyncio.to_thread(worker.terminate) for worker in workers))
        assert list(codes) == [0, 0]


def delete_group(fleet: Fleet) -> None:
    """Delete the worker's consumer group with its offsets."""
    admin = AdminClient({"bootstrap.servers": fleet.settings.kafka_bootstrap_servers or ""})
    group = fleet.realm.group(fleet.spec.worker, fleet.spec.major)
    for future in admin.delete_consumer_groups([group], request_timeout=10.0).values():
        future.result(20)


def owned(worker: WorkerProcess) -> set[tuple[str, int]]:
    """Return the partitions a worker says it owns."""
    _, info = worker.get("/info")
    return {(one["topic"], one["partition"]) for one in info["assignment"]} if info else set()


def moves(worker: WorkerProcess) -> list[list[str]]:
    """Return the partitions of each assignment and each loss."""
    names = ("partitions_assigned", "partitions_revoked", "partitions_lost")
    return [line["partitions"] for name in names for line in worker.logged(name) if line["partitions"]]
