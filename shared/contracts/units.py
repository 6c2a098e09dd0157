"""Units as contracts write them: durations, rates, Kubernetes quantities. Each parser raises ValueError, in words."""

from __future__ import annotations

import re
from typing import Final

import msgspec

DURATION_PATTERN: Final = r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?(ms|s|m|h|d)$"
RATE_PATTERN: Final = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"
CPU_PATTERN: Final = r"^(([1-9][0-9]{0,6}m)|((0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?))$"
MEMORY_PATTERN: Final = r"^[1-9][0-9]{0,15}(k|M|G|T|Ki|Mi|Gi|Ti)?$"

_DURATION: Final = re.compile(DURATION_PATTERN.replace("$", r"\Z"), re.ASCII)
_RATE: Final = re.compile(RATE_PATTERN.replace("$", r"\Z"), re.ASCII)
_CPU: Final = re.compile(CPU_PATTERN.replace("$", r"\Z"), re.ASCII)
_MEMORY: Final = re.compile(MEMORY_PATTERN.replace("$", r"\Z"), re.ASCII)

# In steps per second, so that a duration is one correctly rounded division and `500ms` equals `0.5s` exactly.
_DURATION_UNITS: Final = {"ms": (1, 1000), "s": (1, 1), "m": (60, 1), "h": (3600, 1), "d": (86_400, 1)}
_PERIODS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_MEMORY_UNITS: Final = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


class Rate(msgspec.Struct, frozen=True):
    """So many in so many seconds: `50/second` is `Rate(50, 1.0)`."""

    count: int
    period: float


def parse_duration(text: str) -> float:
    """Return the seconds that `text` stands for: `500ms`, `5s`, `1.5m`, `2h`, `7d`.

    Raises:
        ValueError: not a number with a unit.
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration, expected a number with ms, s, m, h or d, like '500ms' or '5s'")
    multiplier, divisor = _DURATION_UNITS[match[3]]
    return float(match[1] + (match[2] or "")) * multiplier / divisor


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads back as `seconds`, to the millisecond."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def parse_rate(text: str) -> Rate:
    """Return the rate that `text` stands for: `50/second`, `1000/minute`.

    Raises:
        ValueError: not a count, a slash and a period.
    """
    if _RATE.match(text) is None:
        raise ValueError(f"{text!r} is not a rate, expected a count per second, minute, hour or day, like '50/second'")
    count, _, period = text.partition("/")
    return Rate(int(count), _PERIODS[period])


def parse_cpu(text: str) -> int:
    """Return the thousandths of a core that `text` stands for: `100m` is 100, `0.5` is 500, `2` is 2000.

    Raises:
        ValueError: not a Kubernetes CPU quantity, or zero.
    """
    if _CPU.match(text) is None or not (text.endswith("m") or float(text) > 0):
        raise ValueError(
            f"{text!r} is not an amount of CPU, expected thousandths of a core or cores, like '100m' or '2'"
        )
    return int(text[:-1]) if text.endswith("m") else round(float(text) * 1000)


def parse_memory(text: str) -> int:
    """Return the bytes that `text` stands for: `128Mi`, `1Gi`, `500M`.

    Raises:
        ValueError: not a Kubernetes memory quantity.
    """
    if _MEMORY.match(text) is None:
        raise ValueError(f"{text!r} is not an amount of memory, expected bytes with a unit, like '128Mi' or '1Gi'")
    number = text.rstrip("kKMGTi")
    return int(number) * _MEMORY_UNITS[text[len(number) :]]
