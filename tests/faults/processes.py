"""What a process holds, as the system counts it: memory, threads, file descriptors."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Holding(msgspec.Struct, frozen=True):
    """What one process holds at a moment."""

    kilobytes: int
    threads: int
    descriptors: int


def holding(pid: int) -> Holding | None:
    """Return what a process holds; None when it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        descriptors = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        return None
    if "VmRSS" not in fields:
        return None  # it has ended and was not waited for yet
    return Holding(int(fields["VmRSS"].split()[0]), int(fields["Threads"]), descriptors)
