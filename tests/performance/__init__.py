"""Benchmarks on real servers, side by side with what they are measured against. Front door: `make bench`."""
