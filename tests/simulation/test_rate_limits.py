"""Fleets in virtual time whose contracts have rate limits: waiting and parking lose, double and reorder nothing."""

from __future__ import annotations

import random
from collections import Counter
from functools import lru_cache

import pytest
from msgspec import structs
from tests.simulation import simulation
from tests.simulation.workload import Shape, spec_of

from omnibase_infra.shared.core.worker_spec import RateLimitSpec, WorkerSpec
from omnibase_infra.shared.runtime.rate_gate import Held, RateGate
from omnibase_infra.shared.runtime.records import Record

SEEDS = 90


@lru_cache
def limited(shape: Shape) -> WorkerSpec:
    """Return the workload's spec with limits that its inputs run into, drawn from its shape."""
    draw = random.Random(repr(shape))
    limits = [
        RateLimitSpec(
            per=draw.choice(["client", "operation"]),
            count=draw.choice([1, 5, 20]),
            seconds=1,
            burst=draw.choice([1, 5]),
        )
    ]
    if draw.random() < 0.5:
        limits.append(RateLimitSpec(per="operation", count=draw.choice([1, 5]), seconds=1, burst=3, operation="often"))
    return structs.replace(spec_of(shape), rate_limits=tuple(limits))


def test_what_waits_or_is_parked_is_neither_lost_nor_doubled_nor_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    held: Counter[bool] = Counter()
    split = RateGate.split

    def counted(gate: RateGate, operation: str, records: list[Record]) -> tuple[list[Record], list[Held]]:
        runnable, waiting = split(gate, operation, records)
        held.update(one.park for one in waiting)
        return runnable, waiting

    monkeypatch.setattr(RateGate, "split", counted)
    monkeypatch.setattr(simulation, "spec_of", limited)
    for seed in range(SEEDS):
        problems = simulation.run(seed).problems
        assert not problems, f"seed {seed}: {problems[:5]}"
    assert held[False] > 100, "records waited in their lanes"
    assert held[True] > 20, "records were parked"
