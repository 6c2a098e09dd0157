"""Worker processes on real servers, for tests that kill, stop and overload them.

A `Fleet` is one realm on one broker and one database: it prepares topics and first offsets, starts `omninode run`
processes, publishes records and collects what came back.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
from confluent_kafka import Consumer, Message, TopicPartition

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.kafka.producer_watch import REASON
from omnibase_infra.shared.testing.kafka_fixtures import read_topic
from omnibase_infra.shared.testing.waiting import wait_for_condition
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry

READY_SECONDS: Final = 30.0
RUN_MODULE: Final = ("omnibase_infra.shared.cli.main",)


eventually = wait_for_condition


class WorkerProcess:
    """One `omninode run` process and its endpoints."""

    def __init__(
        self, node: str, environment: Mapping[str, str], log: Path, module: Sequence[str] = RUN_MODULE
    ) -> None:
        """Start it; `module` is what Python runs with the arguments `run NODE`, and arguments of its own before those."""
        self.log_path = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module, "run", node],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Return what the process wrote so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL and reap it."""
        self._process.kill()
        self._process.wait(10)

    def terminate(self, seconds: float = 40.0) -> int:
        """End it by SIGTERM; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(seconds)

    def get(self, path: str) -> tuple[int, Any]:
        """Return status and JSON of an endpoint; (0, None) while it does not listen."""
        address = self.address
        if not address:
            return 0, None
        try:
            with urllib.request.urlopen(address + path, timeout=5) as response:  # noqa: S310 - our own loopback
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    @property
    def address(self) -> str:
        """Return where the endpoints are; empty while they do not listen."""
        return next((line["address"] for line in self.lines() if line["event"] == "health_server_started"), "")

    def metrics(self, accept: str = "text/plain") -> str:
        """Return the page of `/metrics`; empty while it does not listen. `accept` may ask for OpenMetrics."""
        request = urllib.request.Request(f"{self.address}/metrics", headers={"Accept": accept})  # noqa: S310 - likewise
        try:
            with urllib.request.urlopen(request, timeout=15) as response:  # noqa: S310 - likewise
                page: bytes = response.read()
                return page.decode()
        except (OSError, ValueError):
            return ""

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of an event."""
        return [line for line in self.lines() if line["event"] == event]

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines that are JSON."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]

    def is_ready(self) -> bool:
        """Return whether `/readyz` says yes.

        Raises:
            AssertionError: the process has ended; shows the end of its log.
        """
        if self.exit_code is not None:
            raise AssertionError(f"the worker ended with {self.exit_code}:\n{self.log[-3000:]}")
        return self.get("/readyz")[0] == 200


