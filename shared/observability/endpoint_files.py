"""Where the workers of this machine listen: each leaves a small file in the state folder while it runs.

So `omninode metrics` finds processes whose ports were picked by the system. In a cluster nothing needs this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger

FOLDER: Final = "endpoints"


class WorkerEndpoint(msgspec.Struct, frozen=True):
    """A process and the address of its endpoints, `http://host:port`."""

    worker: str
    realm: str
    pid: int
    address: str


@contextmanager
def announced(state: Path, endpoint: WorkerEndpoint) -> Iterator[None]:
    """Leave the file for the length of the block. Without a state folder, as in a container, there is nobody to tell.

    A folder that cannot be written costs the announcement, not the worker.
    """
    path = state / FOLDER / f"{endpoint.worker}-{endpoint.pid}.json"
    written = state.is_dir() and _write(path, endpoint)
    try:
        yield
    finally:
        if written:
            path.unlink(missing_ok=True)


def announced_endpoints(state: Path) -> list[WorkerEndpoint]:
    """Return the endpoints of processes that live, sorted; files of processes that were killed are removed."""
    found = []
    for path in sorted((state / FOLDER).glob("*.json")):
        try:
            endpoint = msgspec.json.decode(path.read_bytes(), type=WorkerEndpoint)
        except (OSError, msgspec.DecodeError):  # gone since, or half written by a full disk
            continue
        if _lives(endpoint.pid):
            found.append(endpoint)
        else:
            path.unlink(missing_ok=True)
    return found


def _write(path: Path, endpoint: WorkerEndpoint) -> bool:
    half = path.with_suffix(".new")
    try:
        path.parent.mkdir(exist_ok=True)
        half.write_bytes(msgspec.json.encode(endpoint))
        half.replace(path)
    except OSError as error:
        get_logger().warning(LogEvent.ENDPOINT_NOT_ANNOUNCED, path=str(path), error=error)
        return False
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
