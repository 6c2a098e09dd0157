"""Asks a broker who it is over its own wire protocol: cheaper than a client, and it names the cluster.

Metadata request version 2, for no topics. https://kafka.apache.org/protocol#The_Messages_Metadata
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

METADATA = 3
METADATA_VERSION = 2
CLIENT_ID = b"omninode-infra"
LARGEST_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What one broker says of its cluster: its id, and the ids of the brokers that are up."""

    cluster_id: str
    broker_ids: frozenset[int]


def ask_cluster(host: str, port: int, *, timeout: float) -> ClusterView | None:
    """Return the cluster as the broker at this address sees it; None when none answers within `timeout` seconds."""
    header = struct.pack(">hhih", METADATA, METADATA_VERSION, 1, len(CLIENT_ID)) + CLIENT_ID
    request = header + struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _read(connection, 4))
            if not 0 < size <= LARGEST_ANSWER:
                return None
            return _decode(_read(connection, size))
    except (OSError, EOFError, struct.error, UnicodeDecodeError):
        return None  # nobody listens, or it is not a broker


def _read(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def _decode(answer: bytes) -> ClusterView:
    offset = 4  # correlation id

    def take(pattern: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from(f">{pattern}", answer, offset)
        offset += struct.calcsize(pattern)
        return int(value)

    def text() -> str:
        nonlocal offset
        length = max(0, take("h"))  # -1 is null
        value = answer[offset : offset + length].decode()
        offset += length
        return value

    brokers = set()
    for _ in range(take("i")):
        brokers.add(take("i"))
        text()  # host
        take("i")  # port
        text()  # rack
    return ClusterView(text(), frozenset(brokers))
