"""`omninode demo` as people run it: a process on real servers, left alone, interrupted and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient

from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEMO = [sys.executable, "-m", "omnibase_infra.shared.cli.main", "demo", "--commands", "1000", "--keys", "50", "--json"]
PROCESS_ID = re.compile(r"pid (\d+)")


class Demo:
    """A demo process on the servers of the test session, with a state folder of its own."""

    def __init__(self, kafka: KafkaServer, postgres: PostgresServer, folder: Path) -> None:
        self._kafka = kafka
        self._postgres = postgres
        self.state = folder / ".omnibase"
        self._stderr = folder / "stderr"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
        self._environment = kept | {
            "OMNIBASE_STATE_DIR": str(self.state),
            "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "OMNIBASE_POSTGRES_DSN": postgres.dsn,
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self, *options: str) -> subprocess.Popen[str]:
        with self._stderr.open("w") as stderr:
            self._process = subprocess.Popen(
                [*DEMO, *options], env=self._environment, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        return self._process

    def end(self, seconds: float = 200.0) -> tuple[int, str]:
        """Wait for its end; return exit code and stdout."""
        assert self._process is not None
        stdout, _ = self._process.communicate(timeout=seconds)
        return self._process.returncode, stdout

    @property
    def told(self) -> str:
        return self._stderr.read_text()

    @property
    def realm(self) -> str:
        return next((self.state / "demo").iterdir()).name

    def workers(self) -> list[int]:
        return [int(number) for number in PROCESS_ID.findall(self.told)]

    def wait_until_told(self, text: str) -> None:
        eventually(lambda: text in self.told or self.has_ended, f"{text!r} is told")
        assert text in self.told, f"it ended before:\n{self.told}"

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    async def left_behind(self) -> dict[str, list[str]]:
        """Return the topics and databases of the demo's realm."""
        topics = AdminClient({"bootstrap.servers": self._kafka.bootstrap_servers}).list_topics(timeout=10).topics
        connection = await asyncpg.connect(self._postgres.dsn, timeout=10)
        try:
            names = await connection.fetch("SELECT datname FROM pg_database")
        finally:
            await connection.close(timeout=5)
        return {
            "topics": [name for name in topics if name.startswith(f"{self.realm}.")],
            "databases": [name for (name,) in names if name == "demo_" + self.realm.rpartition("-")[2]],
        }

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def demo(kafka_container: KafkaServer, postgres_container: PostgresServer, tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(kafka_container, postgres_container, tmp_path)
    yield demo
    demo.close()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(pid, 0)
        return not Path("/proc").exists() or ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_the_demo_proves_every_promise_and_leaves_nothing_behind(demo: Demo) -> None:
    demo.start()
    code, stdout = demo.end()
    assert code == 0, demo.told
    report: dict[str, Any] = json.loads(stdout)
    assert report["passed"] is True
    seen = {proof["what"]: proof["seen"] for proof in report["proofs"] if proof["holds"]}
    assert len(seen) == len(report["proofs"])
    assert seen["rows stored"] == 1000
    assert seen["events stored more than once"] == seen["events lost"] == 0
    assert seen["keys whose rows are in the order they were sent"] == 50
    assert seen["commands answered `completed`"] == 1000
    assert {(item["went_to"], item["code"]) for item in report["bad_inputs"]} == {
        ("dead letter", "undecodable"),
        ("dead letter", "invalid-envelope"),
        ("dead letter", "forbidden"),
        ("failed answer", "invalid-payload"),
        ("failed answer", "unknown-operation"),
        ("failed answer", "expired"),
    }
    assert report["load"]["in_flight"] > 0
    assert sorted(worker["exit_code"] for worker in report["workers"]) == [-signal.SIGKILL, 0, 0]
    assert report["seconds"] == pytest.approx(sum(step["seconds"] for step in report["steps"]), abs=0.01)
    assert all(Path(worker["log"]).stat().st_size for worker in report["workers"])
    assert await demo.left_behind() == {"topics": [], "databases": []}
    assert not any(map(is_running, demo.workers()))


async def test_with_keep_its_topics_and_database_stay(
    demo: Demo, kafka_container: KafkaServer, postgres_container: PostgresServer
) -> None:
    demo.start("--keep")
    code, stdout = demo.end()
    report = json.loads(stdout)
    assert (code, report["kept"]) == (0, True)
    left = await demo.left_behind()
    assert left["databases"] == [report["database"]]
    assert f"{report['realm']}.onex.cmd.postgres-adapter.requests.v1" in left["topics"]
    connection = await asyncpg.connect(postgres_container.dsn_of(report["database"]), timeout=10)
    try:
        assert await connection.fetchval("SELECT count(*) FROM orders.order_events") == 1000
    finally:
        await connection.close(timeout=5)
    connection = await asyncpg.connect(postgres_container.dsn, timeout=10)
    try:
        await connection.execute(f'DROP DATABASE "{report["database"]}" WITH (FORCE)')
    finally:
        await connection.close(timeout=5)
    admin = AdminClient({"bootstrap.servers": kafka_container.bootstrap_servers})
    for future in admin.delete_topics(left["topics"]).values():
        future.result(10)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
async def test_interrupted_in_the_middle_it_stops_its_workers_and_removes_what_it_made(
    demo: Demo, number: signal.Signals, code: int
) -> None:
    process = demo.start()
    demo.wait_until_told("killed worker")
    process.send_signal(number)
    assert demo.end() == (code, "")
    assert len(demo.workers()) >= 3
    assert not any(map(is_running, demo.workers()))
    assert await demo.left_behind() == {"topics": [], "databases": []}


if sys.platform == "linux":  # nowhere else does a child end with its parent

    def test_killed_it_leaves_no_worker_behind(demo: Demo) -> None:
        process = demo.start()
        demo.wait_until_told("worker 2 pid")
        process.kill()
        demo.end()
        eventually(lambda: not any(map(is_running, demo.workers())), "the workers end", seconds=30)


def test_a_worker_that_ends_by_itself_is_an_error_with_the_end_of_its_log(demo: Demo) -> None:
    demo.start()
    demo.wait_until_told("start 2 workers: ready")
    os.kill(demo.workers()[0], signal.SIGTERM)
    os.kill(demo.workers()[1], signal.SIGTERM)
    code, stdout = demo.end()
    assert (code, stdout) == (1, "")
    assert "ended by itself with 0" in demo.told
    assert '"event":"worker_stopped"' in demo.told
