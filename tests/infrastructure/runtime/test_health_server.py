"""The health endpoints: what they say, and that no client can hurt the worker through them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from omnibase_infra.shared.core.clock import parse_rfc3339
from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.models.infrastructure.model_metrics_snapshot import ModelMetricsSnapshot
from omnibase_infra.shared.models.infrastructure.model_service_status import ModelServiceStatus
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.runtime import health_endpoints
from omnibase_infra.shared.runtime.health_server import MAX_REQUEST_BYTES, HealthServer

CANARY = "canary-7f3a"
WAIT = 10.0


class FakeWorker:
    """A health source that says what a test tells it to."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {"assignment": "ok", "postgres": "ok"}
        self.alive = (True, "ok")
        self.broken: Exception | None = None
        self.registry = MetricsRegistry(process_metrics=False)
        self.registry.counter(metric.COMMITS, worker="w").inc(3)
        self.exposition_threads: list[str] = []
        self.exposition_gate = threading.Event()
        self.exposition_gate.set()

    def live(self) -> tuple[bool, str]:
        return self.alive

    def ready(self) -> tuple[bool, Mapping[str, str]]:
        if self.broken is not None:
            raise self.broken
        return all(state == "ok" for state in self.states.values()), self.states

    def info(self) -> Mapping[str, Any]:
        return {"worker": "order-store", "version": "1.0.0"}

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        self.exposition_threads.append(threading.current_thread().name)
        assert self.exposition_gate.wait(WAIT)
        return self.registry.exposition()


