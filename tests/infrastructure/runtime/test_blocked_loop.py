"""A handler that blocks the event loop is noticed: a metric, the stack that blocks, and probes that fail meanwhile."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from structlog.testing import capture_logs

from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.health_server import HealthServer
from omnibase_infra.shared.runtime.watchdog import Watchdog

WAIT = 10.0
PROBE_SECONDS = 0.3
SPEC = WorkerSpec(
    generation=1,
    node="order_store",
    worker="order-store",
    class_name="OrderStore",
    version="1.0.0",
    contract_sha256="0" * 64,
    description="",
    node_type="effect",
    subscribe=("onex.cmd.order-store.execute.v1",),
    publish=(),
)


class Source:
    """What the endpoints show of a worker whose loop a watchdog watches."""

    def __init__(self) -> None:
        self.registry = MetricsRegistry(process_metrics=False)
        self.metrics = WorkerMetrics(self.registry, SPEC)

    def live(self) -> tuple[bool, str]:
        return True, "ok"

    def ready(self) -> tuple[bool, Mapping[str, str]]:
        return True, {}

    def info(self) -> Mapping[str, Any]:
        return {}

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        return self.registry.exposition()


def probe(port: int, seconds: float) -> str:
    """Ask as an orchestrator does, with a time-out; return the status, or what came instead of one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", "/livez")
        return str(connection.getresponse().status)
    except TimeoutError:
        return "timed out"
    finally:
        connection.close()


class Prober(threading.Thread):
    """Probes once, from outside the loop."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.said = ""

    def run(self) -> None:
        self.said = probe(self._port, PROBE_SECONDS)


def a_handler_that_never_awaits(until: threading.Thread) -> None:
    """Hold the loop until a probe has come back, and long enough for the watchdog."""
    until.join(WAIT)
    time.sleep(PROBE_SECONDS)


@asynccontextmanager
async def _watched(source: Source) -> AsyncIterator[HealthServer]:
    async with HealthServer(source) as server:
        with Watchdog(source.metrics, heartbeat_seconds=0.01, warn_after_seconds=0.1):
            yield server


async def test_a_probe_of_a_blocked_worker_fails_and_the_log_says_what_blocks_it() -> None:
    source = Source()
    with capture_logs() as lines:
        async with _watched(source) as server:
            prober = Prober(server.port)
            prober.start()
            a_handler_that_never_awaits(prober)
            async with asyncio.timeout(WAIT):
                while not any(line["event"] == "event_loop_unblocked" for line in lines):
                    await asyncio.sleep(0.001)
            assert await asyncio.to_thread(probe, server.port, WAIT) == "200", "it lives again"

    assert prober.said == "timed out"
    (blocked,) = (line for line in lines if line["event"] == "event_loop_blocked")
    assert blocked["log_level"] == "error"
    assert "a_handler_that_never_awaits" in blocked["stack"]
    assert b'omnibase_event_loop_blocks_total{worker="order-store"} 1.0' in source.registry.exposition()
