"""The journal of effects outside PostgreSQL: intents before, results after, each in a transaction of its own.

An intent exists from before an effect is begun until its result is stored; what a crash leaves behind is looked at by
whoever gets the message next. Both ends lock the intent's row, so that of two workers one goes first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from asyncpg.pgproto.pgproto import UUID

from omnibase_infra.shared.core.ports import Fresh, Held, InboxMessage, Intent, Reused, Unresolved
from omnibase_infra.shared.postgres.inbox import read_processed
from omnibase_infra.shared.postgres.queries import named_queries


async def intend(
    connection: Any,
    group_id: int,
    messages: Sequence[InboxMessage],
    keys: Sequence[UUID],
    owner: uuid.UUID,
    lease_seconds: float,
) -> list[Intent]:
    """Write intents down and say, in the order given, what is known of each message.

    Args:
        connection: with an open transaction at read committed; the intents count when it is committed.
        group_id: from `find_or_add_group`.
        messages: of different identities.
        keys: of the messages, by `GroupInbox.key`.
        owner: who is about to make the effects.
        lease_seconds: how long others wait for this owner.
    """
    queries = named_queries()
    lease = timedelta(seconds=lease_seconds)
    inserted = await connection.fetch(
        queries["intend"],
        group_id,
        owner,
        lease,
        keys,
        [message.payload_hash for message in messages],
        [message.message_id for message in messages],
        [message.topic for message in messages],
        [message.partition for message in messages],
        [message.offset for message in messages],
    )
    new = {row[0] for row in inserted}
    others = [key for key in keys if key not in new]
    # Waits for whoever stores a result at this moment; the row is gone then, and the inbox knows the message.
    rows = await connection.fetch(queries["lock_intents"], others) if others else []
    # Only now: a result stored before our intent was written must be seen, or the effect would be made again.
    processed = await read_processed(connection, list(zip(messages, keys, strict=True)))
    known: Mapping[UUID, Any] = {row["message_key"]: row for row in rows}
    intents = [
        processed[key] if key in processed else Fresh() if key in new else _standing(message, known.get(key))
        for message, key in zip(messages, keys, strict=True)
    ]
    if done := [key for key in new if key in processed]:
        await connection.execute(queries["withdraw_intents"], done, owner)
    ours = [key for key, intent in zip(keys, intents, strict=True) if isinstance(intent, Unresolved)]
    if ours:
        await connection.execute(queries["take_over_intents"], ours, owner, lease)
    return intents


def _standing(message: InboxMessage, row: Any) -> Intent:
    """Say what an intent that stood there already means. None: it was withdrawn meanwhile; the next call settles it."""
    if row is None or row["held"]:
        return Held()
    if row["payload_hash"] != message.payload_hash:
        return Reused()
    return Unresolved(row["attempts"])


async def remove(connection: Any, key: UUID) -> None:
    """Remove the intent of a message whose result is stored in the same transaction."""
    await connection.execute(named_queries()["conclude_intent"], key)


async def withdraw(connection: Any, keys: Sequence[UUID], owner: uuid.UUID) -> None:
    """Remove intents of an owner: nothing happened."""
    await connection.execute(named_queries()["withdraw_intents"], keys, owner)


async def give_up(connection: Any, keys: Sequence[UUID], owner: uuid.UUID) -> None:
    """End the leases of an owner: others need not wait."""
    await connection.execute(named_queries()["yield_intents"], keys, owner)
