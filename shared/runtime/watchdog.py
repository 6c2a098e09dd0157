"""Notices, from a thread of its own, that the event loop is blocked: one log line with the stack that blocks it.

What blocks a loop also keeps it from answering /livez, so the orchestrator's probe times out; the line in the log
says why.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

HEARTBEAT_SECONDS: Final = 0.25
WARN_AFTER_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 2.0


class Watchdog:
    """Watches the event loop it is started on; a context manager to be used inside it.

    Args:
        metrics: gets the lag of each heartbeat and the count of blocks; default: none.
        log: where a block is reported, from the watchdog's thread.
        heartbeat_seconds: how often the loop shows that it turns.
        warn_after_seconds: a heartbeat this late is logged with the loop's stack, once per block.
        clock: for tests.
    """

    def __init__(
        self,
        metrics: WorkerMetrics | None = None,
        log: FilteringBoundLogger | None = None,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        warn_after_seconds: float = WARN_AFTER_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self._metrics = metrics
        self._log = log or get_logger()
        self._heartbeat = heartbeat_seconds
        self._warn_after = warn_after_seconds
        self._clock = clock or SystemClock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        # One float, written by the loop and read by the thread: needs no lock.
        self._next_beat = 0.0

    @property
    def blocked_seconds(self) -> float:
        """Return how late the loop's heartbeat is now; 0 when it is not, or not watched. From any thread."""
        if self._thread is None:
            return 0.0
        return max(0.0, self._clock.monotonic() - self._next_beat)

    def start(self) -> None:
        """Start watching the running loop; call it from there, once."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._schedule()
        self._thread = threading.Thread(target=self._watch, name="event-loop-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; may be called twice. Waits for the thread, which ends at once."""
        self._stopping.set()
        if self._timer is not None:
            self._timer.cancel()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_STOP_SECONDS)  # bounded: it may hang on a log pipe nobody reads, and it is a daemon

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _schedule(self) -> None:
        assert self._loop is not None
        self._next_beat = self._clock.monotonic() + self._heartbeat
        self._timer = self._loop.call_later(self._heartbeat, self._beat)

    def _beat(self) -> None:
        lag = max(0.0, self._clock.monotonic() - self._next_beat)
        if self._metrics is not None:
            self._metrics.event_loop_lag_seconds.observe(lag)
        self._schedule()

    def _watch(self) -> None:
        blocked_since: float | None = None
        woke = self._clock.monotonic()
        while not self._stopping.wait(self._heartbeat):
            now = self._clock.monotonic()
            slept, woke = now - woke, now
            if slept > self._heartbeat + self._warn_after:
                continue  # the whole process stood still (stopped, starved): nothing the loop is to blame for
            late_since = self._next_beat
            if now - late_since < self._warn_after:
                if blocked_since is not None:
                    self._log.info(LogEvent.EVENT_LOOP_UNBLOCKED, blocked_seconds=round(late_since - blocked_since, 3))
                blocked_since = None
            elif blocked_since is None:
                blocked_since = late_since
                self._report(now - late_since)

    def _report(self, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.event_loop_blocks.inc()
        frame = sys._current_frames().get(self._loop_thread)
        self._log.error(
            LogEvent.EVENT_LOOP_BLOCKED,
            blocked_seconds=round(seconds, 3),
            stack="".join(traceback.format_stack(frame)) if frame is not None else "",
        )
