"""Keeps inbox and outbox small: adds partitions for the days to come, drops days that have outlived their use.

Every worker runs it, and an advisory lock lets one of them do the work. Without it nothing fails: messages of days
without a partition go to the default one, which is swept row by row.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import asyncpg
import msgspec

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.errors import BusinessError, DependencyError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.postgres import day_partitions
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool, is_lost
from omnibase_infra.shared.postgres.day_partitions import INBOX, TABLES, BusyError, KeptError
from omnibase_infra.shared.postgres.errors import DEPENDENCY, raise_classified
from omnibase_infra.shared.postgres.inbox import find_or_add_group
from omnibase_infra.shared.postgres.queries import named_queries
from omnibase_infra.topics.catalogue import DAY, RETENTION

T = TypeVar("T")

# A command may come again while its topic keeps it, then while the retry topic does, then be redriven while the
# dead-letter topic has it, and lie in the retry topic once more: 7 + 7 + 14 + 7.
DEFAULT_KEEP_DAYS: Final = 35
# How long a change may hold up others, from one try to the next. The last is well below a worker's lock time-out.
_LOCK_SECONDS: Final = (0.1, 0.25, 0.5, 1.0)
_PAUSE_SECONDS: Final = 0.5
_MOST_SWEEPS: Final = 20
_COUNTED_ROWS: Final = 10_000

_STATE: Final = """\
SELECT now() AS now, (now() AT TIME ZONE 'UTC')::date AS today, max(keep_days) AS keep_days
FROM omnibase.consumer_group"""


class RetentionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How inbox and outbox are kept.

    Attributes:
        keep_days: messages are remembered at least so long after they were processed. A consumer group that has
            written down more wins.
        ahead_days: partitions there are for days to come.
        interval: seconds from one look to the next.
    """

    keep_days: int = DEFAULT_KEEP_DAYS
    ahead_days: int = 3
    interval: float = 600.0


class RetentionReport(msgspec.Struct, kw_only=True):
    """What one look did and found.

    Attributes:
        added: partitions made; `dropped` those dropped, by name.
        kept: changes left undone, with the reason; they are tried again at the next look.
        swept: messages removed from the default partition, and intents that nobody can take up any more.
        moved: messages of dropped days that were processed too recently to go.
        days: partitions of the inbox, without the default.
        default_rows: messages in its default partition, counted up to 10,000.
        busy: another process is at it; nothing more was done.
    """

    added: list[str] = []
    dropped: list[str] = []
    kept: list[str] = []
    swept: int = 0
    moved: int = 0
    days: int = 0
    default_rows: int = 0
    busy: bool = False


def keep_days_of(spec: WorkerSpec) -> int:
    """Return how long a message of a worker may come again, in days: through all of its topics, and redriven once."""
    stated = {settings.topic: settings.retention_seconds for settings in spec.topic_settings}
    source = max(
        (stated.get(topic) or RETENTION[TopicName.parse(topic).kind] or 0.0 for topic in spec.subscribe), default=0.0
    )
    return math.ceil((source + 2 * (RETENTION["retry"] or 0.0) + (RETENTION["dlq"] or 0.0)) / DAY)


async def maintain(
    connection: Any, options: RetentionOptions | None = None, *, clock: Clock | None = None
) -> RetentionReport:
    """Look once: add days, drop days, sweep the default partition.

    Args:
        connection: not in a transaction; its user owns the tables.
        options: how they are kept.
        clock: a day is dropped only when both this and the database's clock say that its time has come.

    Raises:
        asyncpg.PostgresError: the database refused; what was done so far stays.
    """
    options = options or RetentionOptions()
    report = RetentionReport()
    state = await connection.fetchrow(_STATE)
    age = timedelta(days=max(options.keep_days, state["keep_days"] or 0))
    ours = datetime.fromtimestamp((clock or SystemClock()).time(), UTC)
    cutoff = min(state["now"], ours) - age
    try:
        await _add_days(connection, state["today"], options.ahead_days, report)
        await _drop_days(connection, cutoff, report)
        await _sweep(connection, cutoff, report)
    except BusyError:
        report.busy = True
    report.days = sum(one.table == INBOX for one in await day_partitions.read_partitions(connection))
    report.default_rows = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM omnibase.inbox_default LIMIT $1) AS found", _COUNTED_ROWS
    )
    return report


async def _add_days(connection: Any, today: date, ahead: int, report: RetentionReport) -> None:
    partitions = await day_partitions.read_partitions(connection)
    for offset in range(-1, ahead + 1):
        day = today + timedelta(days=offset)
        missing = [table for table in TABLES if not any(one.table == table and one.holds(day) for one in partitions)]
        if missing:
            add = partial(day_partitions.add_day, connection, day, missing)
            report.added += await _attempt(add, f"{day} was not added", report) or []


async def _drop_days(connection: Any, cutoff: datetime, report: RetentionReport) -> None:
    partitions = await day_partitions.read_partitions(connection)
    # Most messages are processed within a day of their own, and go with it; the late ones are moved out of the way.
    last = (cutoff - timedelta(days=1)).date()
    outlived = [one for one in partitions if one.table == INBOX and one.upper <= last]
    for inbox in sorted(outlived, key=lambda one: one.upper):
        drop = partial(day_partitions.drop_days, connection, inbox, partitions, cutoff)
        moved = await _attempt(drop, f"{inbox.name} was not dropped", report)
        if moved is not None:
            report.dropped.append(inbox.name)
            report.moved += moved


