"""Servers for the time of a block, gone with their data after it, even if this process is killed in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omnibase_infra.shared.local_services.fleet import down, up
from omnibase_infra.shared.local_services.service import ProgressCallback, no_progress

# Waits for the end of its input, which comes when this process ends in whatever way; loads nothing before.
GUARD = """
import sys
sys.stdin.read()
from pathlib import Path
from omnibase_infra.shared.local_services import down
down(Path(sys.argv[1]), delete_data=True)
"""


@contextmanager
def temporary_services(
    state_dir: Path, *, only: Sequence[str] | None = None, progress: ProgressCallback = no_progress
) -> Iterator[dict[str, str]]:
    """Start servers in a folder of their own and yield the variables that reach them.

    For tests and demonstrations. A second process watches this one and stops the servers if it is killed.

    Args:
        state_dir: a folder that nothing else uses; its data are deleted at the end.
        only: names of services to start; default: all.
        progress: told of every step that takes time.

    Raises:
        LocalServiceError: a service could not be started or stopped.
    """
    guard = subprocess.Popen(
        [sys.executable, "-P", "-c", GUARD, str(state_dir.resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # An interrupt at the terminal is for us; the guard acts when we are gone.
        start_new_session=True,
    )
    try:
        yield up(state_dir, only=only, progress=progress)
    finally:
        down(state_dir, delete_data=True, progress=progress)
        # Only now: had `down` failed, the guard would try again after our end.
        guard.kill()
        guard.communicate()
