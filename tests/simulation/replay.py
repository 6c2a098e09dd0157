"""Play one seed again and print what happened: `python -m tests.simulation.replay SEED`."""

from __future__ import annotations

import sys

from tests.simulation.simulation import run


def main(arguments: list[str]) -> int:
    """Print the scenario, the trace and the problems of a seed; return 1 when there are problems."""
    result = run(int(arguments[0]))
    print(*result.trace, sep="\n")
    print(result.scenario)
    print(f"digest {result.digest}")
    print(*result.problems or ["no problem"], sep="\n")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
