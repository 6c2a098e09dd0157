"""Ports for servers on the loopback address.

They are taken below the range from which the system gives ports to outgoing connections: a client that retries
against a stopped server in that range may be given the same port, connect to itself, and keep the server out.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError

LOOPBACK = "127.0.0.1"
LOWEST = 15_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
USUAL_EPHEMERAL_START = 32_768
ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Return whether a server could listen on that port of the loopback address now."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as candidate:
        # As servers do: connections of an earlier server that linger in TIME_WAIT do not count.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((LOOPBACK, port))
            candidate.listen(1)
        except OSError:
            return False
    return True


def choose(count: int, *, avoid: Sequence[int] = ()) -> list[int]:
    """Return `count` different free ports, none of `avoid`.

    Raises:
        LocalServiceError: none were found.
    """
    end = _ephemeral_start()
    chosen: list[int] = []
    for _ in range(ATTEMPTS):
        if len(chosen) == count:
            return chosen
        port = random.randrange(LOWEST, end)  # noqa: S311 - spread, not secrecy
        if port not in chosen and port not in avoid and is_free(port):
            chosen.append(port)
    raise LocalServiceError(f"no free port between {LOWEST} and {end} on {LOOPBACK} in {ATTEMPTS} tries")


def keep_or_choose(remembered: Sequence[int], count: int) -> list[int]:
    """Return the remembered ports where they are still free, and new ones in place of the others."""
    kept = [port if is_free(port) else 0 for port in remembered[:count]]
    kept += [0] * (count - len(kept))
    fresh = iter(choose(kept.count(0), avoid=[*remembered, *kept]))
    return [port or next(fresh) for port in kept]


def _ephemeral_start() -> int:
    try:
        start = int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except (FileNotFoundError, PermissionError):
        return USUAL_EPHEMERAL_START
    # A machine that gives out nearly all ports leaves no room below; then any port must do.
    return start if start > LOWEST + 1000 else USUAL_EPHEMERAL_START
