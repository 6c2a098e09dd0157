"""A transactional worker for tests: `tally`, generated from its contract here, its load, and what is to be true after it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from confluent_kafka import Message
from pydantic import SecretStr

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
from omnibase_infra.shared.registry.nodes import NodeVersion
from omnibase_infra.shared.testing.fleet import RUN_MODULE, Fleet, eventually
from omnibase_infra.shared.testing.kafka_fixtures import read_topic

NODE: Final = "tally"
_BATCH: Final = 40

CONTRACT: Final = """\
name: NodeTallyEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Answers what it is asked, once, and misbehaves as the request says. For tests only.
event_bus:
  subscribe: [onex.cmd.tally.requests.v1]
  publish: [onex.evt.tally.results.v1]
  partitions: 6
io_operations:
  - name: count
    description: Answers with the number it was given.
    kit: custom
    request: ModelCount
    response: ModelCounted
    batch: {max: 50}
    concurrency: 4
    timeout: 5s
    ordering: key
definitions:
  ModelCount:
    type: object
    description: One numbered request of a key, and how its handler is to behave.
    required: [key, sequence]
    properties:
      key: {type: string, minLength: 1, maxLength: 64, description: whose sequence it is}
      sequence: {type: integer, minimum: 1, description: its number within the key}
      failures: {type: integer, minimum: 0, default: 0, description: attempts that fail in one process}
      seconds: {type: number, minimum: 0, default: 0, description: how long it takes}
      padding: {type: integer, minimum: 0, default: 0, description: bytes that make the answer large}
  ModelCounted:
    type: object
    description: What was asked.
    required: [key, sequence]
    properties:
      key: {type: string}
      sequence: {type: integer}
      padding: {type: string, default: ""}
delivery:
  guarantee: transactional
  retry: {in_lane: 2, tiers: [1s, 2s], jitter: none}
  dlq: {limit: {consecutive: 500, ratio: 1.0, window: 1000}}
"""

PROCESSOR: Final = '''\
"""Answers with the number it was given, and misbehaves as the request says."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence

from omnibase_infra.shared.core.ports import BatchContext
from tally.v1_0_0.models import ModelCount, ModelCounted
from tally.v1_0_0.port import CountOutcome


