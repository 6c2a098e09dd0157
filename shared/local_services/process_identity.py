"""Which process is it: a pid alone names whoever got the number last.

A process is known by its pid, the moment it started and an argument of its command line. Linux tells by
`/proc`, other systems by `ps`.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PS_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be mistaken for another.

    Attributes:
        pid: its number.
        started: an opaque text that differs for each process that ever had this number, also over reboots.
        marker: one whole argument of its command line, for example the path of its configuration.
    """

    pid: int
    started: str
    marker: str


def identify(pid: int, marker: str) -> ProcessIdentity | None:
    """Return the identity of a living process; None if there is none with that pid and argument."""
    if pid <= 0:
        return None
    found = _from_proc(pid) if _has_proc() else _from_ps(pid)
    if found is None:
        return None
    started, command = found
    # Padded, so that a path does not match a longer one; `ps` and `/proc` both end up as one line.
    return ProcessIdentity(pid, started, marker) if f" {marker} " in f" {command} " else None


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether exactly this process still runs; one that ended and was not reaped does not."""
    return identify(identity.pid, identity.marker) == identity


def is_ours(identity: ProcessIdentity) -> bool:
    """Return whether the process is still there and has the marker, or no command line any more because it ends."""
    current = _from_proc(identity.pid) if _has_proc() else _from_ps(identity.pid)
    if current is None or current[0] != identity.started:
        return False
    return not current[1] or f" {identity.marker} " in f" {current[1]} "


def find(marker: str) -> ProcessIdentity | None:
    """Return the living process that has `marker` as an argument; the eldest of several."""
    pids = sorted(_all_pids_of_proc()) if _has_proc() else _all_pids_of_ps(marker)
    for pid in pids:
        if (identity := identify(pid, marker)) is not None:
            return identity
    return None


def descendants(pid: int) -> list[ProcessIdentity]:
    """Return the living descendants of a process, parents before children; their marker is empty."""
    parents = _parents_of_proc() if _has_proc() else _parents_of_ps()
    found: list[int] = []
    frontier = [pid]
    while frontier:
        parent = frontier.pop()
        children = [child for child, its_parent in parents.items() if its_parent == parent]
        found += children
        frontier += children
    return [identity for child in found if (identity := _identify_any(child)) is not None]


def _identify_any(pid: int) -> ProcessIdentity | None:
    found = _from_proc(pid) if _has_proc() else _from_ps(pid)
    return ProcessIdentity(pid, found[0], "") if found is not None else None


def has_not_ended(identity: ProcessIdentity) -> bool:
    """Return whether the process is still there, if only to end: it has no command line then, but holds its ports."""
    current = _identify_any(identity.pid)
    return current is not None and current.started == identity.started


def works_in(pid: int, folder: Path) -> bool:
    """Return whether a process lives that has this folder as its working directory or, without `/proc`, an argument."""
    if not _has_proc():
        return identify(pid, str(folder)) is not None
    if _from_proc(pid) is None:
        return False
    try:
        return (PROC / str(pid) / "cwd").samefile(folder)
    except OSError:
        return False  # ended meanwhile, or not ours to look into: then it is no server of ours


def _has_proc() -> bool:
    return (PROC / "self" / "stat").exists()


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses itself; fields are counted after it.
    return text.rpartition(")")[2].split()


def _from_proc(pid: int) -> tuple[str, str] | None:
    fields = _stat_fields(pid)
    if fields is None or fields[0] == "X":
        return None
    # A first thread that ended may have others that did not yet, and with them the ports and files of the process.
    if fields[0] == "Z" and int(fields[17]) <= 1:
        return None
    try:
        arguments = (PROC / str(pid) / "cmdline").read_bytes()
        boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    command = arguments.decode("utf-8", errors="surrogateescape").replace("\0", " ").strip()
    return f"{boot}:{fields[19]}", command


def _all_pids_of_proc() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _parents_of_proc() -> dict[int, int]:
    pairs = ((pid, _stat_fields(pid)) for pid in _all_pids_of_proc())
    return {pid: int(fields[1]) for pid, fields in pairs if fields is not None}


def _ps(*arguments: str) -> list[str]:
    result = subprocess.run(
        ["ps", *arguments], capture_output=True, text=True, check=False, timeout=PS_TIMEOUT_SECONDS, env={"LC_ALL": "C"}
    )
    return result.stdout.splitlines()


def _from_ps(pid: int) -> tuple[str, str] | None:
    lines = _ps("-ww", "-o", "state=,lstart=,command=", "-p", str(pid))
    if not lines:
        return None
    state, *rest = lines[0].split(None, 6)
    if state.startswith("Z") or len(rest) < 6:
        return None
    # lstart is five words: weekday, month, day, time, year.
    return " ".join(rest[:5]), rest[5].strip()


def _all_pids_of_ps(marker: str) -> list[int]:
    lines = _ps("-ww", "-axo", "pid=,command=")
    return sorted(int(line.split(None, 1)[0]) for line in lines if marker in line)


def _parents_of_ps() -> dict[int, int]:
    return {int(pid): int(parent) for pid, parent in (line.split() for line in _ps("-axo", "pid=,ppid="))}
