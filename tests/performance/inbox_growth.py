"""How claims and stores fare as inbox and outbox grow: `python -m tests.performance.inbox_growth --rows 5000000`.

Batches of new and of repeated messages are measured on tables that are filled step by step, in turns with the same on
tables that stay nearly empty, so that what else the machine does weighs on both; with the plan of what they run and the
time it takes to drop a filled day. `--write` puts the figures into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from tests.performance.machine import machine_facts, run_facts

from omnibase_infra.shared.core.ids import original_id
from omnibase_infra.shared.core.ports import AlreadyProcessed, Fresh, InboxMessage, StoredOutput
from omnibase_infra.shared.local_services import down, up
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.day_partitions import INBOX, TABLES, add_day, drop_days, read_partitions
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate
from omnibase_infra.shared.testing.postgres_fixtures import PostgresServer, fresh_database

DOCUMENT: Final = Path("docs/benchmarks.md")
BEGIN: Final = "<!-- inbox growth: begin (written by `python -m tests.performance.inbox_growth --write`) -->"
END: Final = "<!-- inbox growth: end -->"
BATCH: Final = 500
_FILL_ROWS: Final = 250_000
_ANSWER: Final = StoredOutput("onex.evt.shop.results.v1", b"order-4711", b'{"specversion":"1.0"}' + b" " * 400)

_FILL_INBOX: Final = """\
INSERT INTO omnibase.inbox (day, message_key, group_id, "partition", "offset", payload_hash, message_id, topic)
SELECT $1, {key}, 1, n % 6, n, '\\x00112233445566778899aabbccddeeff', gen_random_uuid(),
    'test-bench.onex.cmd.shop.requests.v1'
