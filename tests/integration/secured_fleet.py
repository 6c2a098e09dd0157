"""Two workers on a broker that asks for passwords and obeys access-control lists; each has a user of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from typer.testing import CliRunner, Result

from omnibase_infra.shared.cli.main import app
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.testing.fleet import WorkerProcess, eventually
from omnibase_infra.shared.testing.secured_kafka import SecuredKafka, environment_of

ADAPTER: Final = "postgres_adapter"
TALLY: Final = "tally"


class SecuredFleet:
    """One realm with `postgres_adapter` and the transactional `tally`: topics are there, rights are what a test grants."""

    def __init__(self, kafka: SecuredKafka, realm: Realm, folder: Path, nodes: Path, dsn: str) -> None:
        self.kafka = kafka
        self.realm = realm
        self.administrator = kafka.administrator(realm)
        self.client = self.new_user("shop")
        self._folder = folder
        self._more = {"OMNIBASE_WORKERS_PATH": str(nodes), "OMNIBASE_POSTGRES_DSN": dsn}
        self._processes: list[WorkerProcess] = []
        self.workers = {node: self.new_user(node.replace("_", "-")) for node in (ADAPTER, TALLY)}

    def new_user(self, name: str) -> Settings:
        """Make a user of the realm; return the settings of a process that logs in as it."""
        user, password = f"{self.realm}.{name}", secrets.token_hex(8)
        self.kafka.set_password(user, password)
        return self.kafka.settings(self.realm, user, password)

    def command(self, *arguments: str, settings: Settings | None = None) -> Result:
        """Run `omninode` in this process, as the administrator by default."""
        environment: Mapping[str, Any] = environment_of(settings or self.administrator, **self._more)
        return CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False)

    def prepare(self) -> None:
        """Make the topics, and grant what the contracts need to the workers and to the client."""
        client = f"User:{self.client.kafka_sasl_username}"
        for command in (("topics", "apply"), ("acls", "apply", "--client", client)):
            done = self.command(*command)
            assert done.exit_code == 0, done.output

    def start(self, node: str, settings: Settings | None = None, **environment: str) -> WorkerProcess:
        """Start a worker process, as its own user by default."""
        log = self._folder / f"{node}-{len(self._processes)}.log"
        surroundings = environment_of(settings or self.workers[node], **self._more, **environment)
        process = WorkerProcess(node, surroundings | {"OMNIBASE_STATE_DIR": str(self._folder)}, log)
        self._processes.append(process)
        return process

    def stop(self, processes: Sequence[WorkerProcess] = ()) -> None:
        """Kill what still runs."""
        for process in processes or self._processes:
            if process.exit_code is None:
                process.kill()


async def has_ended(process: WorkerProcess) -> None:
    """Wait until a process that is to end by itself has ended."""
    await eventually(lambda: process.exit_code is not None, "the worker ends", 40)


@contextmanager
def running_secured_fleet(
    kafka: SecuredKafka, realm: Realm, folder: Path, nodes: Path, dsn: str
) -> Iterator[SecuredFleet]:
    """Provide a fleet; its processes end with the block."""
    fleet = SecuredFleet(kafka, realm, folder, nodes, dsn)
    try:
        yield fleet
    finally:
        fleet.stop()
