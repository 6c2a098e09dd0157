"""A transactional worker on a real broker: whatever happens to it, readers of committed records see each answer once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from tests.integration.tally import TallyFleet, TallyLoad, read_committed, tally_fleet

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.local_services import KafkaService
from omnibase_infra.shared.testing.fleet import WorkerProcess, eventually

pytestmark = [pytest.mark.demanding, pytest.mark.timeout(240)]


@pytest.fixture
async def fleet(kafka_settings: Settings, tmp_path: Path) -> AsyncIterator[TallyFleet]:
    """A fleet of tallies: topics are there, no worker runs yet."""
    async with tally_fleet(kafka_settings, tmp_path) as running:
        yield running


async def test_every_request_is_answered_once_in_order_and_soon(fleet: TallyFleet) -> None:
    load = TallyLoad(fleet)
    worker = await fleet.start_ready()
    await load.publish(2_000, per_second=1_000)
    await load.assert_answered_once_in_order()
    assert await asyncio.to_thread(worker.terminate) == 0
    # All of it was committed with the answers: the next process has nothing to do.
    await fleet.start_ready()
    more = TallyLoad(fleet, keys=1)
    await more.send([more.command("last")])
    load.ids += more.ids
    await load.assert_answered_once_in_order()


async def test_ten_kills_at_random_moments_answer_each_request_once(fleet: TallyFleet) -> None:
    load, chance = TallyLoad(fleet, keys=300), random.Random()
    workers = [await fleet.start_ready(), await fleet.start_ready()]
    wishes = {number: {"failures": 3} for number in range(0, 8_000, 211)}
    publishing = asyncio.create_task(load.publish(8_000, per_second=500, wishes=wishes))
    for number in range(10):
        await asyncio.sleep(chance.uniform(0.3, 2.0))
        victim = number % 2
        workers[victim].kill()
        workers[victim] = fleet.start()
    await publishing
    answers = await load.assert_answered_once_in_order(120)
    # A request that asks for failures gets them from each process anew, so that some of them may be given up.
    letters = await asyncio.to_thread(read_committed, fleet, str(fleet.spec.dead_letter_topic))
    failed = [one.causationid for one in map(read, answers) if one.type.endswith("-failed.v1")]
    assert sorted(read(letter).id for letter in letters) == sorted(filter(None, failed))
    assert set(failed) <= {load.ids[number] for number in wishes}


@pytest.mark.parametrize("moment", ["send_offsets before", "send_offsets after", "commit before", "commit after"])
async def test_killed_at_any_step_of_a_transaction_the_next_worker_goes_on_where_it_ended(
    fleet: TallyFleet, moment: str
) -> None:
    load = TallyLoad(fleet)
    dying = fleet.start(module=("tests.integration.dying_worker",), DIES=moment, **repository())
    await eventually(dying.is_ready, "it is ready", 40)
    publishing = asyncio.create_task(load.publish(800, per_second=400))
    await eventually(lambda: dying.exit_code is not None, "it dies", 40)
    assert dying.exit_code == -signal.SIGKILL
    await publishing
    # What was left open is aborted by the broker after 15 s, or up to 10 s later when it looks round.
    fleet.start()
    await load.assert_answered_once_in_order(60)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_members_that_come_and_go_in_mid_transaction_double_nothing(fleet: TallyFleet, protocol: str) -> None:
    load = TallyLoad(fleet, keys=300)
    workers = [await fleet.start_ready(OMNIBASE_KAFKA_GROUP_PROTOCOL=protocol) for _ in range(2)]
    publishing = asyncio.create_task(load.publish(6_000, per_second=400))
    leaving: list[asyncio.Task[int]] = []
    for number in range(8):
        if number % 2:
            leaving.append(asyncio.create_task(asyncio.to_thread(workers.pop(0).terminate)))
        else:
            workers.append(fleet.start(OMNIBASE_KAFKA_GROUP_PROTOCOL=protocol))
        await asyncio.sleep(2)
    await publishing
    await load.assert_answered_once_in_order()
    assert await asyncio.gather(*leaving) == [0] * 4
    assert all(worker.exit_code is None for worker in workers)


async def test_a_worker_frozen_until_its_partitions_are_another_ones_commits_nothing_of_its_own(
    fleet: TallyFleet,
) -> None:
    load = TallyLoad(fleet)
    frozen = await fleet.start_ready()
    other = await fleet.start_ready()
    await eventually(lambda: owned(frozen) and owned(other), "both own partitions")
    everything = owned(frozen) | owned(other)
    publishing = asyncio.create_task(load.publish(6_000, per_second=250))
    await asyncio.sleep(2)
    frozen.signal(signal.SIGSTOP)
    await eventually(lambda: owned(other) == everything, "the other one owns all", 60)
    frozen.signal(signal.SIGCONT)
    await eventually(lambda: frozen.logged("partitions_lost"), "the thawed one notices", 30)
    await eventually(lambda: frozen.is_ready() and owned(frozen), "it owns partitions again", 30)
    await publishing
    await load.assert_answered_once_in_order()


async def test_what_fails_is_parked_and_answered_once_after_the_records_before_it(fleet: TallyFleet) -> None:
    load = TallyLoad(fleet, keys=40)
    worker = await fleet.start_ready()
    # Four attempts: two in the lane, one per tier.
    wishes = {number: {"failures": 2 + number % 3} for number in range(0, 1_200, 13)}
    await load.publish(1_200, per_second=300, wishes=wishes)
    await load.assert_answered_once_in_order()
    assert len(worker.logged("record_parked")) >= len(wishes)
    letters = await asyncio.to_thread(read_committed, fleet, str(fleet.spec.dead_letter_topic))
    dead = [load.ids[number] for number, wish in wishes.items() if wish["failures"] == 4]
    assert sorted(read(letter).id for letter in letters) == sorted(dead)


async def test_a_refused_command_is_answered_in_the_transaction_of_its_dead_letter_whatever_dies(
    fleet: TallyFleet,
) -> None:
    load = TallyLoad(fleet, keys=20)
    worker = await fleet.start_ready()
    refused: list[str] = []
    for _ in range(2):  # who lives through three deaths may be quarantined
        await load.publish(200, per_second=400)
        # Of a key of their own: what is refused waits for nobody.
        stray = [load.command("stray") for _ in range(10)]
        await load.send([msgspec.structs.replace(one, replyto="onex.evt.nobody.results.v1") for one in stray])
        refused += [one.id for one in stray]
        worker.kill()
        worker = await fleet.start_ready()
    answers = await load.assert_answered_once_in_order(120)
    failed = [one for one in map(read, answers) if one.type.endswith("-failed.v1")]
    assert sorted(one.causationid or "" for one in failed) == sorted(refused)
    assert all(b'"forbidden"' in bytes(one.data) for one in failed)
    letters = await asyncio.to_thread(read_committed, fleet, str(fleet.spec.dead_letter_topic))
    assert sorted(read(letter).id for letter in letters) == sorted(refused)


async def test_an_answer_the_broker_refuses_is_a_dead_letter_and_a_failed_answer_and_the_rest_commits(
    fleet: TallyFleet,
) -> None:
    load = TallyLoad(fleet)
    await asyncio.to_thread(limit_records, fleet, fleet.spec.publish[0], 20_000)
    worker = await fleet.start_ready()
    wishes = {number: {"padding": 50_000} for number in (100, 101, 400, 777)}
    await load.publish(1_000, per_second=500, wishes=wishes)
    answers = await load.assert_answered_once_in_order()
    large = {load.ids[number] for number in wishes}
    failed = [one for one in map(read, answers) if one.type.endswith("-failed.v1")]
    assert {one.causationid for one in failed} == large
    assert all(b"output-refused" in bytes(one.data) for one in failed)
    letters = await asyncio.to_thread(read_committed, fleet, str(fleet.spec.dead_letter_topic))
    assert {read(letter).id for letter in letters} == large
    assert {dict(letter.headers() or ())["onex-error-code"] for letter in letters} == {b"output-refused"}
    assert len(worker.logged("output_refused")) == len(large)
    assert await asyncio.to_thread(worker.terminate) == 0


async def test_brokers_away_for_half_a_minute_double_nothing(
    kafka_own_broker: tuple[KafkaService, Settings], tmp_path: Path
) -> None:
    service, settings = kafka_own_broker
    async with tally_fleet(settings, tmp_path / "fleet") as fleet:
        load = TallyLoad(fleet)
        worker = await fleet.start_ready()
        publishing = asyncio.create_task(load.publish(4_000, per_second=400))
        await asyncio.sleep(3)
        await asyncio.to_thread(service.stop)
        await eventually(lambda: worker.get("/readyz")[0] == 503, "readiness is false", 30)
        await asyncio.sleep(30)
        await asyncio.to_thread(service.start)
        await eventually(lambda: worker.exit_code is not None or worker.is_ready(), "it is back, or gives up", 90)
        if worker.exit_code is not None:
            # A fault of the Kafka client, see `client_watch`: it may lose its brokers for good, and a restart cures it.
            assert (worker.exit_code, "though brokers answer" in worker.log) == (1, True)
            worker = await fleet.start_ready()
        await publishing
        await load.assert_answered_once_in_order()


async def test_of_two_workers_with_one_transactional_id_the_older_stops_and_says_why(fleet: TallyFleet) -> None:
    load = TallyLoad(fleet)
    module = ("tests.integration.same_id_worker",)
    older = fleet.start(module=module, **repository())
    await eventually(older.is_ready, "the older one is ready", 30)
    publishing = asyncio.create_task(load.publish(3_000, per_second=300))
    await asyncio.sleep(2)
    fleet.start(module=module, **repository())
    await eventually(lambda: older.exit_code is not None, "the older one stops", 30)
    assert older.exit_code == 1
    assert "another process has opened a producer of the transactional id" in older.log
    assert "run each process with an id of its own" in older.log
    await publishing
    await load.assert_answered_once_in_order()


def repository() -> dict[str, str]:
    """Return what lets a process find the modules of the tests."""
    paths = (os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2]))
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def owned(worker: WorkerProcess) -> set[tuple[str, int]]:
    """Return the partitions that a worker says it owns."""
    status, info = worker.get("/info")
    return {(one["topic"], one["partition"]) for one in info["assignment"]} if status == 200 else set()


def read(message: object) -> envelopes.Envelope:
    """Return the envelope of a message."""
    return envelopes.decode(message.value(), None)  # type: ignore[attr-defined]  # a Kafka message


def limit_records(fleet: TallyFleet, topic: str, size: int) -> None:
    """Let a topic take records of so many bytes at most."""
    admin = AdminClient({"bootstrap.servers": require_kafka(fleet.settings)})
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, fleet.physical(topic), incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