FROM generate_series(1, $2::integer) AS n
RETURNING message_key"""
# As the keys of ids that hold their time: over the day until this second, a random rest.
_TIMED_KEY: Final = "(lpad(to_hex(n::bigint * $4::integer / $2), 6, '0') || substr(gen_random_uuid()::text, 7))::uuid"
_RANDOM_KEY: Final = "CASE WHEN $4::integer >= 0 THEN gen_random_uuid() END"
_FILL: Final = f"""\
WITH added AS ({_FILL_INBOX})
INSERT INTO omnibase.outbox (day, message_key, output_index, topic, record_key, value)
SELECT $1, message_key, 0, 'onex.evt.shop.results.v1', 'order-4711', $3 FROM added"""
_SIZE: Final = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree($1::regclass) WHERE isleaf"


class Level(msgspec.Struct, frozen=True):
    """Measured with so many rows. Times in milliseconds a batch; `empty_` is of the nearly empty tables, in turns."""

    rows: int
    today: int
    claim_ms: float
    repeat_ms: float
    empty_claim_ms: float
    empty_repeat_ms: float
    gigabytes: float


class Growth(msgspec.Struct, frozen=True):
    """What a run found."""

    levels: Sequence[Level]
    days: int
    timed: bool
    plan: str
    drop_rows: int
    drop_seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as asked; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.performance.inbox_growth", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="messages at the end; 50000000 takes hours")
    parser.add_argument("--days", type=int, default=1, help="over how many days they are spread; 1 is the worst case")
    parser.add_argument("--batches", type=int, default=100, help="batches measured at each level")
    parser.add_argument(
        "--ids", choices=("timed", "random", "both"), default="both", help="whether ids hold their time"
    )
    parser.add_argument("--write", action="store_true", help=f"put the figures into {DOCUMENT}")
    asked = parser.parse_args(arguments)
    facts = machine_facts() | run_facts()
    with tempfile.TemporaryDirectory(prefix="omnibase-bench-") as name:
        folder = Path(name) / ".omnibase"
        try:
            dsn = up(folder, only=["postgres"])["OMNIBASE_POSTGRES_DSN"]
            growths: list[Growth] = []
            for timed in [kind == "timed" for kind in ("timed", "random") if asked.ids in (kind, "both")]:
                server = PostgresServer(dsn)
                with fresh_database(server) as filled, fresh_database(server) as empty:
                    work = measure(filled.dsn, empty.dsn, asked.rows, asked.days, asked.batches, timed=timed)
                    growths.append(uvloop.run(work))
        finally:
            down(folder, delete_data=True)
    options = f"--rows {asked.rows} --days {asked.days} --ids {asked.ids} --write"
    text = markdown(growths, facts, f"python -m tests.performance.inbox_growth {options}")
    print(text)
    if asked.write:
        write_section(DOCUMENT, text)
    return 0


async def measure(dsn: str, empty_dsn: str, rows: int, days: int, batches: int, *, timed: bool = True) -> Growth:
    """Fill to no rows, a fifth of them and all of them, and measure at each level."""
    today = datetime.now(UTC).date()
    async with _opened(dsn) as pool, _opened(empty_dsn) as empty_pool:
        stores = [PostgresEffectStore(one, "test.omnibase-infra.shop.consume.v1") for one in (pool, empty_pool)]
        async with pool.acquire() as connection:
            for number in range(2, days):
                await add_day(connection, today - timedelta(days=number), TABLES, 5.0)
        levels: list[Level] = []
        filled = 0
        for goal in (0, rows // 5, rows):
            await _fill(pool, goal - filled, days, today, timed)
            filled = goal
            levels.append(await _measure_level(pool, stores, goal, batches, today, timed))
        plan = await _plan(stores[0], timed)
        drop_rows, drop_seconds = await _drop_today(pool)
    return Growth(levels, days, timed, plan, drop_rows, drop_seconds)


@asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[PostgresConnectionPool]:
    await migrate(dsn, [infrastructure_migrations()])
    async with PostgresConnectionPool(dsn, PoolOptions(maximum=2, statement_timeout=600.0)) as pool:
        yield pool


async def _fill(pool: PostgresConnectionPool, rows: int, days: int, today: date, timed: bool) -> None:
    fill = _FILL.format(key=_TIMED_KEY if timed else _RANDOM_KEY)
    second = int(time.time()) % 86_400
    async with pool.acquire() as connection:
        for number in range(days):
            left = rows // days
            while left > 0:
                some = min(left, _FILL_ROWS)
                await connection.execute(fill, today - timedelta(days=number), some, _ANSWER.value, second, timeout=600)
                left -= some
        # What a server does by itself within minutes; here it would run into the measurement.
        await connection.execute("ANALYZE omnibase.inbox, omnibase.outbox", timeout=600)
        await connection.execute("CHECKPOINT", timeout=600)


async def _measure_level(
    pool: PostgresConnectionPool,
    stores: Sequence[PostgresEffectStore],
    rows: int,
    batches: int,
    today: date,
    timed: bool,
) -> Level:
    claims: tuple[list[float], ...] = ([], [])
    repeats: tuple[list[float], ...] = ([], [])
    prepared = [[_message(timed) for _ in range(BATCH)] for _ in range(batches)]
    for messages in prepared:
        for store, times in zip(stores, claims, strict=True):
            times.append(await _claim_and_store(store, messages))
    for messages in prepared:
        for store, times in zip(stores, repeats, strict=True):
            times.append(await _repeat(store, messages))
    async with pool.acquire() as connection:
        size = sum([await connection.fetchval(_SIZE, f"omnibase.{table}") for table in TABLES])
        of_today = await connection.fetchval("SELECT count(*) FROM omnibase.inbox WHERE day = $1", today, timeout=600)
    return Level(
        rows,
        of_today,
        claim_ms=statistics.median(claims[0]),
        repeat_ms=statistics.median(repeats[0]),
        empty_claim_ms=statistics.median(claims[1]),
        empty_repeat_ms=statistics.median(repeats[1]),
        gigabytes=size / 2**30,
    )


async def _claim_and_store(store: PostgresEffectStore, messages: Sequence[InboxMessage]) -> float:
    began = time.perf_counter()
    async with store.session() as session:
        found = await session.claim(messages)
        await session.store([(message, (_ANSWER,)) for message in messages])
    assert all(isinstance(claim, Fresh) for claim in found)
    return (time.perf_counter() - began) * 1000


async def _repeat(store: PostgresEffectStore, messages: Sequence[InboxMessage]) -> float:
    began = time.perf_counter()
    async with store.session() as session:
        found = await session.claim(messages)
    assert all(claim == AlreadyProcessed((_ANSWER,)) for claim in found)
    return (time.perf_counter() - began) * 1000


def _message(timed: bool) -> InboxMessage:
    return InboxMessage(
        source="/omnibase/test-bench/client",
        message_id=original_id(),
        redrive_id="",
        payload_hash=os.urandom(16),
        topic="test-bench.onex.cmd.shop.requests.v1",
        partition=0,
        offset=0,
        day_ms=time.time_ns() // 1_000_000,
        timed=timed,
    )


async def _plan(store: PostgresEffectStore, timed: bool) -> str:
    """Return the plans of the session's own prepared statements, after PostgreSQL has settled for them."""
    async with store.session() as session:
        known = [_message(timed)]
        for _ in range(10):
            await session.claim(known)
        statements = await session.connection.fetch("SELECT name, statement FROM pg_prepared_statements")
        (read,) = [row["name"] for row in statements if "LEFT JOIN omnibase.outbox" in row["statement"]]
        some = await session.connection.fetchval(
            "SELECT array_agg(message_key) FROM (SELECT message_key FROM omnibase.inbox LIMIT 500) AS found"
        )
        keys = ",".join(str(key) for key in some)
        rows: Any = await session.connection.fetch(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY ON) EXECUTE {read} ('{{{keys}}}')"
        )
    return "\n".join(_shortened(row[0]) for row in rows)


