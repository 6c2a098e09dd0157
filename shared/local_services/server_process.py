"""One server process: started in a session of its own, found again by its pid file, ended within a bound."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

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
COMPLAINTS_IN_ERRORS = 8
OUTPUT_LINES_SEARCHED = 2000
COMPLAINT = re.compile(r"\b(ERROR|FATAL|PANIC)\b|Exception|^Error")
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


class PidRecord(msgspec.Struct, frozen=True):
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
        self.stop_signals = stop_signals
        self._log_start = 0

    def record(self) -> PidRecord | None:
        """Return what the pid file says if exactly that process lives, else None."""
        record = self._read_pid_file()
        return record if record is not None and process_identity.is_alive(self._identity(record)) else None

    def _read_pid_file(self) -> PidRecord | None:
        try:
            record = msgspec.json.decode(self.pid_file.read_bytes(), type=PidRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None  # no file, or one that a crash damaged: nothing is known to run
        except PermissionError as error:
            raise LocalServiceError(f"{self.pid_file} belongs to another user, who started {self.title}") from error
        _reap(record.pid)
        return record

    def _identity(self, record: PidRecord) -> ProcessIdentity:
        # The marker is ours, not the file's: a copied folder must not claim the original's process.
        return ProcessIdentity(record.pid, record.started, self.marker)

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
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
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

    def stop(self) -> bool:
        """End the process by its graceful signals, by SIGKILL after them. Returns whether it was running.

        Raises:
            LocalServiceError: it survived even SIGKILL for a while.
        """
        return stop_together([self])

    def kill(self) -> bool:
        """End the process and its descendants by SIGKILL. Returns whether it was running.

        Raises:
            LocalServiceError: it survived for a while.
        """
        identity = self.identity_or_orphan()
        if identity is not None:
            family = [identity, *process_identity.descendants(identity.pid)]
            for member in family:
                _signal(member, signal.SIGKILL)
            if not _wait_for_end(family, KILL_TIMEOUT_SECONDS):
                raise LocalServiceError(f"{self.title}: process {identity.pid} does not end, not even by SIGKILL")
        self.pid_file.unlink(missing_ok=True)
        return identity is not None

    def identity_or_orphan(self) -> ProcessIdentity | None:
        """Return what is to be ended before another can start: it lives, it is about to end, or its pid file is lost.

        A pid file is lost when people remove it, and when we were killed before it was written.
        """
        record = self._read_pid_file()
        if record is not None and process_identity.is_ours(self._identity(record)):
            return self._identity(record)
        return process_identity.find(self.marker)

    def failure(self, reason: str) -> LocalServiceError:
        """Return the error that says what happened to this process, with the last log lines."""
        lines = self._output()
        last = lines[-LOG_LINES_IN_ERRORS:]
        # A server that gives up says why and then tells at length how it shuts down.
        complaints = [line for line in lines[:-LOG_LINES_IN_ERRORS] if COMPLAINT.search(line)][-COMPLAINTS_IN_ERRORS:]
        text = "\n  ".join([*complaints, *(["..."] if complaints else []), *last]) or "(it wrote nothing)"
        return LocalServiceError(
            f"{self.title} {reason}; from {self.log_path}:\n  {text}",
            hint="if its data are damaged, `omninode infra down --delete-data` removes them",
        )

    def said(self, text: str) -> bool:
        """Return whether the process that was started last wrote `text`."""
        return any(text in line for line in self._output())

    def _output(self) -> list[str]:
        return tail(self.log_path, OUTPUT_LINES_SEARCHED, start=self._log_start)

    def _remember(self, identity: ProcessIdentity) -> None:
        record = PidRecord(identity.pid, identity.started, identity.marker, time.time())
        write_private(self.pid_file, msgspec.json.encode(record).decode() + "\n")

    def _rotate_log(self) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > ROTATE_LOG_BYTES:
            self.log_path.replace(self.log_path.with_name(self.log_path.name + ".1"))


def wait_until_ready(processes: Sequence[ServerProcess], ready: Callable[[], bool], *, timeout: float) -> None:
    """Wait until `ready()` holds while all processes live.

    Raises:
        LocalServiceError: one ended, or `timeout` seconds passed; with the last log lines.
    """
    deadline = time.monotonic() + timeout
    while True:
        if ended := [process for process in processes if not process.is_running()]:
            raise ended[0].failure("ended before it answered")
        if ready():
            return
        if time.monotonic() > deadline:
            raise processes[0].failure(f"did not answer within {timeout:g} s")
        time.sleep(POLL_SECONDS)


def stop_together(processes: Sequence[ServerProcess]) -> bool:
    """End processes of one kind by their graceful signals at the same time, by SIGKILL after them.

    Members of a quorum do not end well one by one: the last ones would wait for a majority.

    Returns whether one was running.

    Raises:
        LocalServiceError: one survived even SIGKILL for a while.
    """
    running = [found for process in processes if (found := process.identity_or_orphan()) is not None]
    for number, seconds in processes[0].stop_signals if running else ():
        for identity in running:
            _signal(identity, number)
        if _wait_for_end(running, seconds):
            break
    # Those that still live are ended; for the others this removes the pid file.
    for process in processes:
        process.kill()
    return bool(running)


def _wait_for_end(family: Sequence[ProcessIdentity], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        for member in family:
            _reap(member.pid)
        if not any(process_identity.has_not_ended(member) for member in family):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)


def _signal(process: ProcessIdentity, number: signal.Signals) -> None:
    if not process_identity.has_not_ended(process):
        return  # it ended by itself, and its number may be another's by now
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return  # it ended in between: what was wanted
    except PermissionError as error:
        raise LocalServiceError(f"process {process.pid} belongs to another user and cannot be ended") from error