class Fleet:
    """One realm, its topics, its worker processes."""

    def __init__(self, spec: WorkerSpec, settings: Settings, folder: Path) -> None:
        self.spec = spec
        self.settings = settings
        self.realm = settings.realm
        self._folder = folder
        self._processes: list[WorkerProcess] = []
        self.producer = ProducerPool(settings, client_id="test-fleet", log=_quiet)
        self._answers: Consumer | None = None
        # A thread may still consume when a failed test closes the fleet; the client does not survive that.
        self._reading = threading.Lock()
        self.answers: dict[str, list[Envelope]] = defaultdict(list)

    def provision(self, partitions: int | None = None) -> None:
        """Create the worker's topics and commit the first offsets of its group."""
        spec = self.spec if partitions is None else msgspec.structs.replace(self.spec, partitions=partitions)
        admin = KafkaTopicAdmin(self.settings, log=_quiet)
        registry = TopicRegistry.from_specs([spec], self.realm)
        report = provision(admin, registry.catalogue, self.realm)
        assert report.is_complete, f"the topics could not be made: {report}"

    def start(self, *, module: Sequence[str] = RUN_MODULE, **environment: str) -> WorkerProcess:
        """Start a worker process; `environment` adds OMNIBASE_* variables."""
        log = self._folder / f"worker-{len(self._processes)}.log"
        process = WorkerProcess(self.spec.node, self._environment() | environment, log, module)
        self._processes.append(process)
        return process

    @property
    def processes(self) -> Sequence[WorkerProcess]:
        """Return the worker processes there have been, in the order of their starts."""
        return self._processes

    async def start_ready(self, **environment: str) -> WorkerProcess:
        """Start a worker process and wait until it is ready."""
        process = self.start(**environment)
        await eventually(process.is_ready, "the worker is ready", READY_SECONDS)
        return process

    def stop_all(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            if process.exit_code is None:
                process.kill()

    def physical(self, topic: str) -> str:
        """Return a logical topic's name on the cluster."""
        return TopicName.parse(topic).physical(self.realm)

    def command(self, operation: str, payload: Any, **attributes: Any) -> Envelope:
        """Return a command of the worker."""
        spec = next(one for one in self.spec.operations if one.name == operation)
        data = payload if isinstance(payload, msgspec.Raw) else envelopes.encode_data(payload)
        source = self.realm.source("client")
        return envelopes.original(
            source=source, event_type=spec.event_type, dataschema=spec.request_schema, data=data, **attributes
        )

    async def send(self, commands: Sequence[Envelope], topic: str | None = None) -> None:
        """Publish commands, each once, by default to the worker's first topic."""
        target = topic or self.spec.subscribe[0]
        await self._send_once(
            [OutboundRecord(target, envelopes.encode(one), one.record_key, STRUCTURED_HEADERS) for one in commands]
        )

    async def _send_once(self, records: Sequence[OutboundRecord]) -> None:
        """Publish; what a client that lost its brokers did not confirm is sent again where the topic lacks it."""
        while records:
            try:
                await self.producer.send(records)
            except DeliveryError as error:
                if not all(REASON in reason for reason in error.errors.values()):
                    raise
                there = await asyncio.to_thread(self._values, records[0].topic)
                records = [records[index] for index in sorted(error.errors) if records[index].value not in there]
            else:
                return

    def _values(self, topic: str) -> set[bytes | None]:
        """Return the values of all records in a topic."""
        with closing(self._reader(topic)) as reader:
            return {message.value() for message in read_topic(reader, self.physical(topic))}

    async def send_raw(
        self, value: bytes | None, key: bytes | None = None, headers: Iterable[tuple[str, bytes | None]] = ()
    ) -> None:
        """Publish bytes as they are to the worker's first topic."""
        await self.producer.send([OutboundRecord(self.spec.subscribe[0], value, key, list(headers))])

    async def answered(self, ids: Iterable[str], seconds: float = 60.0) -> dict[str, list[Envelope]]:
        """Wait until every one of these messages has an answer; return all answers seen so far by cause."""
        wanted = set(ids)

        async def all_there() -> bool:
            await asyncio.to_thread(self.collect_answers)
            return wanted <= self.answers.keys()

        await eventually(all_there, f"{len(wanted)} answers (have {len(self.answers)})", seconds)
        return self.answers

    async def first_answers(self, count: int = 1) -> None:
        """Wait until that many messages have answers."""

        async def enough() -> bool:
            await asyncio.to_thread(self.collect_answers)
            return len(self.answers) >= count

        await eventually(enough, f"{count} answers")

    def collect_answers(self) -> None:
        """Take the answers that have come since last time. Blocks for a moment when there are none."""
        with self._reading:
            if self._answers is None:
                self._answers = self._reader(self.spec.publish[0])
            for message in self._answers.consume(2000, 0.1):
                if message.error() is None:
                    answer = envelopes.decode(message.value(), None)
                    self.answers[answer.causationid or ""].append(answer)

    async def dead_letters(self, count: int, seconds: float = 30.0) -> list[Message]:
        """Wait for at least `count` dead letters and return all there are."""
        reader = self._reader(str(self.spec.dead_letter_topic))
        found: list[Message] = []

        async def enough() -> bool:
            found.extend(one for one in await asyncio.to_thread(reader.consume, 500, 0.2) if one.error() is None)
            return len(found) >= count

        try:
            await eventually(enough, f"{count} dead letters", seconds)
        finally:
            reader.close()
        return found

    def count_dead_letters(self) -> int:
        """Return how many dead letters there are now. Blocks for a round trip."""
        name = self.physical(str(self.spec.dead_letter_topic))
        reader = self._reader(str(self.spec.dead_letter_topic))
        try:
            marks = [reader.get_watermark_offsets(one, timeout=10) for one in reader.assignment()]
        finally:
            reader.close()
        assert marks, f"{name} has no partitions"
        return sum(high - low for low, high in marks)

    async def fetch_value(self, sql: str) -> Any:
        """Return one value from the database."""
        connection = await asyncpg.connect(require_postgres(self.settings))
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    def _reader(self, topic: str) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.kafka_bootstrap_servers or "",
                "group.id": f"{self.realm}.test-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        name = self.physical(topic)
        numbers = consumer.list_topics(name, timeout=10).topics[name].partitions
        consumer.assign([TopicPartition(name, number, 0) for number in numbers])
        return consumer

    def close_reader(self) -> None:
        """Let the next look at answers read all of them again, by a new client."""
        with self._reading:
            if self._answers is not None:
                self._answers.close()
                self._answers = None

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
        return kept | {
            "OMNIBASE_STATE_DIR": str(self._folder),
            "OMNIBASE_ENV": self.realm.environment,
            "OMNIBASE_TENANT": self.realm.tenant,
            "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": self.settings.kafka_bootstrap_servers or "",
            "OMNIBASE_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
            "OMNIBASE_POSTGRES_DSN": require_postgres(self.settings),
        }

    async def close(self) -> None:
        """Kill the workers and close the clients."""
        self.stop_all()
        await asyncio.to_thread(self.close_reader)
        await self.producer.close()


@asynccontextmanager
async def running_fleet(spec: WorkerSpec, settings: Settings, folder: Path) -> AsyncIterator[Fleet]:
    """Provide a fleet whose topics exist; its processes end with the block."""
    fleet = Fleet(spec, settings, folder)
    await asyncio.to_thread(fleet.provision)
    fleet.producer.start()
    try:
        yield fleet
    finally:
        await fleet.close()


def _quiet(level: int, event: str, /, **fields: Any) -> None:
    """Drop client log lines: the tests look at the workers' own logs."""
