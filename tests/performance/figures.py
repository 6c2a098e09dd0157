"""What a benchmark hands back: figures with one value per round, floors, and what was checked."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec


class BenchmarkError(Exception):
    """The work that was to be measured was not done, or not completely: there is no figure."""


class Floor(msgspec.Struct, frozen=True):
    """A limit that a median is held to.

    Attributes:
        limit: in the figure's unit.
        at_least: whether the figure must reach it; otherwise it must stay below.
    """

    limit: float
    at_least: bool = True

    def met_by(self, value: float) -> bool:
        """Return whether a value keeps it."""
        return value >= self.limit if self.at_least else value < self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '<'} {self.limit:,g}"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was measured, once per round.

    Attributes:
        name: what it is.
        unit: of the values.
        values: one per round.
        cpu_microseconds: CPU time of the measured process per record, one per round; empty where it says nothing.
        floor: what the median is held to.
        digits: shown behind the decimal point.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    cpu_microseconds: tuple[float, ...] = ()
    floor: Floor | None = None
    digits: int = 0

    @property
    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Return whether the median keeps the floor, None where there is none."""
        return None if self.floor is None else self.floor.met_by(self.median)


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one benchmark.

    Attributes:
        name: as `--only` takes it.
        title: what was measured, in a line.
        figures: in the order of the table.
        checks: what shows that the work was done, in a sentence each.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    checks: tuple[str, ...]


def ratios(name: str, upper: Figure, lower: Figure, floor: Floor | None = None) -> Figure:
    """Return the ratio of two figures, taken round by round: both sides of a round met the same machine."""
    values = tuple(one / other for one, other in zip(upper.values, lower.values, strict=True))
    return Figure(name=name, unit="ratio", values=values, floor=floor, digits=2)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share (0 to 1) of the values does not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def expect(condition: object, message: str) -> None:
    """Refuse a broken run.

    Raises:
        BenchmarkError: the condition does not hold.
    """
    if not condition:
        raise BenchmarkError(message)
