"""A lock between processes that is bounded in time and says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError

POLL_SECONDS = 0.05


@contextmanager
def file_lock(path: Path, *, timeout: float, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold `path` locked; the system frees it when the process ends, however it ends.

    Args:
        path: the lock file; made if missing, never removed.
        timeout: seconds to wait for another holder.
        on_wait: called once with who holds it when there is something to wait for.

    Raises:
        LocalServiceError: still held after `timeout`, with the holder; or the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LocalServiceError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        _acquire(descriptor, path, timeout, on_wait)
        holder = {"pid": os.getpid(), "command": Path(sys.argv[0]).name}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, timeout: float, on_wait: Callable[[str], None] | None) -> None:
    deadline = time.monotonic() + timeout
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _describe_holder(descriptor)
            if time.monotonic() > deadline:
                raise LocalServiceError(
                    f"{path} is locked by {holder} for more than {timeout:g} s", hint="wait for it, or end it"
                ) from None
            if on_wait is not None and not told:
                on_wait(holder)
                told = True
            time.sleep(POLL_SECONDS)
        else:
            return


def _describe_holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} ({holder['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has the lock and has not yet written its name
