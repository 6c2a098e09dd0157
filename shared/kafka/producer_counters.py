"""What a pool's producers have done so far, kept apart from them since producers are replaced."""

from __future__ import annotations

import time
from collections.abc import Mapping


class ProducerCounters:
    """Totals of one pool. `note_error` may be called from any thread, the rest belongs to the event loop."""

    def __init__(self) -> None:
        self.confirmed = 0
        self.failed = 0
        self._last_confirmed: float | None = None
        self._last_error: tuple[str, float | None] = ("", None)

    def count(self, size: int, failures: Mapping[int, str]) -> None:
        """Count a batch of `size` records of which these failed."""
        if failures:
            self.failed += len(failures)
            self.note_error(next(iter(failures.values())))
        if confirmed := size - len(failures):
            self.confirmed += confirmed
            self._last_confirmed = time.monotonic()

    def note_error(self, text: str) -> None:
        """Remember an error of a delivery or of the connection."""
        self._last_error = (text, time.monotonic())

    def last_error(self) -> tuple[str, float | None]:
        """Return the last error and its age in seconds; empty and None when there was none."""
        text, when = self._last_error
        return text, None if when is None else time.monotonic() - when

    def last_confirmed_age(self) -> float | None:
        """Return the seconds since the broker last confirmed records, None when it never did."""
        return None if self._last_confirmed is None else time.monotonic() - self._last_confirmed
