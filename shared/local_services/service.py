"""What a local service is: the protocol, and the plain values that cross it.

One class per service stands behind `LocalService`; `fleet` drives them and knows nothing else of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

ServiceState = Literal["running", "unhealthy", "stopped", "external"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of work on a service, reported when it starts and again when it is done.

    Attributes:
        service: name of the service, for example `kafka`.
        step: what is being done, for example `fetching 46 jars`.
        done: whether the step has ended.
        seconds: time the step took; 0 until it is done.
    """

    service: str
    step: str
    done: bool = False
    seconds: float = 0.0


ProgressCallback = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """Report to nobody: the default callback."""


def waiting_for(service: str, progress: ProgressCallback) -> Callable[[str], None]:
    """Return what tells `progress` that a lock is awaited, given its holder."""
    return lambda holder: progress(Progress(service, f"waiting for {holder}", done=True))


class Stopwatch:
    """Report a step when it begins and, if it did not fail, when it is done: `with Stopwatch(...):`."""

    def __init__(self, service: str, step: str, progress: ProgressCallback) -> None:
        self._event = Progress(service, step)
        self._progress = progress
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()
        self._progress(self._event)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._progress(replace(self._event, done=True, seconds=time.monotonic() - self._began))


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service at one moment.

    Attributes:
        name: the service, for example `kafka`.
        state: `running` answers, `unhealthy` lives or is configured but does not answer, `stopped` has no process,
            `external` is given by the environment and answers.
        address: `host:port`, comma-separated for several; empty when unknown. Never holds a secret.
        version: of the server; empty when unknown.
        uptime_seconds: since its start, None when not started here.
        detail: why it is not healthy; empty otherwise.
        log_path: file with its output, None for external services.
    """

    name: str
    state: ServiceState
    address: str = ""
    version: str = ""
    uptime_seconds: float | None = None
    detail: str = ""
    log_path: Path | None = None

    @property
    def healthy(self) -> bool:
        """Return whether the service answers."""
        return self.state in ("running", "external")


class LocalService(Protocol):
    """A server on this machine, run from a folder of its own.

    Calls block, are made by one thread at a time, and come under the lock of the state folder when `fleet` makes
    them. Each may be repeated: what is done already is left as it is. Failures raise `LocalServiceError`.
    """

    @property
    def name(self) -> str:
        """Return the name used in commands, messages and folder names."""
        ...

    @property
    def version(self) -> str:
        """Return the version of the server that is started."""
        ...

    @property
    def log_path(self) -> Path:
        """Return the file that holds the server's output."""
        ...

    def prepare(self, progress: ProgressCallback = no_progress) -> None:
        """Get binaries and data ready; nothing is running afterwards that was not before."""
        ...

    def start(self, progress: ProgressCallback = no_progress) -> None:
        """Start the server unless it runs, and return when it answers. No process is left behind on a raise."""
        ...

    def stop(self) -> bool:
        """End the server gracefully, by force after a time-out. Returns whether one was running."""
        ...

    def kill(self) -> bool:
        """End the server at once as a power cut would (SIGKILL). Returns whether one was running."""
        ...

    def is_running(self) -> bool:
        """Return whether every process of this service lives; says nothing of its health."""
        ...

    def status(self) -> ServiceStatus:
        """Ask the server itself how it is, within a few seconds."""
        ...

    def variables(self) -> Mapping[str, str]:
        """Return the `OMNIBASE_*` variables under which it is reached; they may hold secrets."""
        ...

    def delete_data(self) -> None:
        """Remove everything the service keeps. It must not be running."""
        ...
