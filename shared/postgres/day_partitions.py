"""The partitions of inbox and outbox, one a day: which there are, adding one, dropping one, emptying the default.

Each change is one short transaction under an advisory lock, so that of many processes one makes it. None waits long
for a lock: whatever waits for an exclusive one holds up all that come after it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any, Final

import asyncpg
import msgspec

# The inbox says how old a message is; the other tables hold more about it, under the same day and key.
INBOX: Final = "inbox"
FOLLOWERS: Final = ("outbox",)
TABLES: Final = (INBOX, *FOLLOWERS)

# Of `pg_try_advisory_xact_lock`; any number that nothing else uses.
_LOCK_KEY: Final = 0x6F6D6E69_64617973
_STEP_SECONDS: Final = 300.0
# More would hold up for too long who needs the rows; they stay where they are then.
MOST_MOVED_ROWS: Final = 20_000
SWEEP_ROWS: Final = 5_000
# A day is removed whole before its rows would need freezing, so vacuum is for rolled-back rows alone.
_STORAGE: Final = "autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0.2"
_BOUND: Final = re.compile(r"FROM \((?:MINVALUE|'(?P<lower>[0-9-]+)')\) TO \('(?P<upper>[0-9-]+)'\)")

_PARTITIONS: Final = """\
SELECT parent.relname AS parent, leaf.relname AS name, pg_get_expr(leaf.relpartbound, leaf.oid) AS bound
FROM pg_inherits
JOIN pg_class AS parent ON parent.oid = inhparent
JOIN pg_class AS leaf ON leaf.oid = inhrelid
WHERE parent.relnamespace = 'omnibase'::regnamespace AND parent.relkind = 'p' AND parent.relname = ANY($1::text[])
ORDER BY leaf.relname"""

_COUNT_IN_DEFAULT: Final = (
    "SELECT count(*) FROM (SELECT FROM omnibase.{table}_default WHERE day = $1 LIMIT $2) AS found"
)
_MOVE_FROM_DEFAULT: Final = """\
WITH moved AS (DELETE FROM omnibase.{table}_default WHERE day = $1 RETURNING *)
INSERT INTO omnibase.{leaf} SELECT * FROM moved"""

_LATE: Final = "SELECT day, message_key FROM omnibase.{leaf} WHERE processed_at >= $1 LIMIT $2"
_KEEP_LATE: Final = """\
INSERT INTO omnibase.{table}
SELECT gone.* FROM omnibase.{leaf} AS gone
JOIN unnest($1::date[], $2::uuid[]) AS late (day, message_key) USING (day, message_key)"""

_SWEEP: Final = """\
WITH old AS (
    DELETE FROM omnibase.inbox_default WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM omnibase.inbox_default WHERE processed_at < $1 ORDER BY processed_at LIMIT $2
    ))
    RETURNING day, message_key
){followers}
SELECT count(*) FROM old"""
_SWEEP_FOLLOWER: Final = """,
{table}_gone AS (
    DELETE FROM omnibase.{table}_default AS f USING old WHERE f.day = old.day AND f.message_key = old.message_key
)"""

_SWEEP_INTENTS: Final = """\
WITH old AS (
    DELETE FROM omnibase.effect_intent WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM omnibase.effect_intent WHERE intended_at < $1 LIMIT $2
    ))
    RETURNING message_key
)
SELECT count(*) FROM old"""


class BusyError(Exception):
    """Another process is changing the partitions at this moment."""


class KeptError(Exception):
    """A change was left undone, for the reason given: trying later is all there is to do."""


class DayPartition(msgspec.Struct, frozen=True):
    """A partition of one table: the days from `lower` (None: from the first) to before `upper`."""

    table: str
    name: str
    lower: date | None
    upper: date

    def holds(self, day: date) -> bool:
        """Return whether rows of this day lie here."""
        return day < self.upper and (self.lower is None or self.lower <= day)


async def read_partitions(connection: Any) -> list[DayPartition]:
    """Return the partitions of all tables but their defaults."""
    async with connection.transaction():
        await connection.execute("SET LOCAL datestyle = 'ISO, YMD'")
        rows = await connection.fetch(_PARTITIONS, TABLES)
    found: list[DayPartition] = []
    for row in rows:
        match = _BOUND.search(row["bound"])
        if match is not None:
            lower = match["lower"]
            found.append(
                DayPartition(
                    row["parent"],
                    row["name"],
                    date.fromisoformat(lower) if lower else None,
                    date.fromisoformat(match["upper"]),
                )
            )
    return found


async def add_day(connection: Any, day: date, tables: Iterable[str], lock_seconds: float) -> list[str]:
    """Give a day a partition in these tables, return their names; rows in the default partition move there.

    Claims and stores go on meanwhile: neither waits for anything but a row of the default partition.

    Raises:
        BusyError: another process is at it.
        KeptError: too many rows of the day lie in the default partition; the day stays there.
        asyncpg.LockNotAvailableError: the default partition was in use for `lock_seconds`.
    """
    following = date.fromordinal(day.toordinal() + 1)
    added: list[str] = []
    async with _change(connection, lock_seconds):
        # In the order in which work touches them, so that nobody waits crosswise.
        for table in [name for name in TABLES if name in set(tables)]:
            leaf = f"{table}_{day:%Y%m%d}"
            await connection.execute(
                f"CREATE TABLE omnibase.{leaf} (LIKE omnibase.{table} INCLUDING ALL) WITH ({_STORAGE})"  # sql: names of our own, by day
            )
            await connection.execute(
                f"LOCK TABLE omnibase.{table}_default IN ACCESS EXCLUSIVE MODE"
            )  # sql: names of our own, by day
            await _move_from_default(connection, table, leaf, day)
            await connection.execute(
                f"ALTER TABLE omnibase.{table} ATTACH PARTITION omnibase.{leaf} "  # sql: names of our own, by day
                f"FOR VALUES FROM ('{day:%Y-%m-%d}') TO ('{following:%Y-%m-%d}')"
            )
            added.append(leaf)
    return added


async def _move_from_default(connection: Any, table: str, leaf: str, day: date) -> None:
    waiting = await connection.fetchval(
        _COUNT_IN_DEFAULT.format(table=table),
        day,
        MOST_MOVED_ROWS + 1,
    )
    if waiting > MOST_MOVED_ROWS:
        raise KeptError(f"more than {MOST_MOVED_ROWS} rows of {day} lie in {table}_default and stay there")
    if waiting:
        await connection.execute(_MOVE_FROM_DEFAULT.format(table=table, leaf=leaf), day)


async def drop_days(
    connection: Any, inbox: DayPartition, partitions: Sequence[DayPartition], cutoff: datetime, lock_seconds: float
) -> int:
    """Drop a partition of the inbox and what the other tables hold of its days; return how many messages were kept.

    Messages of these days that were processed at `cutoff` or later may still come again, and their outputs may be
    unsent: they move to the default partition.

    Raises:
        BusyError: another process is at it.
        KeptError: too many messages were processed late; nothing is dropped.
        asyncpg.LockNotAvailableError: a table was in use for `lock_seconds`.
    """
    others = [other for other in partitions if other.table != INBOX and _lies_within(other, inbox)]
    async with _change(connection, lock_seconds):
        # Locks the old days alone while they are looked through; the whole tables are locked for an instant after it.
        for leaf in (inbox, *others):
            await connection.execute(f"LOCK TABLE omnibase.{leaf.name} IN SHARE MODE")  # sql: names of our own, by day
        late = await connection.fetch(
            _LATE.format(leaf=inbox.name),
            cutoff,
            MOST_MOVED_ROWS + 1,
            timeout=_STEP_SECONDS,
        )
        if len(late) > MOST_MOVED_ROWS:
            raise KeptError(f"more than {MOST_MOVED_ROWS} messages of {inbox.name} were processed late")
        for leaf in (inbox, *others):
            await connection.execute(
                f"ALTER TABLE omnibase.{leaf.table} DETACH PARTITION omnibase.{leaf.name}"
            )  # sql: names of our own, by day
            if late:
                await _keep_late(connection, leaf, late)
            await connection.execute(f"DROP TABLE omnibase.{leaf.name}")  # sql: names of our own, by day
    return len(late)


def _lies_within(other: DayPartition, days: DayPartition) -> bool:
    starts_within = days.lower is None or (other.lower is not None and other.lower >= days.lower)
    return starts_within and other.upper <= days.upper


async def _keep_late(connection: Any, leaf: DayPartition, late: Sequence[Any]) -> None:
    """Insert the rows of these messages again: with their partition gone they go to the default one."""
    await connection.execute(
        _KEEP_LATE.format(table=leaf.table, leaf=leaf.name),
        [row["day"] for row in late],
        [row["message_key"] for row in late],
    )


async def sweep_default(connection: Any, cutoff: datetime, lock_seconds: float) -> int:
    """Remove one batch of messages processed before `cutoff` from the default partitions; return how many.

    Raises:
        BusyError: another process is at it.
    """
    followers = "".join(_SWEEP_FOLLOWER.format(table=table) for table in FOLLOWERS)
    async with _change(connection, lock_seconds):
        return int(
            await connection.fetchval(_SWEEP.format(followers=followers), cutoff, SWEEP_ROWS, timeout=_STEP_SECONDS)
        )


async def sweep_intents(connection: Any, cutoff: datetime, lock_seconds: float) -> int:
    """Remove one batch of intents older than `cutoff`, whose messages can no longer come again; return how many.

    Raises:
        BusyError: another process is at it.
    """
    async with _change(connection, lock_seconds):
        return int(await connection.fetchval(_SWEEP_INTENTS, cutoff, SWEEP_ROWS, timeout=_STEP_SECONDS))


@asynccontextmanager
async def _change(connection: Any, lock_seconds: float) -> AsyncIterator[None]:
    try:
        async with connection.transaction():
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK_KEY):
                raise BusyError
            await connection.execute(f"SET LOCAL lock_timeout = {max(1, round(lock_seconds * 1000))}")  # sql: a number
            await connection.execute(f"SET LOCAL statement_timeout = {round(_STEP_SECONDS * 1000)}")  # sql: a number
            yield
    except (asyncpg.DuplicateTableError, asyncpg.UndefinedTableError) as error:
        # Somebody made this very change after the partitions were read.
        raise BusyError from error
