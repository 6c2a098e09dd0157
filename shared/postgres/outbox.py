"""The outbox: the outputs of a processed message, kept in the transaction of its effect, byte for byte.

Nothing marks a row as sent on the way: the input's offset is committed only when the broker has confirmed every
output, so a committed offset says it. Until then a redelivery of the input sends the stored rows again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncpg.pgproto.pgproto import UUID

from omnibase_infra.shared.core.ports import InboxMessage, StoredOutput
from omnibase_infra.shared.postgres.inbox import inbox_day, partitions_may_change
from omnibase_infra.shared.postgres.queries import named_queries


async def store(connection: Any, outputs: Sequence[tuple[InboxMessage, UUID, Sequence[StoredOutput]]]) -> None:
    """Insert the outputs of claimed messages, all in one round trip.

    Args:
        connection: with the transaction that holds the messages' inbox rows.
        outputs: message, its inbox key, and its outputs in the order they are to be produced.
    """
    rows = [
        (inbox_day(message), key, index, output.topic, output.key, output.value)
        for message, key, stored in outputs
        for index, output in enumerate(stored)
    ]
    if rows:
        with partitions_may_change():
            await connection.execute(named_queries()["store_outbox"], *zip(*rows, strict=True))
