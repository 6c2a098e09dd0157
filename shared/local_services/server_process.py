"""One server process: started in a session of its own, found again by its pid file, ended within a bound."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import process_identity
from omnibase_infra.shared.local_services.log_reader import tail
from omnibase_infra.shared.local_services.private_files import write_private
from omnibase_infra.shared.local_services.process_identity import ProcessIdentity
from omnibase_infra.shared.local_services.unprivileged_user import UnprivilegedUser, popen_arguments

POLL_SECONDS = 0.02
KILL_TIMEOUT_SECONDS = 10.0
EXEC_TIMEOUT_SECONDS = 5.0
LOG_LINES_IN_ERRORS = 15
ROTATE_LOG_BYTES = 20 * 1024 * 1024
BASE_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class _DetachedPopen(subprocess.Popen[bytes]):
    """A child that is meant to outlive this process, so its disposal is no leak to warn of."""

    def __del__(self, **_: object) -> None:
        self.poll()


# Children of this very process must be reaped here, else they stay as zombies after their end.
_children: dict[int, _DetachedPopen] = {}


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]


@dataclass(frozen=True, slots=True)
class PidRecord:
    """What a pid file holds. `started_at` is wall-clock time in seconds since the epoch."""

    pid: int
    started: str
    marker: str
    started_at: float


class ServerProcess:
    """The process of one server, alive or not.

    Args:
        title: what errors call it, for example `kafka broker 1`.
        pid_file: where the process is remembered between commands.
        log_path: file that receives its output.
        marker: an argument that its command line holds and no other process's does.
        stop_signals: signals of a graceful end, each with the seconds to wait for it before the next.
    """

    def __init__(
        self,
        title: str,
        *,
        pid_file: Path,
        log_path: Path,
        marker: str,
        stop_signals: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10.0),),
    ) -> None:
        self.title = title
        self.pid_file = pid_file
        self.log_path = log_path
        self.marker = marker
        self._stop_signals = stop_signals

    def record(self) -> PidRecord | None:
        """Return what the pid file says if exactly that process lives, else None."""
        try:
            record = PidRecord(**json.loads(self.pid_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # no file, or one cut short by a crash: nothing is known to run
        except PermissionError as error:
            raise LocalServiceError(f"{self.pid_file} belongs to another user, who started {self.title}") from error
        _reap(record.pid)
        # The marker is ours, not the file's: a copied folder must not claim the original's process.
        alive = process_identity.is_alive(ProcessIdentity(record.pid, record.started, self.marker))
        return record if alive else None

    def identity(self) -> ProcessIdentity | None:
        """Return the living process, None when there is none."""
        record = self.record()
        return ProcessIdentity(record.pid, record.started, self.marker) if record else None

    def is_running(self) -> bool:
        """Return whether the process lives."""
        return self.record() is not None

    def uptime_seconds(self) -> float | None:
        """Return the seconds since the start, None when it does not run."""
        record = self.record()
        return max(0.0, time.time() - record.started_at) if record else None

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        user: UnprivilegedUser | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start the process in a new session, its output appended to the log.

        Raises:
            LocalServiceError: the program cannot be executed or ended at once.
        """
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._rotate_log()
        try:
            with self.log_path.open("ab") as log:
                child = _DetachedPopen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**BASE_ENVIRONMENT, **(environment or {})},
                    cwd=cwd,
                    **popen_arguments(user),
                )
        except OSError as error:
            raise LocalServiceError(f"{self.title}: {command[0]} cannot be run: {error}") from error
        _children[child.pid] = child
        try:
            self._remember(self._identify_child(child))
        except BaseException:
            child.kill()
            child.wait(KILL_TIMEOUT_SECONDS)
            raise

    def _identify_child(self, child: _DetachedPopen) -> ProcessIdentity:
        # The system lets us go on a moment before the child's new command line can be read.
        deadline = time.monotonic() + EXEC_TIMEOUT_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            if (identity := process_identity.identify(child.pid, self.marker)) is not None:
                return identity
            time.sleep(0.001)
        raise self.failure("ended at once")

    def wait_until_ready(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Wait until `ready()` holds while the process lives.

        Raises:
            LocalServiceError: the process ended, or `timeout` seconds passed; with the last log lines.
        """
        deadline = time.monotonic() + timeout
        while True:
            alive = self.is_running()
            if alive and ready():
                return
            if not alive:
                raise self.failure("ended before it answered")
            if time.monotonic() > deadline:
                raise self.failure(f"did not answer within {timeout:g} s")
            time.sleep(POLL_SECONDS)

    def stop(self) -> bool:
        """End the process by its graceful signals, by SIGKILL after them. Returns whether it was running.

        Raises:
            LocalServiceError: it survived even SIGKILL for a while.
        """
        identity = self._identity_or_orphan()
        if identity is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        for number, seconds in self._stop_signals:
            _signal(identity.pid, number)
            if self._wait_for_end([identity], seconds):
                self.pid_file.unlink(missing_ok=True)
                return True
        return self.kill()

    def kill(self) -> bool:
        """End the process and its descendants by SIGKILL. Returns whether it was running.

        Raises:
            LocalServiceError: it survived for a while.
        """
        identity = self._identity_or_orphan()
        if identity is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        family = [identity, *process_identity.descendants(identity.pid)]
        for member in family:
            if process_identity.is_same_alive(member):
                _signal(member.pid, signal.SIGKILL)
        if not self._wait_for_end(family, KILL_TIMEOUT_SECONDS):
            raise LocalServiceError(f"{self.title}: process {identity.pid} does not end, not even by SIGKILL")
        self.pid_file.unlink(missing_ok=True)
        return True

    def _identity_or_orphan(self) -> ProcessIdentity | None:
        # A pid file may be lost: removed by people, or never written because we ended just after the start.
        return self.identity() or process_identity.find(self.marker)

    def failure(self, reason: str) -> LocalServiceError:
        """Return the error that says what happened to this process, with the last log lines."""
        lines = tail(self.log_path, LOG_LINES_IN_ERRORS)
        text = "\n  ".join(lines) if lines else "(the log is empty)"
        return LocalServiceError(f"{self.title} {reason}; last lines of {self.log_path}:\n  {text}")

    def _remember(self, identity: ProcessIdentity) -> None:
        record = PidRecord(identity.pid, identity.started, identity.marker, time.time())
        write_private(self.pid_file, json.dumps(asdict(record)) + "\n")

    def _rotate_log(self) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > ROTATE_LOG_BYTES:
            self.log_path.replace(self.log_path.with_name(self.log_path.name + ".1"))

    @staticmethod
    def _wait_for_end(family: Sequence[ProcessIdentity], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            for member in family:
                _reap(member.pid)
            if not any(process_identity.is_same_alive(member) for member in family):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself in between: what was wanted
    except PermissionError as error:
        raise LocalServiceError(f"process {pid} belongs to another user and cannot be ended") from error
