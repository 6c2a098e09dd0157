"""The parts of `omninode demo`: a stage of its own, workers, load, bad input, proofs and the report."""
