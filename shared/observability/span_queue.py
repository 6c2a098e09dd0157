"""Ended spans on their way to the collector: a bounded queue and one thread, so that an outage costs spans and nothing else."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

BATCH_SPANS: Final = 512
DELAY_SECONDS: Final = 1.0
_INTERRUPT_SECONDS: Final = 1.0

DropReason = Literal["queue-full", "export-failed"]


class SpanQueueListener(Protocol):
    """Told what becomes of spans. Called on the event loop and on the export thread; must not block or raise."""

    def exported(self, spans: int) -> None:
        """Note spans that the collector has taken."""
        ...

    def dropped(self, spans: int, reason: DropReason) -> None:
        """Note spans that are gone."""
        ...

    def export_failed(self, error: BaseException | None) -> None:
        """Note that the collector did not take a batch; None where the exporter did not say why."""
        ...


class SpanQueue(SpanProcessor):
    """Takes ended spans from any thread without waiting, and exports them in batches from a thread of its own.

    The library's own batch processor drops the oldest spans silently; this one drops the newest and counts them.
    """

    def __init__(
        self,
        make_exporter: Callable[[], SpanExporter],
        listener: SpanQueueListener,
        *,
        capacity: int,
        delay_seconds: float = DELAY_SECONDS,
    ) -> None:
        """Start the thread.

        Args:
            make_exporter: called on the thread, at its start: the import takes hundreds of milliseconds, which must
                not come in the middle of the work. Tried again at each export while it fails.
            listener: told of exports and losses.
            capacity: spans that wait at most; further ones are dropped.
            delay_seconds: how long a span waits for others.
        """
        self._make_exporter = make_exporter
        self._listener = listener
        self._capacity = capacity
        self._delay = delay_seconds
        self._batch = min(BATCH_SPANS, capacity)
        self._queue: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._exporter: SpanExporter | None = None
        self._thread = threading.Thread(target=self._run, name="trace-export", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many spans wait."""
        return len(self._queue)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: a span counts when it ends."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, or drop it when too many wait. Any thread; never waits."""
        waiting = len(self._queue)
        if self._closing or waiting >= self._capacity:
            self._listener.dropped(1, "export-failed" if self._closing else "queue-full")
            return
        self._queue.append(span)
        if waiting + 1 >= self._batch:
            self._wake.set()

    def shutdown(self) -> None:
        """Do nothing: `close` says how long it may take."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the interface's
        """Have what waits exported soon; return whether nothing waits."""
        self._wake.set()
        return not self._queue

    def close(self, timeout_seconds: float) -> None:
        """Export what waits within the time-out, then give up. Blocks; a second call does nothing more."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive() and self._exporter is not None:
            self._exporter.shutdown()  # wakes an export that waits for its next try
            self._thread.join(_INTERRUPT_SECONDS)
        if self._queue:
            self._listener.dropped(len(self._queue), "export-failed")
            self._queue.clear()

    def _run(self) -> None:
        self._open()
        while True:
            self._wake.wait(self._delay)
            self._wake.clear()
            closing = self._closing
            while self._queue:
                self._export([self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))])
                if not self._closing and len(self._queue) < self._batch:
                    break
            if closing:
                break
        if self._exporter is not None:
            self._exporter.shutdown()

    def _open(self) -> SpanExporter | None:
        """Return the exporter, made if there is none yet; None when that does not work."""
        if self._exporter is None:
            try:
                self._exporter = self._make_exporter()
            except Exception as error:  # noqa: BLE001 - whatever it is costs spans, never the thread
                self._listener.export_failed(error)
        return self._exporter

    def _export(self, spans: list[ReadableSpan]) -> None:
        failure: BaseException | None = None
        exporter = self._open()
        try:
            done = exporter is not None and exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001 - likewise
            done, failure = False, error
        if done:
            self._listener.exported(len(spans))
            return
        self._listener.dropped(len(spans), "export-failed")
        if exporter is not None:
            self._listener.export_failed(failure)
