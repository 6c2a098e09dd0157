"""Retries keep order and flow on a real broker: a key that fails waits with all behind it, and no other key does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import Fleet, WorkerProcess, eventually, running_fleet
from omnibase_infra.shared.testing.generated_node import GeneratedNode

# So many that the record which fails is not given up before the test lets it succeed.
TIERS = ", ".join(f"{700 + 200 * number}ms" for number in range(16))
CONTRACT = f"""\
name: NodeStubbornDeskEffect
version: {{major: 1, minor: 0, patch: 0}}
node_type: effect
description: Writes down what it is told, and fails while somebody wants it to. For tests only.
event_bus:
  subscribe: [onex.cmd.stubborn-desk.requests.v1]
  publish: [onex.evt.stubborn-desk.results.v1]
  partitions: 3
io_operations:
  - name: note
    description: Writes down a number.
    kit: custom
    request: ModelNote
    response: ModelNote
    batch: {{max: 20}}
    ordering: key
definitions:
  ModelNote:
    type: object
    required: [key, number]
    properties:
      key: {{type: string}}
      number: {{type: integer}}
      fails: {{type: boolean, default: false, description: whether it fails while the test wants that}}
delivery:
  guarantee: at_least_once
  retry: {{in_lane: 1, tiers: [{TIERS}], jitter: none}}
idempotency: Writing a number down twice harms nobody.
"""
WRITES_DOWN = """\
        folder = Path(os.environ["STUBBORN_FOLDER"])
        for request in requests:
            if request.fails and (folder / "failing").exists():
                raise RuntimeError("the test wants it to fail")
        written = os.open(folder / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(written, "".join(f"{request.key} {request.number}\\n" for request in requests).encode())
        os.close(written)
        return requests
"""
STUCK = "stuck"


class Desk:
    """A fleet of stubborn desks, what was sent to them and what they have written down."""

    def __init__(self, fleet: Fleet, folder: Path, environment: Mapping[str, str]) -> None:
        self.fleet = fleet
        self._folder = folder
        self._environment = environment
        self._next: Counter[str] = Counter()

    def start(self) -> WorkerProcess:
        return self.fleet.start(**self._environment)

    async def start_ready(self) -> WorkerProcess:
        return await self.fleet.start_ready(**self._environment)

    def fail(self, wanted: bool) -> None:
        """Have the records fail that can, or not."""
        if wanted:
            (self._folder / "failing").touch()
        else:
            (self._folder / "failing").unlink()

    def command(self, key: str, *, fails: bool = False) -> Envelope:
        self._next[key] += 1
        payload = {"key": key, "number": self._next[key], "fails": fails}
        return self.fleet.command("note", payload, subject=key)

    async def send_stuck(self, behind: int) -> None:
        """Send a record that fails, and so many of its key behind it."""
        await self.fleet.send([self.command(STUCK, fails=True), *(self.command(STUCK) for _ in range(behind))])

    async def send_others(self, count: int) -> None:
        await self.fleet.send([self.command(f"key-{number % 50:02d}") for number in range(count)])

    def notes(self) -> dict[str, list[int]]:
        """Return what was written down of each key, in the order of time."""
        found: dict[str, list[int]] = {}
        path = self._folder / "notes"
        for line in path.read_text().splitlines() if path.exists() else ():
            key, number = line.split()
            found.setdefault(key, []).append(int(number))
        return found

    def has_done(self, keys: Sequence[str]) -> bool:
        notes = self.notes()
        return all(len(set(notes.get(key, ()))) == self._next[key] for key in keys)

    async def others_done(self) -> None:
        others = [key for key in self._next if key != STUCK]
        await eventually(lambda: self.has_done(others), "the other keys are done", 30)

    async def all_done_in_order(self) -> None:
        await eventually(lambda: self.has_done(list(self._next)), "all keys are done", 30)
        for key, numbers in self.notes().items():
            newest = 0
            for number in numbers:
                assert number <= newest + 1, f"{key}: {number} ran before {newest + 1}: {numbers}"
                newest = max(newest, number)
        assert await asyncio.to_thread(self.fleet.count_dead_letters) == 0


@pytest.fixture
async def desk(
    kafka_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Desk]:
    """A desk whose topics exist; no worker runs yet, and what can fail does."""
    folder = tmp_path / "nodes" / "stubborn_desk" / "v1_0_0"
    folder.mkdir(parents=True)
    (folder / "contract.yaml").write_text(CONTRACT, encoding="utf-8")
    node = GeneratedNode(folder, installed_kits())
    node.generate()
    node.edit("processors/note.py", "        return [self._outcome(request) for request in requests]\n", WRITES_DOWN)
    node.edit("processors/note.py", "from collections.abc", "import os\nfrom pathlib import Path\nfrom collections.abc")
    monkeypatch.setenv("OMNIBASE_WORKERS_PATH", str(tmp_path / "nodes"))
    settings = kafka_settings.model_copy(update={"postgres_dsn": SecretStr("postgresql://nobody@127.0.0.1:1/none")})
    environment = {
        "OMNIBASE_WORKERS_PATH": str(tmp_path / "nodes"),
        "OMNIBASE_KAFKA_GROUP_PROTOCOL": getattr(request, "param", "classic"),
        "STUBBORN_FOLDER": str(tmp_path),
    }
    async with running_fleet(load_spec("stubborn_desk"), settings, tmp_path) as fleet:
        running = Desk(fleet, tmp_path, environment)
        running.fail(True)
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("desk", ["classic", "consumer"], indirect=True)
async def test_a_key_that_fails_waits_in_order_while_others_flow_and_members_come_and_go(desk: Desk) -> None:
    worker = await desk.start_ready()
    await desk.send_stuck(behind=200)
    await desk.send_others(500)
    await desk.others_done()
    assert STUCK not in desk.notes()

    second = await desk.start_ready()
    await eventually(lambda: second.get("/info")[1]["assignment"], "the second member owns something", 30)
    await desk.send_others(500)
    await desk.others_done()
    assert await asyncio.to_thread(worker.terminate) == 0
    await desk.send_others(500)
    await desk.others_done()
    assert STUCK not in desk.notes()

    desk.fail(False)
    await desk.send_stuck(behind=20)
    await desk.all_done_in_order()


@pytest.mark.slow
async def test_a_key_that_fails_waits_in_order_through_the_death_of_its_worker_while_others_flow(desk: Desk) -> None:
    worker = await desk.start_ready()
    await desk.send_stuck(behind=200)
    await desk.send_others(500)
    await desk.others_done()
    worker.kill()
    desk.start()
    await desk.send_stuck(behind=20)
    await desk.send_others(500)
    await desk.others_done()
    assert STUCK not in desk.notes()

    desk.fail(False)
    await desk.all_done_in_order()


@pytest.mark.slow
async def test_what_is_parked_when_a_worker_stops_runs_after_the_next_start_before_what_came_meanwhile(
    desk: Desk,
) -> None:
    worker = await desk.start_ready()
    await desk.send_stuck(behind=30)
    await desk.send_others(100)
    await desk.others_done()
    await eventually(lambda: worker.get("/info")[1]["in_flight"]["records"] == 0, "all of it is parked", 20)
    assert await asyncio.to_thread(worker.terminate) == 0
    assert STUCK not in desk.notes()

    await desk.send_stuck(behind=30)
    desk.fail(False)
    worker = await desk.start_ready()
    await desk.all_done_in_order()
    assert not worker.logged("careful_start"), "a clean stop is no death"
