"""Reads the end of a log, and what is added to it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

POLL_SECONDS = 0.1


def tail(path: Path, lines: int, *, start: int = 0, end: int | None = None) -> list[str]:
    """Return the last lines of a text file, without reading the whole of a large one; [] if it is missing.

    Only bytes from `start` to `end` are looked at.
    """
    if lines <= 0 or not path.exists():
        return []
    with path.open("rb") as file:
        size = max(0, (file.seek(0, os.SEEK_END) if end is None else end) - start)
        block = 0
        content = b""
        while block < size and content.count(b"\n") <= lines:
            block = min(size, block + 65536)
            file.seek(start + size - block)
            content = file.read(block)
    return content.decode("utf-8", errors="replace").splitlines()[-lines:]


def follow_log(path: Path, *, lines: int = 50) -> Iterator[str]:
    """Yield the last lines of a log and then, without end, each line that is added.

    A log that is missing is waited for; one that is replaced or cut is read from its beginning.
    """
    while not path.exists():
        time.sleep(POLL_SECONDS)
    status = path.stat()
    position, inode = status.st_size, status.st_ino
    yield from tail(path, lines, end=position)
    rest = b""
    while True:
        time.sleep(POLL_SECONDS)
        if not path.exists():
            continue  # between two files
        status = path.stat()
        if status.st_ino != inode or status.st_size < position:
            position, inode, rest = 0, status.st_ino, b""
        with path.open("rb") as file:
            file.seek(position)
            added = file.read()
        position += len(added)
        *complete, rest = (rest + added).split(b"\n")
        for line in complete:
            yield line.decode("utf-8", errors="replace")
