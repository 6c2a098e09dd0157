"""Whole fleets in virtual time: one seed is one run. Replay a seed: `python -m tests.simulation.replay SEED`."""
