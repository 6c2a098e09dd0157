"""Commands per second of `execute_statement`, effectively once and answered, against plain batched inserts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
from tests.performance.figures import BenchmarkError, Figure, Floor, Section, expect, ratios
from tests.performance.order_events import BATCH, ORDERS, STATEMENT, order_events
from tests.performance.plain_inserts import InsertRequest, InsertResult
from tests.performance.processes import cpu_seconds, cpu_seconds_since, resident_megabytes, run_child
from tests.performance.scale import Scale
from tests.performance.servers import Say, Servers, committed_in, records_in, topic_admin, variables_of

from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.testing.fleet import Fleet, WorkerProcess

_LOOK_SECONDS = 0.03
_STALL_SECONDS = 30.0
_ORDER_BROKEN = """\
SELECT count(*) FROM (
    SELECT sequence, lag(sequence) OVER (PARTITION BY order_id ORDER BY position) AS previous FROM orders.order_events
) AS stored WHERE previous >= sequence"""


class Executed(msgspec.Struct, frozen=True):
    """One round of commands. CPU time and memory are the worker's."""

    per_second: float
    cpu_microseconds: float
    peak_megabytes: float


async def measure(servers: Servers, scale: Scale, say: Say) -> Section:
    """Store the same rows in turns by plain inserts and by commands, each on fresh tables and topics.

    Raises:
        BenchmarkError: rows are missing, doubled or out of order, or answers or commits are missing.
    """
    plain: list[InsertResult] = []
    executed: list[Executed] = []
    for number in range(1, scale.rounds + 1):
        async with servers.fleet(f"commands-{number}") as fleet:
            plain.append(await _plain_inserts(fleet, scale.commands))
            say(f"round {number}: {scale.commands / plain[-1].seconds:,.0f} rows/s by plain inserts")
            executed.append(await run_commands(fleet, scale.commands))
            say(f"round {number}: {executed[-1].per_second:,.0f} commands/s")
    return _section(plain, executed, scale.commands)


async def _plain_inserts(fleet: Fleet, rows: int) -> InsertResult:
    result = await run_child("plain_inserts", InsertRequest(rows), InsertResult, variables_of(fleet.settings))
    await _expect_rows(fleet, rows)
    await fleet.fetch_value("TRUNCATE orders.order_events")
    return result


async def run_commands(
    fleet: Fleet, count: int, meanwhile: Callable[[WorkerProcess], Awaitable[None]] | None = None, **environment: str
) -> Executed:
    """Have a worker process work off a backlog of commands.

    Args:
        fleet: with fresh tables and topics.
        count: commands.
        meanwhile: runs beside the measurement, from its first answers on; cancelled at its end.
        environment: further settings of the worker.

    Raises:
        BenchmarkError: some were not done, or not once and in order.
    """
    commands = [
        fleet.command("execute_statement", event.request(), subject=str(event.order_id))
        for event in order_events(count)
    ]
    for first in range(0, count, BATCH):
        await fleet.send(commands[first : first + BATCH])
    admin = topic_admin(fleet.settings)
    process = fleet.start(OMNIBASE_LOG_LEVEL="warning", **environment)
    beside: list[asyncio.Task[None]] = []

    def on_first() -> None:
        if meanwhile is not None:
            beside.append(asyncio.create_task(_awaited(meanwhile, process)))

    try:
        result = await _watched(process, admin, fleet.physical(fleet.spec.publish[0]), count, on_first)
    finally:
        for task in beside:
            task.cancel()
        for failure in await asyncio.gather(*beside, return_exceptions=True):
            if isinstance(failure, Exception):
                raise BenchmarkError(f"what ran beside the measurement failed: {failure!r}") from failure
    await _expect_done(fleet, process, admin, [command.id for command in commands])
    return result


async def _awaited(meanwhile: Callable[[WorkerProcess], Awaitable[None]], process: WorkerProcess) -> None:
    await meanwhile(process)