class Answer:
    """A parsed HTTP response."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
async def server(worker: FakeWorker) -> AsyncIterator[HealthServer]:
    async with HealthServer(worker) as server:
        yield server


@asynccontextmanager
async def _connected(server: HealthServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _send(server: HealthServer, request: bytes) -> Answer:
    async with asyncio.timeout(WAIT), _connected(server) as (reader, writer):
        writer.write(request)
        return Answer(await reader.read())


async def _get(server: HealthServer, path: str, method: str = "GET") -> Answer:
    return await _send(server, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


# -- what they say -------------------------------------------------------------------------------------------------------


async def test_it_listens_on_loopback_on_a_free_port(server: HealthServer) -> None:
    assert server.host == "127.0.0.1"
    assert server.port > 0


async def test_livez_says_that_the_worker_lives(server: HealthServer) -> None:
    answer = await _get(server, "/livez")
    assert (answer.status, answer.json) == (200, {"live": True, "detail": "ok"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


async def test_livez_says_why_it_does_not(server: HealthServer, worker: FakeWorker) -> None:
    worker.alive = (False, "the consumer thread has not polled for 60 s")
    answer = await _get(server, "/livez")
    assert (answer.status, answer.json["live"]) == (503, False)
    assert "has not polled" in answer.json["detail"]


async def test_readyz_lists_every_check(server: HealthServer) -> None:
    answer = await _get(server, "/readyz")
    assert answer.status == 200
    status = msgspec.json.decode(answer.body, type=ModelServiceStatus)
    assert (status.service, status.version, status.status, status.ready) == ("order-store", "1.0.0", "healthy", True)
    assert (status.not_usable, status.checks) == ((), {"assignment": "ok", "postgres": "ok"})
    assert parse_rfc3339(status.checked_at).tzinfo is not None


async def test_readyz_names_the_dependency_that_is_not_usable(server: HealthServer, worker: FakeWorker) -> None:
    worker.states["postgres"] = "no route to host"
    answer = await _get(server, "/readyz")
    assert answer.status == 503
    assert (answer.json["status"], answer.json["not_usable"]) == ("unhealthy", ["postgres"])
    assert answer.json["checks"]["postgres"] == "no route to host"


async def test_metrics_can_be_parsed_by_prometheus(server: HealthServer, worker: FakeWorker) -> None:
    answer = await _get(server, "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    (family,) = text_string_to_metric_families(answer.body.decode())
    assert (family.name, family.samples[0].value) == ("omnibase_commits", 3)


async def test_metrics_are_made_in_a_thread_of_their_own(server: HealthServer, worker: FakeWorker) -> None:
    worker.exposition_gate.clear()
    scrape = asyncio.create_task(_get(server, "/metrics"))
    async with asyncio.timeout(WAIT):
        while not worker.exposition_threads:
            await asyncio.sleep(0)
    assert (await _get(server, "/livez")).status == 200
    worker.exposition_gate.set()
    assert (await scrape).status == 200
    assert worker.exposition_threads == ["metrics_0"]


async def test_scrapes_that_overlap_share_one_page(server: HealthServer, worker: FakeWorker) -> None:
    worker.exposition_gate.clear()
    scrapes = [asyncio.create_task(_get(server, "/metrics")) for _ in range(8)]
    async with asyncio.timeout(WAIT):
        while len(server._connections) < 8 or not worker.exposition_threads:
            await asyncio.sleep(0)
    for _ in range(100):  # each of them has read its request by now; the later ones wait for the first one's page
        await asyncio.sleep(0)
    worker.exposition_gate.set()
    answers = await asyncio.gather(*scrapes)
    assert {answer.status for answer in answers} == {200}
    assert len(worker.exposition_threads) == 1


async def test_a_page_that_takes_too_long_is_given_up(
    server: HealthServer, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_endpoints, "METRICS_TIMEOUT_SECONDS", 0.05)
    worker.exposition_gate.clear()
    answer = await _get(server, "/metrics")
    worker.exposition_gate.set()
    assert answer.status == 503
    assert "took longer" in answer.json["message"]


async def test_info_says_what_runs(server: HealthServer) -> None:
    info = (await _get(server, "/info")).json
    assert (info["worker"], info["version"]) == ("order-store", "1.0.0")
    snapshot = msgspec.convert(info["metrics"], ModelMetricsSnapshot)
    assert (snapshot.service, 3.0 in snapshot.values.values()) == ("order-store", True)


async def test_info_does_without_metrics_that_take_too_long(
    server: HealthServer, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_endpoints, "METRICS_TIMEOUT_SECONDS", 0.05)
    worker.exposition_gate.clear()
    info = (await _get(server, "/info")).json
    worker.exposition_gate.set()
    assert (info["worker"], info["metrics"]) == ("order-store", None)


async def test_a_query_string_is_ignored(server: HealthServer) -> None:
    assert (await _get(server, "/readyz?verbose=1")).status == 200


async def test_head_gives_the_headers_alone(server: HealthServer) -> None:
    got, head = await _get(server, "/readyz"), await _get(server, "/readyz", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers == got.headers


async def test_a_check_that_raises_is_answered_without_its_text_and_logged(
    server: HealthServer, worker: FakeWorker
) -> None:
    worker.broken = RuntimeError(f"secret {CANARY}")
    with capture_logs() as lines:
        answer = await _get(server, "/readyz")
    assert answer.status == 500
    assert answer.json == {"message": "/readyz failed, see the log", "code": "internal-error", "retryable": False}
    msgspec.json.decode(answer.body, type=ModelErrorResponse)
    assert [(line["event"], line["path"]) for line in lines] == [("health_endpoint_failed", "/readyz")]
    assert (await _get(server, "/livez")).status == 200


# -- requests that are wrong ---------------------------------------------------------------------------------------------


async def test_an_unknown_path_lists_the_paths_there_are(server: HealthServer) -> None:
    answer = await _get(server, "/health")
    assert answer.status == 404
    assert (answer.json["code"], answer.json["details"]) == ("no-such-path", {"paths": "/livez /readyz /metrics /info"})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_only_get_and_head_are_allowed(server: HealthServer, method: str) -> None:
    answer = await _get(server, "/livez", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\n\r\n", 400),
        (b"get /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /li vez HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x00\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"x" * 2_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST_BYTES + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
        (b"x" * 100_000, 431),
    ],
    ids=[
        "empty", "no-target", "http2", "lower-case", "no-slash", "space", "binary", "tls", "long-target",
        "long-header", "many-headers", "endless-line",
    ],
)  # fmt: skip
async def test_a_request_that_cannot_be_read_is_refused(
    server: HealthServer, request_bytes: bytes, status: int
) -> None:
    answer = await _send(server, request_bytes)
    assert answer.status == status
    assert answer.json["message"]


async def test_a_body_is_ignored(server: HealthServer) -> None:
    answer = await _send(server, b"GET /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
    assert answer.status == 200


# -- clients that are slow, many or gone ---------------------------------------------------------------------------------


async def test_many_at_once_are_all_answered(server: HealthServer) -> None:
    answers = await asyncio.gather(*(_get(server, "/readyz") for _ in range(30)))
    assert [answer.status for answer in answers] == [200] * 30


async def test_a_client_that_never_finishes_its_request_is_cut_off(worker: FakeWorker) -> None:
    async with HealthServer(worker, read_timeout_seconds=0.05) as server, asyncio.timeout(WAIT):
        async with _connected(server) as (reader, writer):
            writer.write(b"GET /livez HTTP/1.1\r\n")
            answer = Answer(await reader.read())
            assert (answer.status, answer.json["message"]) == (408, "no whole request within 0.05 s")
        while server._connections:
            await asyncio.sleep(0.001)


async def test_one_that_sends_a_byte_at_a_time_gets_no_more_time(worker: FakeWorker) -> None:
    server = HealthServer(worker, read_timeout_seconds=0.1, write_timeout_seconds=0.1)
    async with asyncio.timeout(WAIT), server, _connected(server) as (_, writer):
        while not server._connections:
            await asyncio.sleep(0)
        while server._connections:
            writer.write(b"G")
            await asyncio.sleep(0.005)


async def test_one_that_does_not_take_its_answer_is_cut_off(worker: FakeWorker) -> None:
    for partition in range(20_000):
        worker.registry.gauge(metric.LAG_RECORDS, worker="w", topic="t" * 200, partition=str(partition)).set(1)
    async with HealthServer(worker, write_timeout_seconds=0.05) as server, asyncio.timeout(WAIT):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (server.host, server.port))
            await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\n\r\n")
            while not worker.exposition_threads:
                await asyncio.sleep(0.001)
            while server._connections:
                await asyncio.sleep(0.001)
        assert (await _get(server, "/livez")).status == 200


async def test_one_that_leaves_in_the_middle_leaves_nothing_behind(server: HealthServer) -> None:
    async with asyncio.timeout(WAIT):
        for request in (b"", b"GET /liv", b"GET /livez HTTP/1.1\r\n\r\n"):
            async with _connected(server) as (_, writer):
                writer.write(request)
        while server._connections:
            await asyncio.sleep(0.001)
    assert (await _get(server, "/livez")).status == 200


async def test_more_connections_than_allowed_are_turned_away_and_the_others_served(worker: FakeWorker) -> None:
    async with HealthServer(worker, max_connections=2) as server, asyncio.timeout(WAIT):
        async with _connected(server) as first, _connected(server) as _:
            while len(server._connections) < 2:
                await asyncio.sleep(0)
            async with _connected(server) as (reader, _):
                answer = Answer(await reader.read())
                assert (answer.status, answer.json["message"]) == (503, "too many connections")
            reader, writer = first
            writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
            assert Answer(await reader.read()).status == 200
        while server._connections:
            await asyncio.sleep(0)
        assert (await _get(server, "/livez")).status == 200


# -- life cycle ------------------------------------------------------------------------------------------------------------


async def test_closing_ends_open_connections_and_frees_the_port(worker: FakeWorker) -> None:
    server = HealthServer(worker)
    await server.start()
    port = server.port
    async with asyncio.timeout(WAIT), _connected(server) as (reader, _):
        while not server._connections:
            await asyncio.sleep(0)
        await server.close()
        await server.close()
        assert not server._connections
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_closing_does_not_wait_for_a_page_that_is_being_made(worker: FakeWorker) -> None:
    server = HealthServer(worker)
    await server.start()
    worker.exposition_gate.clear()
    async with asyncio.timeout(WAIT), _connected(server) as (_, writer):
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        while not worker.exposition_threads:
            await asyncio.sleep(0)
        await server.close()
        assert not worker.exposition_gate.is_set()
    worker.exposition_gate.set()


async def test_a_server_that_never_started_can_be_closed(worker: FakeWorker) -> None:
    await HealthServer(worker).close()


async def test_a_port_in_use_is_a_settings_error_that_names_it(server: HealthServer, worker: FakeWorker) -> None:
    second = HealthServer(worker, port=server.port)
    with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{server.port}.*OMNIBASE_HEALTH_PORT"):
        await second.start()
    await second.close()


def test_it_works_on_uvloop(worker: FakeWorker) -> None:
    import uvloop

    async def visit() -> list[int]:
        async with HealthServer(worker, read_timeout_seconds=0.2) as server:
            async with _connected(server):
                answers = [await _get(server, path) for path in ("/livez", "/readyz", "/metrics", "/info", "/x")]
                answers.append(await _send(server, b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"))
            return [answer.status for answer in answers]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(visit()) == [200, 200, 200, 200, 404, 431]
