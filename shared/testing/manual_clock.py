"""A clock that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    """Wall-clock and monotonic time, moved together by `advance`. Starts at a fixed date, the same in every run."""

    def __init__(self, unix_seconds: float = 1_750_000_000.0) -> None:
        self._unix_seconds = unix_seconds
        self._elapsed = 0.0

    def time(self) -> float:
        """Return Unix time in seconds."""
        return self._unix_seconds + self._elapsed

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass.

        Raises:
            ValueError: time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self._elapsed += seconds
