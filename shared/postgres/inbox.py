"""The inbox: which messages have been processed. A claim is a row that lives and dies with the effect's transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import asyncpg
import msgspec
from asyncpg.pgproto.pgproto import UUID

from omnibase_infra.shared.core.errors import TransientError
from omnibase_infra.shared.core.ports import AlreadyProcessed, Claim, Fresh, InboxMessage, Reused, StoredOutput
from omnibase_infra.shared.postgres.errors import DEPENDENCY
from omnibase_infra.shared.postgres.queries import named_queries

_FRESH: Final = Fresh()
_REUSED: Final = Reused()
_ANY_DAY: Final = "DATE '2000-01-01'"
_MILLISECONDS_PER_DAY: Final = 86_400_000
_SECONDS_PER_DAY: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)


class GroupInbox(msgspec.Struct, frozen=True):
    """The inbox of one consumer group.

    Attributes:
        group: its full name; `number` stands for it in rows.
        timed_since_ms: Unix milliseconds of the first day whose keys begin with the time.
    """

    group: str
    number: int
    timed_since_ms: int

    def key(self, message: InboxMessage) -> UUID:
        """Return the key of a message. Stored for ever: the recipe must not change."""
        digest = message_digest(self.group, message)
        if not message.timed or message.day_ms < self.timed_since_ms:
            return UUID(digest)
        # The second of its day in front: a batch's rows then lie on a few pages of an index of any size.
        second = message.day_ms // 1000 % _SECONDS_PER_DAY
        return UUID(second.to_bytes(3, "big") + digest[3:])


def message_digest(group: str, message: InboxMessage) -> bytes:
    """Return 16 bytes that stand for a message in the inbox of a consumer group."""
    parts = (group, message.source, message.message_id, message.redrive_id)
    # Lengths in front, so that no two different quadruples give the same bytes.
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def inbox_day(message: InboxMessage) -> date:
    """Return the UTC day of a message, which its own time fixes, however late it is processed."""
    return _day(message.day_ms // _MILLISECONDS_PER_DAY)


@contextmanager
def partitions_may_change() -> Iterator[None]:
    """Let an insertion be repeated when its day got a partition of its own while it waited for the default one.

    Raises:
        TransientError: a later attempt finds the new partition.
    """
    try:
        yield
    except asyncpg.CheckViolationError as error:
        # Our tables have no check but the bounds of their partitions; nobody's data are wrong.
        raise TransientError("a partition of the inbox was added meanwhile", dependency=DEPENDENCY) from error


@lru_cache(maxsize=64)
def _day(days_since_epoch: int) -> date:
    return datetime.fromtimestamp(days_since_epoch * 86_400, UTC).date()


async def find_inbox(connection: Any, group: str) -> GroupInbox:
    """Return the inbox of a consumer group, which is added when it is new. Not inside a transaction that may roll back."""
    number = await find_or_add_group(connection, group)
    since: date = await connection.fetchval(named_queries()["find_key_format"])
    return GroupInbox(group, number, (since - _EPOCH).days * _MILLISECONDS_PER_DAY)


async def find_or_add_group(connection: Any, name: str) -> int:
    """Return the number of a consumer group. Not to be called inside a transaction that may roll back."""
    queries = named_queries()
    found = await connection.fetchval(queries["find_group"], name)
    if found is None:
        await connection.execute(queries["add_group"], name)
        found = await connection.fetchval(queries["find_group"], name)
    return int(found)


async def claim(connection: Any, group_id: int, messages: Sequence[InboxMessage], keys: Sequence[UUID]) -> list[Claim]:
    """Insert inbox rows and say which messages are new. One round trip when all are.

    Args:
        connection: with an open transaction.
        group_id: from `find_or_add_group`.
        messages: of different identities.
        keys: of the messages, by `GroupInbox.key`.

    Raises:
        ValueError: two messages have one identity.
        TransientError: a row was in the way and is gone.
    """
    if not messages:
        return []
    if len(set(keys)) != len(keys):
        raise ValueError("two messages of one identity in one claim")
    with partitions_may_change():
        inserted = await connection.fetch(
            named_queries()["claim_inbox"],
            group_id,
            [inbox_day(message) for message in messages],
            keys,
            [message.partition for message in messages],
            [message.offset for message in messages],
            [message.payload_hash for message in messages],
            [message.message_id for message in messages],
            [message.topic for message in messages],
        )
    if len(inserted) == len(messages):
        return [_FRESH] * len(messages)
    fresh = {row[0] for row in inserted}
    known = [(message, key) for message, key in zip(messages, keys, strict=True) if key not in fresh]
    processed = await read_processed(connection, known)
    return [
        _FRESH if key in fresh else processed[key] if key in processed else _vanished()
        for message, key in zip(messages, keys, strict=True)
    ]


async def read_processed(
    connection: Any, known: Sequence[tuple[InboxMessage, UUID]]
) -> dict[UUID, AlreadyProcessed | Reused]:
    """Return what was stored of those messages that were processed, by key."""
    keys_by_day: dict[date, list[UUID]] = {}
    for message, key in known:
        keys_by_day.setdefault(inbox_day(message), []).append(key)
    rows_by_key: dict[UUID, list[asyncpg.Record]] = {}
    for day, keys in keys_by_day.items():
        for row in await connection.fetch(_read_processed_of(day), keys):
            rows_by_key.setdefault(row["message_key"], []).append(row)
    return {key: _claim_of(message, rows_by_key[key]) for message, key in known if key in rows_by_key}


@lru_cache(maxsize=64)
def _read_processed_of(day: date) -> str:
    return named_queries()["read_processed"].replace(_ANY_DAY, f"DATE '{day.isoformat()}'")


def _claim_of(message: InboxMessage, rows: Sequence[asyncpg.Record]) -> AlreadyProcessed | Reused:
    if rows[0]["payload_hash"] != message.payload_hash:
        return _REUSED
    # A message without outputs gives one row whose topic is null.
    outputs = (StoredOutput(row["topic"], row["record_key"], row["value"]) for row in rows if row["topic"] is not None)
    return AlreadyProcessed(tuple(outputs))


def _vanished() -> Claim:
    raise TransientError("an inbox row was removed while it was being read", dependency=DEPENDENCY)
