"""`on_dead_letter: hold` on real servers: what comes after a dead record of its key waits until a person has decided."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
from tests.faults.checker import Report, check
from tests.faults.collector import Collector
from tests.faults.probe import MIGRATIONS, ProbeFleet, ProbeLoad

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.postgres.migrations import migrate, read_migrations
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import RUN_MODULE, eventually
from omnibase_infra.shared.testing.generated_node import GeneratedNode
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer, RecordedLog
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase
from omnibase_infra.topics.cluster import Partition

pytestmark = [pytest.mark.demanding, pytest.mark.timeout(240)]

NODE: Final = "held_probe"
STUCK: Final = "stuck"
BEHIND: Final = 15
# Bounds, far above what is needed: other tests run beside these.
WAIT_SECONDS: Final = 40.0
# As the fault bench's node, but dead after three attempts, and then its key is held.
CHANGES: Final = (
    ("NodeFaultProbeEffect", "NodeHeldProbeEffect"),
    ("fault-probe", "held-probe"),
    ("retry: {in_lane: 2, tiers: [1s, 2s]", "retry: {in_lane: 2, tiers: [300ms]"),
    ("delivery:\n", "delivery:\n  on_dead_letter: hold\n"),
)
# The number within the key of each row, in the order in which the rows were committed.
ROWS: Final = """SELECT sequence FROM faults.commits JOIN faults.effects USING (position)
    WHERE key = $1 ORDER BY number"""
DONE: Final = "SELECT DISTINCT message_id FROM faults.effects WHERE message_id = ANY($1)"
# What a record asks for goes wrong a number of times; this makes believe that it did.
MEND: Final = "UPDATE faults.attempts SET made = 1000000"


def generate(folder: Path) -> Path:
    """Generate the node from a copy of the fault bench's contract, with the work of that; return its folder."""
    original, version = MIGRATIONS.parent, folder / NODE / "v1_0_0"
    version.mkdir(parents=True)
    contract = (original / "contract.yaml").read_text("utf-8")
    for old, new in CHANGES:
        assert old in contract
        contract = contract.replace(old, new)
    (version / "contract.yaml").write_text(contract, "utf-8")
    shutil.copytree(MIGRATIONS, version / "migrations")
    GeneratedNode(version, installed_kits()).generate()
    work = (original / "processors" / "probe.py").read_text("utf-8").replace("fault_probe", NODE)
    (version / "processors" / "probe.py").write_text(work, "utf-8")
    return version


