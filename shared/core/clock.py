"""Wall-clock time as the wire writes it, and the port that lets tests move it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

import msgspec


class Clock(Protocol):
    """Where components take time from. Cheap, never blocks, safe from any thread."""

    def time(self) -> float:
        """Return Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def time(self) -> float:
        """Return Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""
        return time.monotonic()


def rfc3339(unix_seconds: float) -> str:
    """Return RFC 3339 in UTC with microseconds, as the `time` attribute carries it."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(value: str) -> datetime:
    """Return the aware time written in RFC 3339.

    Raises:
        ValueError: not RFC 3339, or without a zone.
    """
    # datetime.fromisoformat takes ISO 8601 at large: week dates, missing minutes, any separator.
    try:
        moment = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise ValueError(f"{value!r} is not RFC 3339") from None
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return moment
