"""The watchdog tells a blocked event loop from a busy, an idle and a stopped one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.watchdog import Watchdog

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
WAIT = 10.0


class BlockedLog:
    """Keeps what the watchdog logs, and tells the loop's thread while that is blocked."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.logged = threading.Event()

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))
        self.logged.set()

    def info(self, event: str, **fields: Any) -> None:
        self.error(event, **fields)


def _watchdog(log: Any, metrics: WorkerMetrics | None = None) -> Watchdog:
    return Watchdog(metrics, log, heartbeat_seconds=0.01, warn_after_seconds=0.1)


def block_the_loop_until(condition: Callable[[], bool]) -> None:
    """Hold the calling thread, as a handler with a blocking call would."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_blocked_loop_is_reported_once_with_the_stack_that_blocks_it() -> None:
    log = BlockedLog()
    with _watchdog(log) as watchdog:
        await asyncio.sleep(0.03)
        block_the_loop_until(log.logged.is_set)
        late = watchdog.blocked_seconds
        block_the_loop_until(lambda: watchdog.blocked_seconds > 2 * late)
        assert [event for event, _ in log.lines] == ["event_loop_blocked"]
        await _until(lambda: len(log.lines) == 2)

    (_, blocked), (event, unblocked) = log.lines
    assert blocked["blocked_seconds"] >= 0.1
    assert "block_the_loop_until(log.logged.is_set)" in blocked["stack"]
    assert event == "event_loop_unblocked"
    assert unblocked["blocked_seconds"] >= 2 * late - 0.02


async def test_each_block_is_reported() -> None:
    log = BlockedLog()
    with _watchdog(log):
        for round_number in (1, 2):
            log.logged.clear()
            block_the_loop_until(log.logged.is_set)
            await _until(lambda wanted=2 * round_number: len(log.lines) == wanted)  # type: ignore[misc]
    assert [event for event, _ in log.lines] == ["event_loop_blocked", "event_loop_unblocked"] * 2


async def test_a_loop_that_turns_is_not_blocked() -> None:
    log = BlockedLog()
    with Watchdog(None, log, heartbeat_seconds=0.01, warn_after_seconds=5.0) as watchdog:  # type: ignore[arg-type]
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert watchdog.blocked_seconds < 5
    assert log.lines == []


async def test_lag_and_blocks_are_measured() -> None:
    registry = MetricsRegistry(process_metrics=False)
    metrics, log = WorkerMetrics(registry, SPEC), BlockedLog()
    with _watchdog(log, metrics):
        block_the_loop_until(log.logged.is_set)
        await _until(lambda: len(log.lines) == 2)
    counts, total = metrics.event_loop_lag_seconds.snapshot()
    assert sum(counts) >= 1
    assert total >= 0.1
    assert b'omnibase_event_loop_blocks_total{worker="order-store"} 1.0' in registry.exposition()


async def test_by_default_it_writes_to_the_log() -> None:
    with capture_logs() as lines:
        with Watchdog(heartbeat_seconds=0.01, warn_after_seconds=0.1):
            block_the_loop_until(lambda: bool(lines))
        assert lines[0]["event"] == "event_loop_blocked"


async def test_after_stopping_nothing_runs_and_nothing_counts_as_blocked() -> None:
    watchdog = _watchdog(BlockedLog())
    assert watchdog.blocked_seconds == 0
    watchdog.start()
    assert [thread.name for thread in threading.enumerate()].count("event-loop-watchdog") == 1
    watchdog.stop()
    watchdog.stop()
    assert watchdog.blocked_seconds == 0
    assert "event-loop-watchdog" not in [thread.name for thread in threading.enumerate()]


async def test_stopping_does_not_wait_for_a_heartbeat() -> None:
    watchdog = Watchdog(heartbeat_seconds=60.0, warn_after_seconds=60.0)
    watchdog.start()
    began = time.monotonic()
    watchdog.stop()
    assert time.monotonic() - began < 1.5


class JumpingClock:
    """Jumps once, as the clock of a process that was stopped and continued does."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic() + self.offset


async def test_a_process_that_was_stopped_is_not_blamed_on_the_loop() -> None:
    log, clock = BlockedLog(), JumpingClock()
    with Watchdog(None, log, heartbeat_seconds=0.02, warn_after_seconds=1.0, clock=clock) as watchdog:  # type: ignore[arg-type]
        clock.offset = 3600.0
        assert watchdog.blocked_seconds > 3000
        await _until(lambda: watchdog.blocked_seconds < 0.5)
        await asyncio.sleep(0.1)
    assert log.lines == []


@pytest.mark.parametrize("blocking", [False, True], ids=["turning", "blocked"])
async def test_a_watchdog_is_a_daemon_and_never_keeps_the_process(blocking: bool) -> None:
    log = BlockedLog()
    with _watchdog(log):
        if blocking:
            block_the_loop_until(log.logged.is_set)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "event-loop-watchdog")
        assert thread.daemon