def _shortened(line: str) -> str:
    return line if len(line) <= 160 else line[:150] + " …"


async def _drop_today(pool: PostgresConnectionPool) -> tuple[int, float]:
    """Drop the day with most rows, as retention does it in a month's time."""
    async with pool.acquire() as connection:
        partitions = await read_partitions(connection)
        day = datetime.now(UTC).date()
        today = next(one for one in partitions if one.table == INBOX and one.holds(day))
        rows = await connection.fetchval(f"SELECT count(*) FROM omnibase.{today.name}", timeout=600)
        cutoff = datetime.now(UTC) + timedelta(days=1)
        began = time.perf_counter()
        await drop_days(connection, today, partitions, cutoff, 5.0)
        return rows, time.perf_counter() - began


def markdown(growths: Sequence[Growth], facts: dict[str, str], command: str) -> str:
    """Return the section's text."""
    lines = [*(f"- {name}: {value}" for name, value in facts.items()), f"- again with: `{command}`"]
    for growth in growths:
        lines += ["", *_lines(growth)]
    lines += ["", "The plan of a repeat at the end:", "", "```", growths[0].plan, "```"]
    return "\n".join(lines) + "\n"


def _lines(growth: Growth) -> list[str]:
    spread = "all of today, the worst case" if growth.days == 1 else f"spread over {growth.days} days"
    ids = "ids that hold their time (UUIDv7)" if growth.timed else "random ids"
    heading = (
        f"Messages already there, {spread}, {ids}; claim and store of {BATCH} new messages with an answer of "
        f"{len(_ANSWER.value)} bytes each, one connection, fsync on; a repeat reads {BATCH} stored answers. Medians, and their ratio to the same "
        "on tables that stay nearly empty, measured in turns: the ratios tell, the times are those of a busy machine or not."
    )
    table = [
        "| messages | of today | claim + store | to nearly empty | repeat | to nearly empty | inbox + outbox |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    table += [
        f"| {level.rows:,} | {level.today:,} | {level.claim_ms:.1f} ms | {level.claim_ms / level.empty_claim_ms:.2f} "
        f"| {level.repeat_ms:.1f} ms | {level.repeat_ms / level.empty_repeat_ms:.2f} | {level.gigabytes:.2f} GiB |"
        for level in growth.levels
    ]
    dropped = f"{growth.drop_rows:,} messages and their answers was dropped in {growth.drop_seconds * 1000:.0f} ms"
    return [heading, "", *table, "", f"The day with {dropped}, the search for messages processed late included."]


def write_section(path: Path, text: str) -> None:
    """Put the text between this benchmark's markers, or with them at the end; what stands around them stays.

    Raises:
        ValueError: the document has one marker without the other.
    """
    document = path.read_text(encoding="utf-8")
    if BEGIN not in document and END not in document:
        document = f"{document.rstrip()}\n\n## Inbox and outbox as they grow\n\n{BEGIN}\n{END}\n"
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise ValueError(f"{path} needs the lines {BEGIN} and {END} once each, in this order")
    before, after = document.split(BEGIN)[0], document.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
