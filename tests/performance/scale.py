"""How much is measured: enough for figures to mean something, or just enough to see that the benchmark works."""

from __future__ import annotations

import msgspec


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of one run.

    Attributes:
        records: events the no-op worker and the bare loops read in each round.
        commands: commands that are executed in each round.
        rounds: of everything but the starts.
        requests_per_second / request_seconds: load of the latency benchmark, and the length of a round.
        starts: processes started one after the other.
        idle_seconds: after readiness, before the memory of an idle worker is read.
    """

    name: str
    records: int
    commands: int
    rounds: int
    requests_per_second: int
    request_seconds: float
    starts: int
    idle_seconds: float


FULL = Scale(
    name="full",
    records=300_000,
    commands=60_000,
    rounds=3,
    requests_per_second=200,
    request_seconds=20,
    starts=5,
    idle_seconds=5,
)
QUICK = Scale(
    name="quick",
    records=100_000,
    commands=20_000,
    rounds=3,
    requests_per_second=200,
    request_seconds=5,
    starts=3,
    idle_seconds=5,
)
TINY = Scale(
    name="tiny",
    records=2_000,
    commands=1_000,
    rounds=1,
    requests_per_second=100,
    request_seconds=0.5,
    starts=1,
    idle_seconds=0.2,
)
