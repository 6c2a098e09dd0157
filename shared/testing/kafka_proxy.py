"""A proxy that tells a Kafka client's connections apart by what they ask: those to the group coordinator, and others.

librdkafka talks to the coordinator on a connection of its own, also when that broker leads partitions.
"""

from __future__ import annotations

import struct
from typing import Final

from omnibase_infra.shared.testing.tcp_proxy import Connection, Watch

COORDINATOR: Final = "coordinator"
# https://kafka.apache.org/protocol#protocol_api_keys: OffsetCommit, OffsetFetch, JoinGroup, Heartbeat, LeaveGroup,
# SyncGroup, ConsumerGroupHeartbeat.
_GROUP_REQUESTS: Final = frozenset({8, 9, 11, 12, 13, 14, 68})
_HEAD: Final = struct.Struct(">ih")


def mark_coordinators() -> Watch:
    """Return what marks a connection `COORDINATOR` once it carries a request of a group member."""
    buffer = bytearray()
    skip = 0

    def watch(connection: Connection, chunk: bytes) -> None:
        nonlocal skip
        buffer.extend(chunk)
        while True:
            taken = min(skip, len(buffer))
            del buffer[:taken]
            skip -= taken
            if skip or len(buffer) < _HEAD.size:
                return
            size, request = _HEAD.unpack_from(buffer)
            if request in _GROUP_REQUESTS:
                connection.marks.add(COORDINATOR)
            skip = 4 + size

    return watch


def is_coordinator(connection: Connection) -> bool:
    """Return whether a group member has used this connection to talk to its coordinator."""
    return COORDINATOR in connection.marks