class HeldFleet(ProbeFleet):
    """A fleet of this test's node, the load on it, and what has become of that."""

    def __init__(self, spec: WorkerSpec, settings: Settings, folder: Path, nodes: Path) -> None:
        super().__init__(spec, settings, folder)
        self._nodes = nodes
        self.load = ProbeLoad(self, keys=40)
        self.collector = Collector(spec, settings)

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"OMNIBASE_WORKERS_PATH": str(self._nodes)}

    async def send_stuck(self, key: str = STUCK, behind: int = BEHIND) -> str:
        """Send a record that fails until that is mended, and so many of its key behind it; return the id of the first."""
        first = self.load.command(key, {"action": "fail", "times": 1_000})
        await self.load.send([first, *(self.load.command(key) for _ in range(behind))])
        return first.id

    async def others_flow(self) -> None:
        """Send records of keys with which all is well, and wait until they are done."""
        ids = [one.id for one in await self.load.publish(120)]

        async def done() -> bool:
            return len(await self._fetch(DONE, ids)) == len(ids)

        await eventually(done, "the other keys are done", WAIT_SECONDS)

    async def rows(self, key: str = STUCK) -> list[int]:
        """Return the numbers of a key's records, in the order of their effects."""
        return [row["sequence"] for row in await self._fetch(ROWS, key)]

    async def _fetch(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(require_postgres(self.settings), timeout=10)
        try:
            return list(await connection.fetch(sql, *values))
        finally:
            await connection.close()

    async def has_rows(self, wanted: Sequence[int], key: str = STUCK) -> None:
        """Wait for a key's effects; they are these, in this order."""

        async def as_many() -> bool:
            return len(await self.rows(key)) >= len(wanted)

        await eventually(as_many, f"{len(wanted)} records of {key} are done", WAIT_SECONDS)
        assert await self.rows(key) == list(wanted)

    async def is_held(self, dead: Sequence[str]) -> Report:
        """Wait until the source is committed up to its end and these records are dead; return what else there is."""

        async def committed() -> bool:
            return not await asyncio.to_thread(self.collector.uncommitted)

        await self.dead_letters(len(dead), WAIT_SECONDS)
        await eventually(committed, "the offsets of the source are committed", WAIT_SECONDS)
        run = await self.collector.collect(self.load.inputs)
        assert sorted(run.dead) == sorted(dead)
        assert not run.uncommitted
        return check(run)

    async def nothing_is_left(self) -> None:
        """Wait until the retry topic is committed up to its end: what waits for a decision holds that back."""
        admin = KafkaTopicAdmin(self.settings, log=RecordedLog())
        (retry,) = self.spec.retry_topics.values()
        partitions = [Partition(self.physical(str(retry)), number) for number in range(self.spec.partitions)]
        group = self.realm.group(self.spec.worker, self.spec.major)

        async def committed() -> bool:
            ends = await asyncio.to_thread(admin.watermarks, partitions)
            offsets = (await asyncio.to_thread(admin.group, group, partitions)).committed
            return all(offsets.get(one, 0) == ends[one].high for one in partitions)

        await eventually(committed, "the retry topic is committed up to its end", WAIT_SECONDS)

    async def mend(self) -> None:
        """Let the next attempts of all records that fail succeed."""
        await self._fetch(MEND)

    async def dlq(self, *arguments: str) -> str:
        """Run `omninode dlq`; return what it says."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *RUN_MODULE,
            "dlq",
            *arguments,
            env=self._environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()


@pytest.fixture
async def fleet(
    kafka_container: KafkaServer,
    postgres_test_db: PostgresDatabase,
    realm: Realm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[HeldFleet]:
    """A fleet whose topics and tables exist; no worker runs yet."""
    version = await asyncio.to_thread(generate, tmp_path / "nodes")
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(tmp_path / "nodes"))
    settings = kafka_container.settings(realm, postgres_dsn=postgres_test_db.dsn)
    await migrate(postgres_test_db.dsn, [read_migrations(NODE, version / "migrations")])
    running = HeldFleet(load_spec(NODE), settings, tmp_path, tmp_path / "nodes")
    await asyncio.to_thread(running.provision)
    running.producer.start()
    try:
        yield running
    finally:
        await running.close()


async def test_its_key_waits_behind_a_dead_record_through_a_kill_and_goes_on_once_that_was_redriven(
    fleet: HeldFleet,
) -> None:
    worker = await fleet.start_ready()
    dead = await fleet.send_stuck()
    await fleet.others_flow()
    report = await fleet.is_held([dead])
    assert report.is_clean, str(report)
    assert report.in_flight == BEHIND

    worker.kill()
    await fleet.load.send([fleet.load.command(STUCK) for _ in range(BEHIND)])
    await fleet.start_ready()
    await fleet.others_flow()
    await fleet.load.send([fleet.load.command(STUCK) for _ in range(BEHIND)])
    await fleet.others_flow()
    report = await fleet.is_held([dead])
    assert report.is_clean, str(report)
    assert report.in_flight == 3 * BEHIND
    assert await fleet.rows() == []

    await fleet.mend()
    assert "redriven 1 dead letter" in await fleet.dlq("redrive", "held-probe", "--yes")
    await fleet.has_rows(range(1, 3 * BEHIND + 2))
    await fleet.nothing_is_left()
    await fleet.load.send([fleet.load.command(STUCK)])
    await fleet.has_rows(range(1, 3 * BEHIND + 3))
    assert await asyncio.to_thread(fleet.count_dead_letters) == 1


async def test_a_key_goes_on_without_a_dead_record_that_was_discarded_and_no_other_held_key_does(
    fleet: HeldFleet,
) -> None:
    worker = await fleet.start_ready()
    dead = [await fleet.send_stuck(), await fleet.send_stuck("stuck, too")]
    await fleet.others_flow()
    await fleet.is_held(dead)

    said = await fleet.dlq("discard", "held-probe", "--key", STUCK, "--reason", "of no use", "--yes")
    assert "discarded 1 dead letter" in said
    await fleet.has_rows(range(2, BEHIND + 2))
    await fleet.load.send([fleet.load.command(STUCK)])
    await fleet.has_rows(range(2, BEHIND + 3))
    assert await fleet.rows("stuck, too") == []

    # The decision may be made while nobody runs: it is in the log.
    assert await asyncio.to_thread(worker.terminate) == 0
    await fleet.dlq("discard", "held-probe", "--reason", "neither", "--yes")
    await fleet.start_ready()
    await fleet.has_rows(range(2, BEHIND + 2), "stuck, too")
    await fleet.nothing_is_left()
    report = check(await fleet.collector.collect(fleet.load.inputs))
    assert report.is_clean, str(report)
    assert report.is_settled, str(report)
    assert report.dead == len(dead)


async def test_a_key_is_held_again_when_its_redriven_record_dies_again(fleet: HeldFleet) -> None:
    await fleet.start_ready()
    dead = await fleet.send_stuck()
    await fleet.is_held([dead])

    await fleet.dlq("redrive", "held-probe", "--yes")
    report = await fleet.is_held([dead, dead])
    assert report.in_flight == BEHIND
    assert await fleet.rows() == []

    await fleet.mend()
    await fleet.dlq("redrive", "held-probe", "--yes")
    await fleet.has_rows(range(1, BEHIND + 2))
    await fleet.nothing_is_left()


async def test_the_retry_topic_of_such_a_worker_has_no_time_limit(fleet: HeldFleet) -> None:
    (retry,) = fleet.spec.retry_topics.values()
    name = fleet.physical(str(retry))
    admin = KafkaTopicAdmin(fleet.settings, log=RecordedLog())
    states = await asyncio.to_thread(admin.describe, [name])
    assert states[name].config["retention.ms"] == "-1"
