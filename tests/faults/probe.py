"""The worker that the bench runs, `nodes/fault_probe`, and its load: numbered records of many keys."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from tests.faults.checker import Input
from tests.faults.collector import FAULT_ID

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.producer_config import ProducerOptions
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.registry.nodes import NodeVersion
from omnibase_infra.shared.testing.fleet import Fleet

NODE: Final = "fault_probe"
NODES: Final = Path(__file__).parent / "nodes"
_FOLDER: Final = NODES / NODE / "v1_0_0"
MIGRATIONS: Final = _FOLDER / "migrations"
PROBE: Final = "probe"
_BATCH: Final = 40
_SEND_TRIES: Final = 3
_SEND_SECONDS: Final = 45.0

# What a record asks for beyond its row, by its position in the load; None asks for nothing.
Misbehaviour = Callable[[int], Mapping[str, Any] | None]


def probe_spec() -> WorkerSpec:
    """Return the spec of the worker."""
    version = NodeVersion(NODE, (1, 0, 0), _FOLDER)
    return cast("WorkerSpec", version.module("registry.spec").SPEC)


class ProbeFleet(Fleet):
    """A fleet of fault probes."""

    def __init__(self, spec: WorkerSpec, settings: Settings, folder: Path) -> None:
        super().__init__(spec, settings, folder)
        self.producer = self._make_producer()

    def _make_producer(self) -> ProducerPool:
        options = ProducerOptions(delivery_timeout_seconds=_SEND_SECONDS)
        return ProducerPool(self.settings, client_id="fault-bench", log=lambda *_, **__: None, options=options)

    async def renew_producer(self) -> None:
        """Publish by a new client, which knows the topics as they are now."""
        await self.producer.close()
        self.producer = self._make_producer()
        self.producer.start()

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"OMNIBASE_WORKERS_PATH": str(NODES)}


class ProbeLoad:
    """Numbered records over many keys. Remembers every record that the brokers confirmed."""

    def __init__(self, fleet: ProbeFleet, keys: int = 60, seed: int = 1) -> None:
        self._fleet = fleet
        self._keys = [f"key-{number:03d}" for number in range(keys)]
        self._next: dict[str, int] = dict.fromkeys(self._keys, 1)
        self._chance = random.Random(seed)
        self.inputs: list[Input] = []

    @property
    def ids(self) -> list[str]:
        """Return the ids of all inputs, in the order in which they were sent."""
        return [one.id for one in self.inputs]

    async def publish(
        self, count: int, per_second: float = 1_000.0, misbehave: Misbehaviour = lambda _: None
    ) -> list[Envelope]:
        """Publish `count` more records, spread over the keys by chance; return them."""
        began, sent = time.monotonic(), []
        for start in range(0, count, _BATCH):
            batch = [
                self.command(self._chance.choice(self._keys), misbehave(number) or {})
                for number in range(start, min(start + _BATCH, count))
            ]
            await self.send(batch)
            sent += batch
            await asyncio.sleep(max(0.0, began + start / per_second - time.monotonic()))
        return sent

    def command(self, key: str, wishes: Mapping[str, Any] | None = None) -> Envelope:
        """Return the next record of a key; it is an input once it was sent."""
        number = self._next.setdefault(key, 1)
        self._next[key] += 1
        payload = {"key": key, "sequence": number, **(wishes or {})}
        return self._fleet.command(PROBE, payload, subject=key)

    async def send(self, commands: Sequence[Envelope]) -> None:
        """Publish records and remember them as inputs, once the brokers have them.

        Our own client may lose its brokers for good in a fault; a new one then sends the same records again.
        """
        for left in reversed(range(_SEND_TRIES)):
            try:
                await self._fleet.send(commands)
            except DeliveryError:
                if not left:
                    raise
                await self._fleet.renew_producer()
            else:
                break
        self.remember(commands)

    def remember(self, commands: Sequence[Envelope]) -> None:
        """Count records as inputs that the brokers have."""
        known = {one.id for one in self.inputs}
        self.inputs += [_input(one) for one in commands if one.id not in known]

    def forget(self, ids: Iterable[str]) -> None:
        """Count these as inputs no more: they were taken away from the worker on purpose."""
        gone = set(ids)
        self.inputs = [one for one in self.inputs if one.id not in gone]

    async def send_poison(
        self, name: str, value: bytes | None, key: bytes | None = None, *, is_command: bool = False
    ) -> None:
        """Publish bytes that no operation may see; `name` is the input's id, carried in a header.

        Of a command, whose envelope can be read, it must be the envelope's id as well: the answer names that.
        """
        headers = [*STRUCTURED_HEADERS, (FAULT_ID, name.encode())]
        await self._fleet.producer.send([OutboundRecord(self._fleet.spec.subscribe[0], value, key, headers)])
        self.inputs.append(Input(name, is_command=is_command))


def _input(command: Envelope) -> Input:
    payload = msgspec.json.decode(command.data)
    return Input(command.id, payload["key"], payload["sequence"])
