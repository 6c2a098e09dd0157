"""Apply SQL migrations: append-only files, in order, each in a transaction, recorded with their hash.

Scope `omnibase` is the inbox and outbox; each node has a scope of its own name. Processes that migrate at the same time
wait for one another.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import asyncpg
import msgspec

from omnibase_infra.shared.contracts.sql_text import mask
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.postgres.connection_pool import SEARCH_PATH
from omnibase_infra.shared.postgres.errors import classify_connect, condition, raise_classified
from omnibase_infra.shared.postgres.inbox_retention import RetentionOptions, RetentionReport, maintain

INFRASTRUCTURE_SCOPE: Final = "omnibase"
# Of `pg_advisory_lock`; any number that nothing else uses.
_LOCK_KEY: Final = 0x6F6D6E69_62617365
_FILE_NAME: Final = re.compile(r"(?P<number>[0-9]{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql\Z")
_TRANSACTION_WORD: Final = re.compile(
    r"(?:\A|;)\s*(?P<word>begin|commit|rollback|abort|end|start\s+transaction|prepare\s+transaction)\b", re.IGNORECASE
)
_BOOTSTRAP: Final = """
CREATE SCHEMA IF NOT EXISTS omnibase;
CREATE TABLE IF NOT EXISTS omnibase.migration (
    scope text NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, name)
);
"""

MigrationState = Literal["applied", "pending", "current", "ahead"]


class MigrationError(ConfigurationError):
    """A migration was refused or failed; the message names the file. What was applied before it stays."""

    code = "migration-refused"


class Migration(msgspec.Struct, frozen=True):
    """A migration file. `sha256` is over its text with `\\n` line ends."""

    scope: str
    name: str
    path: Path
    sql: str
    sha256: str


class MigrationStep(msgspec.Struct, frozen=True):
    """What became of one migration.

    Attributes:
        state: `applied` just now, `pending` (dry run), `current` since earlier, or `ahead`: the database has it and
            this release does not, as after a roll-back of the release.
        seconds: time it took to apply.
    """

    scope: str
    name: str
    state: MigrationState
    seconds: float = 0.0


StepCallback = Callable[[MigrationStep], None]
DaysCallback = Callable[[RetentionReport], None]


def no_report(_: MigrationStep) -> None:
    """Report to nobody: the default callback."""


def no_days_report(_: RetentionReport) -> None:
    """Report to nobody: the default callback."""


def infrastructure_migrations() -> list[Migration]:
    """Return the migrations of inbox and outbox."""
    return read_migrations(INFRASTRUCTURE_SCOPE, Path(__file__).parent / "migrations")


def read_migrations(scope: str, folder: Path) -> list[Migration]:
    """Return the migrations in a folder, in order; none when there is no folder.

    Raises:
        MigrationError: a file's name is not `0001_words.sql`, a number is missing or twice there, or a file controls
            transactions itself.
    """
    migrations: list[Migration] = []
    for expected, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        match = _FILE_NAME.match(path.name)
        if match is None:
            raise MigrationError(f"{path}: expected a name like 0001_orders.sql")
        if int(match["number"]) != expected:
            raise MigrationError(f"{path}: expected number {expected:04d}; numbers start at 0001 and leave no gaps")
        migrations.append(_read(scope, path))
    return migrations


def newest_node_folders(workers_folder: Path) -> dict[str, Path]:
    """Return the folder of each node's newest version, by node; also of nodes that are not generated yet.

    A newer version's folder holds all migrations of the older ones, since both run against one database.
    """
    newest: dict[str, Path] = {}
    for folder in sorted((path.parent for path in workers_folder.glob("*/v*/contract.yaml")), key=_version):
        newest[folder.parent.name] = folder
    return dict(sorted(newest.items()))


async def migrate(
    dsn: str,
    migrations: Sequence[Sequence[Migration]],
    *,
    dry_run: bool = False,
    lock_timeout: float = 60.0,
    statement_timeout: float = 600.0,
    report: StepCallback = no_report,
    retention: RetentionOptions | None = None,
    report_days: DaysCallback = no_days_report,
) -> list[MigrationStep]:
    """Bring the database up to date; return what became of each migration.

    With the migrations of inbox and outbox their days are looked after as well, as workers do it: where these do not
    own the tables, a daily run does it.

    Args:
        dsn: address of the database; its user may create schemas.
        migrations: scope by scope, from `read_migrations`.
        dry_run: say what is pending and change nothing.
        lock_timeout: seconds to wait for another process that migrates, and for locks inside a migration.
        statement_timeout: seconds one migration may take.
        report: told of each step when it is done.
        retention: how long messages are kept.
        report_days: told what was done to the days of inbox and outbox.

    Raises:
        MigrationError: an applied file was changed, a new one sorts before an applied one, or one failed.
        DependencyUnavailableError: PostgreSQL cannot be reached.
    """
    async with _connected(dsn, lock_timeout, statement_timeout) as connection:
        if dry_run:
            return await _plan(connection, migrations, report)
        await _lock(connection, lock_timeout)
        await connection.execute(_BOOTSTRAP)
        steps: list[MigrationStep] = []
        for own in migrations:
            steps += await _migrate_scope(connection, own, report)
        if infrastructure_migrations() in migrations:
            report_days(await _maintain_days(connection, retention))
        return steps


async def _maintain_days(connection: asyncpg.Connection, retention: RetentionOptions | None) -> RetentionReport:
    try:
        return await maintain(connection, retention)
    except Exception as error:  # noqa: BLE001 - raised again, classified
        raise_classified(error, connection_lost=connection.is_closed())


async def _plan(
    connection: asyncpg.Connection, migrations: Sequence[Sequence[Migration]], report: StepCallback
) -> list[MigrationStep]:
    known = await connection.fetchval("SELECT to_regclass('omnibase.migration') IS NOT NULL")
    steps: list[MigrationStep] = []
    for own in migrations:
        applied = await _applied(connection, own) if known else {}
        steps += _compare(own, applied)
    for step in steps:
        report(step)
    return steps


async def _migrate_scope(
    connection: asyncpg.Connection, migrations: Sequence[Migration], report: StepCallback
) -> list[MigrationStep]:
    by_name = {migration.name: migration for migration in migrations}
    steps: list[MigrationStep] = []
    for planned in _compare(migrations, await _applied(connection, migrations)):
        step = planned if planned.state != "pending" else await _apply(connection, by_name[planned.name])
        report(step)
        steps.append(step)
    return steps


async def _applied(connection: asyncpg.Connection, migrations: Sequence[Migration]) -> dict[str, str]:
    if not migrations:
        return {}
    rows = await connection.fetch(
        "SELECT name, sha256 FROM omnibase.migration WHERE scope = $1 ORDER BY name", migrations[0].scope
    )
    return {row["name"]: row["sha256"] for row in rows}


def _compare(migrations: Sequence[Migration], applied: dict[str, str]) -> list[MigrationStep]:
    steps: list[MigrationStep] = []
    last_applied = max(applied, default="")
    for migration in migrations:
        known = applied.get(migration.name)
        if known is None and migration.name < last_applied:
            raise MigrationError(
                f"{migration.path}: not applied, but {last_applied} is", hint="give it the next free number"
            )
        if known is not None and known != migration.sha256:
            raise MigrationError(
                f"{migration.path}: changed after it was applied; migrations are append-only",
                hint="restore the file and put the change into a new one",
            )
        steps.append(MigrationStep(migration.scope, migration.name, "pending" if known is None else "current"))
    names = {migration.name for migration in migrations}
    steps += [MigrationStep(migrations[0].scope, name, "ahead") for name in applied if name not in names]
    return steps


async def _apply(connection: asyncpg.Connection, migration: Migration) -> MigrationStep:
    started = time.perf_counter()
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO omnibase.migration (scope, name, sha256) VALUES ($1, $2, $3)",
                migration.scope,
                migration.name,
                migration.sha256,
            )
    except asyncpg.PostgresError as error:
        if connection.is_closed():
            raise_classified(error, connection_lost=True)
        reason = f"{error.message or condition(error)} ({error.sqlstate})"
        place = f"{migration.path}{_line_of(error, migration.sql)}"
        raise MigrationError(f"{place}: {reason}; nothing of this file was applied") from error
    except (asyncpg.InterfaceError, OSError) as error:
        raise_classified(error, connection_lost=connection.is_closed())
    return MigrationStep(migration.scope, migration.name, "applied", time.perf_counter() - started)


def _line_of(error: asyncpg.PostgresError, sql: str) -> str:
    """Return `:LINE`, or nothing: PostgreSQL gives a position for some errors only."""
    position = error.position
    return "" if position is None else f":{sql.count(chr(10), 0, int(position) - 1) + 1}"


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.name.removeprefix("v").split("_") if part.isdecimal())


def _read(scope: str, path: Path) -> Migration:
    try:
        sql = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise MigrationError(f"{path}: not UTF-8") from None
    masked = mask(sql)
    if match := _TRANSACTION_WORD.search(masked):
        line = masked.count("\n", 0, match.start("word")) + 1
        raise MigrationError(
            f"{path}:{line}: `{match['word']}` is not allowed", hint="each file runs in one transaction already"
        )
    return Migration(scope, path.name, path, sql, sha256(sql.encode("utf-8")).hexdigest())


@asynccontextmanager
async def _connected(dsn: str, lock_timeout: float, statement_timeout: float) -> AsyncIterator[asyncpg.Connection]:
    settings = {
        "application_name": "omninode migrate",
        "search_path": SEARCH_PATH,
        "lock_timeout": str(round(lock_timeout * 1000)),
        "statement_timeout": str(round(statement_timeout * 1000)),
    }
    try:
        connection = await asyncpg.connect(
            dsn, timeout=10, command_timeout=statement_timeout + 5, server_settings=settings
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise classify_connect(error, dsn) from error
    try:
        yield connection
    finally:
        # Ending the session gives the advisory lock back, however we leave.
        await connection.close(timeout=5)


async def _lock(connection: asyncpg.Connection, seconds: float) -> None:
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
    except asyncpg.LockNotAvailableError:
        raise MigrationError(
            f"another process has been migrating this database for {seconds:g} s", hint="wait for it and try again"
        ) from None
