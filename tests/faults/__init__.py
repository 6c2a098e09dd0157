"""Faults on real servers, each with the count of what was lost, doubled or reordered. Front door: `make faults`."""