class CountProcessor:
    """Answers with the number it was given."""

    def __init__(self) -> None:
        self._failed: Counter[tuple[str, int]] = Counter()

    async def run(self, requests: Sequence[ModelCount], _context: BatchContext) -> Sequence[CountOutcome]:
        """Return an answer per request."""
        await asyncio.sleep(max(request.seconds for request in requests))
        for request in requests:
            if request.failures > self._failed[request.key, request.sequence]:
                # In a batch it is not known who is to blame: the batch is halved until the record is alone.
                self._failed[request.key, request.sequence] += len(requests) == 1
                raise RuntimeError("the request asked for it")
        return [
            ModelCounted(key=one.key, sequence=one.sequence, padding=os.urandom(one.padding // 2).hex())
            for one in requests
        ]
'''


def generate_tally(folder: Path) -> WorkerSpec:
    """Generate the node below `folder`, as its author would, and return its spec."""
    version = folder / NODE / "v1_0_0"
    version.mkdir(parents=True)
    (version / "contract.yaml").write_text(CONTRACT, "utf-8")
    environment = os.environ | {"OMNIBASE_WORKERS_PATH": str(folder)}
    command = [sys.executable, "-m", *RUN_MODULE, "generate", NODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (version / "processors" / "count.py").write_text(PROCESSOR, "utf-8")
    found = NodeVersion(NODE, (1, 0, 0), version)
    return cast("WorkerSpec", found.module("registry.spec").SPEC)


class TallyFleet(Fleet):
    """A fleet of tallies."""

    nodes: Path

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"OMNIBASE_WORKERS_PATH": str(self.nodes)}


@asynccontextmanager
async def tally_fleet(settings: Settings, folder: Path) -> AsyncIterator[TallyFleet]:
    """Provide a fleet whose topics exist; its processes end with the block."""
    spec = await asyncio.to_thread(generate_tally, folder / "nodes")
    # Fleet processes are told of a database; this one has none to talk to.
    settings = settings.model_copy(update={"postgres_dsn": SecretStr("postgresql://nobody@127.0.0.1:1/none")})
    fleet = TallyFleet(spec, settings, folder)
    fleet.nodes = folder / "nodes"
    await asyncio.to_thread(fleet.provision)
    fleet.producer.start()
    try:
        yield fleet
    finally:
        await fleet.close()


class TallyLoad:
    """Numbered requests over many keys, and the check that each was answered once and in order."""

    def __init__(self, fleet: TallyFleet, keys: int = 100) -> None:
        self._fleet = fleet
        self._keys = [f"key-{number:03d}" for number in range(keys)]
        self._next: Counter[str] = Counter()
        self.ids: list[str] = []

    def command(self, key: str, **wishes: Any) -> Envelope:
        """Return the next request of a key."""
        self._next[key] += 1
        return self._fleet.command("count", {"key": key, "sequence": self._next[key], **wishes}, subject=key)

    async def send(self, commands: Sequence[Envelope]) -> None:
        """Publish requests."""
        self.ids += [one.id for one in commands]
        await self._fleet.send(commands)

    async def publish(self, count: int, per_second: float, wishes: Mapping[int, Mapping[str, Any]] = {}) -> None:
        """Publish so many more; `wishes` is how some of them misbehave, by their place."""
        began = time.monotonic()
        for start in range(0, count, _BATCH):
            numbers = range(start, min(start + _BATCH, count))
            await self.send([self.command(self._keys[one % len(self._keys)], **wishes.get(one, {})) for one in numbers])
            await asyncio.sleep(max(0.0, began + start / per_second - time.monotonic()))

    async def answers(self, seconds: float = 90.0) -> list[Message]:
        """Wait until every request has an answer that readers of committed records see; return all answers."""
        found: list[Message] = []
        wanted = set(self.ids)

        async def all_there() -> bool:
            found[:] = await asyncio.to_thread(read_committed, self._fleet, self._fleet.spec.publish[0])
            return wanted <= {cause_of(message) for message in found}

        await eventually(all_there, f"{len(wanted)} requests are answered", seconds)
        return found

    async def assert_answered_once_in_order(self, seconds: float = 90.0) -> list[Message]:
        """Every request has exactly one committed answer, and of each key they come in order.

        Raises:
            AssertionError: says which of these is not so.
        """
        answers = await self.answers(seconds)
        counts = Counter(cause_of(message) for message in answers)
        assert counts == Counter(self.ids), f"not once: {[item for item in counts.items() if item[1] != 1][:5]}"
        sequences: defaultdict[str, list[int]] = defaultdict(list)
        for message in answers:
            data = msgspec.json.decode(bytes(envelopes.decode(message.value(), None).data))
            if "sequence" in data:
                sequences[data["key"]].append(data["sequence"])
        disordered = [key for key, numbers in sequences.items() if numbers != sorted(numbers)]
        assert not disordered, f"out of order: {[(key, sequences[key]) for key in disordered][:3]}"
        return answers


def cause_of(message: Message) -> str:
    """Return the id of the request that a message answers."""
    return envelopes.decode(message.value(), None).causationid or ""


def read_committed(fleet: Fleet, topic: str) -> list[Message]:
    """Return all that readers of committed records see in a topic, partition by partition."""
    settings = fleet.settings
    consumer = create_consumer(
        settings,
        group=settings.realm.group("test-reader", 1),
        purpose="replay",
        client_id="test-reader",
        log=lambda *_, **__: None,
        options=ConsumerOptions(statistics_seconds=0),
    )
    try:
        return read_topic(consumer, fleet.physical(topic))
    finally:
        consumer.close()