async def _attempt(change: Callable[[float], Awaitable[T]], failure: str, report: RetentionReport) -> T | None:
    """Make a change in a moment when nobody is in its way; None when there was no such moment."""
    for seconds in _LOCK_SECONDS:
        try:
            return await change(seconds)
        except KeptError as error:
            report.kept.append(f"{failure}: {error}")
            return None
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(_PAUSE_SECONDS * (0.5 + random.random()))  # noqa: S311 - spreads processes
    report.kept.append(f"{failure}: the tables were in use at each of {len(_LOCK_SECONDS)} tries")
    return None


async def _sweep(connection: Any, cutoff: datetime, report: RetentionReport) -> None:
    for _ in range(_MOST_SWEEPS):
        removed = await day_partitions.sweep_default(connection, cutoff, _LOCK_SECONDS[-1])
        report.swept += removed
        if removed < day_partitions.SWEEP_ROWS:
            break
    report.swept += await day_partitions.sweep_intents(connection, cutoff, _LOCK_SECONDS[-1])


class InboxRetention:
    """Looks after the inbox and outbox of one database for as long as a worker lives."""

    def __init__(
        self,
        pool: PostgresConnectionPool,
        *,
        group: str,
        spec: WorkerSpec,
        options: RetentionOptions | None = None,
        registry: MetricsRegistry | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Args:
        pool: open for as long as this runs.
        group: the worker's consumer group, which writes down for how long its messages may come again.
        spec: of the worker.
        options: how inbox and outbox are kept.
        registry: of the process's metrics; None for none.
        clock: beside the database's own, see `maintain`.
        """
        self._pool = pool
        self._group = group
        self._keep_days = keep_days_of(spec)
        self._options = options or RetentionOptions()
        self._clock = clock
        self._metrics = None if registry is None else _Metrics(registry, spec.worker)

    async def maintain_forever(self) -> None:
        """Look at once and then at each interval, until cancelled. A look that fails is logged, counted and repeated."""
        while True:
            try:
                await self.look()
            except DependencyError as error:
                # The breaker and readiness tell of an outage; this only has to come again.
                self._failed(error.message)
            except Exception as error:  # noqa: BLE001 - the work under way does not depend on it
                self._failed(str(error) or type(error).__name__, error)
            await asyncio.sleep(self._options.interval * (0.9 + 0.2 * random.random()))  # noqa: S311 - spreads processes

    async def look(self) -> RetentionReport:
        """Look once, log and count what was done.

        Raises:
            DependencyError: PostgreSQL is away or busy.
            asyncpg.PostgresError: it refused, for example since the user does not own the tables.
        """
        async with self._pool.acquire() as connection:
            try:
                group_id = await find_or_add_group(connection, self._group)
                await connection.execute(named_queries()["keep_group"], group_id, self._keep_days)
                report = await maintain(connection, self._options, clock=self._clock)
            except Exception as error:  # noqa: BLE001 - raised again, classified
                raise_classified(error, connection_lost=is_lost(connection))
        log_report(report)
        if self._metrics is not None:
            self._metrics.show(report)
        return report

    def _failed(self, reason: str, error: Exception | None = None) -> None:
        hint = "let the owner of the tables run `omninode migrate` once a day" if _lacks_rights(error) else ""
        get_logger().warning(LogEvent.INBOX_MAINTENANCE_FAILED, dependency=DEPENDENCY, error=reason, hint=hint)
        if self._metrics is not None:
            self._metrics.failures.inc()


def log_report(report: RetentionReport) -> None:
    """Write a line for what changed and one for what could not; none where there was nothing to do."""
    log = get_logger()
    if report.added or report.dropped or report.swept:
        log.info(
            LogEvent.INBOX_MAINTAINED,
            dependency=DEPENDENCY,
            added=report.added,
            dropped=report.dropped,
            moved=report.moved,
            swept=report.swept,
        )
    if report.kept:
        log.warning(LogEvent.INBOX_MAINTENANCE_FAILED, dependency=DEPENDENCY, error="; ".join(report.kept))


def _lacks_rights(error: Exception | None) -> bool:
    return isinstance(error, BusinessError) and error.instance_code == "permission-denied"


class _Metrics:
    def __init__(self, registry: MetricsRegistry, worker: str) -> None:
        self._days = registry.gauge(metric.INBOX_DAYS, worker=worker)
        self._default = registry.gauge(metric.INBOX_DEFAULT_RECORDS, worker=worker)
        self._dropped = registry.counter(metric.INBOX_DAYS_DROPPED, worker=worker)
        self.failures = registry.counter(metric.INBOX_MAINTENANCE_FAILURES, worker=worker)

    def show(self, report: RetentionReport) -> None:
        self._days.set(report.days)
        self._default.set(report.default_rows)
        self._dropped.inc(len(report.dropped))
        self.failures.inc(len(report.kept))
