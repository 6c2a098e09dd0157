"""Thousands of fleets in virtual time: whatever happens in whatever order, the promises hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.simulation import draw, run

REPOSITORY = Path(__file__).resolve().parents[2]
# The budget is a number of seeds, not of seconds: equal everywhere. `OMNIBASE_SIMULATION_SEEDS` looks further.
SEEDS = int(os.environ.get("OMNIBASE_SIMULATION_SEEDS", "2000"))
CHUNKS = 6


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_is_lost_or_doubled_and_order_is_kept_whatever_happens(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        result = run(seed)
        if result.problems:
            pytest.fail(
                f"seed {seed}: "
                + "\n  ".join(result.problems[:5])
                + f"\nreplay it: python -m tests.simulation.replay {seed}"
            )


def test_a_seed_plays_the_same_run_again() -> None:
    for seed in range(20):
        assert run(seed).trace == run(seed).trace


def test_a_replay_in_another_process_plays_the_same_run() -> None:
    seed = next(seed for seed in range(100) if draw(seed).shuffled and draw(seed).accidents >= 4)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    played = subprocess.run(
        [sys.executable, "-m", "tests.simulation.replay", str(seed)],
        cwd=REPOSITORY,
        env={**environment, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert played.returncode == 0, played.stdout + played.stderr
    assert f"digest {run(seed).digest}" in played.stdout


def test_runs_differ_and_hold_what_they_are_for() -> None:
    """Guards the simulation itself: accidents, repeats and failures do take place."""
    traces = [run(seed).trace for seed in range(100)]
    lines = [line.split(" ", 1)[1] for trace in traces for line in trace]

    assert len({tuple(trace) for trace in traces}) == len(traces)
    for happening in ("crash", "freeze", "thaw", "cut off", "stop", "brokers away", "database away", "rebalance"):
        assert any(line.startswith(happening) for line in lines), happening
    assert sum(line.startswith("dead letter") for line in lines) > 100
    effects = [
        (number, line.split()[1]) for number, trace in enumerate(traces) for line in trace if " effect " in f" {line} "
    ]
    assert len(effects) > 1000
