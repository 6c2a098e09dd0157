"""Hold back repeated warnings and errors: an outage must not write the same line ten thousand times a second."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from threading import Lock
from typing import Any, Final

import msgspec

from omnibase_infra.shared.core.clock import Clock
from omnibase_infra.shared.observability.light_structlog import structlog

LIMITED_LEVELS: Final = frozenset({"warning", "error", "critical"})
LINES_PER_WINDOW: Final = 10
WINDOW_SECONDS: Final = 10.0
MAX_KEYS: Final = 1024

Key = tuple[str, str]


class _Window(msgspec.Struct):
    ends_at: float
    written: int = 0
    suppressed: int = 0


class ErrorRateLimiter:
    """A structlog processor: per event and code at most `lines` in `window_seconds`.

    The first line after a window carries `suppressed`, how many were held back in it; `drain` reports the rest.
    Safe from any thread. `on_suppressed` is called once per line held back and must not log.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        lines: int = LINES_PER_WINDOW,
        window_seconds: float = WINDOW_SECONDS,
        on_suppressed: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock
        self._lines = lines
        self._window_seconds = window_seconds
        self._on_suppressed = on_suppressed
        self._windows: dict[Key, _Window] = {}
        self._lock = Lock()

    def __call__(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Pass the line on or drop it."""
        if event.get("level", method) not in LIMITED_LEVELS:
            return event
        key = (str(event.get("event", "")), str(event.get("code", "")))
        suppressed = self._admit(key, self._clock.monotonic())
        if suppressed is None:
            if self._on_suppressed is not None:
                self._on_suppressed()
            raise structlog.DropEvent
        if suppressed:
            event["suppressed"] = suppressed
        return event

    def drain(self) -> dict[Key, int]:
        """Return how many lines were held back and not reported yet, and forget them."""
        with self._lock:
            pending = {key: window.suppressed for key, window in self._windows.items() if window.suppressed}
            self._windows.clear()
        return pending

    def _admit(self, key: Key, now: float) -> int | None:
        """Return the lines held back before this one, or None when this one is held back, too."""
        with self._lock:
            window = self._windows.get(key)
            if window is None or now >= window.ends_at:
                suppressed = window.suppressed if window is not None else 0
                if window is None and len(self._windows) >= MAX_KEYS:
                    self._make_room()
                self._windows[key] = _Window(now + self._window_seconds, written=1)
                return suppressed
            if window.written < self._lines:
                window.written += 1
                return 0
            window.suppressed += 1
            return None

    def _make_room(self) -> None:
        # Codes are bounded by the error tree, so this happens only when one slips in that is not.
        oldest = min(self._windows, key=lambda key: self._windows[key].ends_at)
        del self._windows[oldest]