async def _watched(
    process: WorkerProcess, admin: KafkaTopicAdmin, answers: str, count: int, on_first: Callable[[], None]
) -> Executed:
    """Measure from the first answers that are seen in the log to the last."""
    seen = first = 0
    began = cpu_began = 0.0
    seen_at = time.perf_counter()
    while True:
        found = await asyncio.to_thread(records_in, admin, answers)
        now = time.perf_counter()
        expect(process.exit_code is None, f"the worker ended with {process.exit_code}:\n{process.log[-2000:]}")
        if found > seen:
            seen, seen_at = found, now
        elif now - seen_at > _STALL_SECONDS:
            raise BenchmarkError(f"{seen} of {count} commands were answered:\n{process.log[-2000:]}")
        if found and not first:
            first, began, cpu_began = found, now, cpu_seconds(process.pid)
            on_first()
        if found >= count:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    measured = count - first
    expect(measured > 0, f"{count} commands are too few to be measured")
    cpu = cpu_seconds_since(process.pid, cpu_began)
    return Executed(
        per_second=measured / (now - began),
        cpu_microseconds=cpu / measured * 1e6,
        peak_megabytes=resident_megabytes(process.pid, peak=True),
    )


async def _expect_done(fleet: Fleet, process: WorkerProcess, admin: KafkaTopicAdmin, ids: list[str]) -> None:
    count = len(ids)
    await _expect_rows(fleet, count)
    answered = await fleet.answered(ids)
    completed = next(one for one in fleet.spec.operations if one.name == "execute_statement").completed_type
    wrong = [one for answers in answered.values() for one in answers if one.type != completed]
    expect(not wrong, f"{len(wrong)} commands failed, one with {bytes(wrong[0].data)[:300]!r}" if wrong else "")
    expect(sum(map(len, answered.values())) == count, "some commands have several answers")
    code = await asyncio.to_thread(process.terminate)
    expect(code == 0, f"the worker stopped with {code}:\n{process.log[-2000:]}")
    spec, realm = fleet.spec, fleet.realm
    committed = committed_in(admin, realm.group(spec.worker, spec.major), fleet.physical(spec.subscribe[0]))
    expect(committed == count, f"{committed} of {count} commands were committed")
    expect(not records_in(admin, fleet.physical(str(spec.dead_letter_topic))), "there are dead letters")


async def _expect_rows(fleet: Fleet, count: int) -> None:
    rows = await fleet.fetch_value("SELECT count(*) FROM orders.order_events")
    distinct = await fleet.fetch_value(
        "SELECT count(*) FROM (SELECT DISTINCT order_id, sequence FROM orders.order_events) AS d"
    )
    expect(rows == distinct == count, f"{count} rows were to be stored, there are {rows}, of which {distinct} differ")
    broken = await fleet.fetch_value(_ORDER_BROKEN)
    expect(not broken, f"{broken} rows are out of order")


def _section(plain: list[InsertResult], executed: list[Executed], count: int) -> Section:
    inserts = Figure(
        name="plain inserts by asyncpg",
        unit="rows/s",
        values=tuple(count / one.seconds for one in plain),
        cpu_microseconds=tuple(one.cpu_seconds / count * 1e6 for one in plain),
    )
    commands = Figure(
        name="commands, effectively once, answered",
        unit="commands/s",
        values=tuple(one.per_second for one in executed),
        cpu_microseconds=tuple(one.cpu_microseconds for one in executed),
        floor=Floor(6_000),
    )
    memory = Figure(
        name="memory of the worker under this load, peak",
        unit="MB",
        values=tuple(one.peak_megabytes for one in executed),
    )
    return Section(
        name="commands",
        title=f"`{STATEMENT}` by one `omninode run postgres_adapter` on a backlog of {count:,} commands over {ORDERS} keys; "
        f"plain inserts are the same rows by `INSERT … SELECT unnest`, {BATCH} a transaction, one connection, no inbox",
        figures=(inserts, commands, ratios("commands / plain inserts", commands, inserts), memory),
        checks=(
            "every row is there exactly once, those of a key in order",
            "every command has exactly one answer, and it says completed",
            "every offset is committed, the worker stops with 0, there is no dead letter",
        ),
    )
