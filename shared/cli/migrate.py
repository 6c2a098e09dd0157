"""`omninode migrate`: bring a database to the schema that the inbox, the outbox and the nodes need."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from omnibase_infra.shared.core.errors import ConfigurationError, OmnibaseError

if TYPE_CHECKING:
    from omnibase_infra.shared.core.settings import Settings
    from omnibase_infra.shared.postgres.inbox_retention import RetentionReport
    from omnibase_infra.shared.postgres.migrations import Migration, MigrationStep

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2


def migrate(
    nodes: Annotated[
        list[str] | None, typer.Argument(help="Nodes whose migrations are applied; none: all.", metavar="[NODE]...")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is pending and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for a server that cannot be reached yet.")
    ] = 0.0,
) -> None:
    """Apply the SQL migrations of the inbox and outbox, and of nodes, to the database of OMNIBASE_POSTGRES_DSN.

    Also adds the inbox's partitions of the days to come and drops those that are over, as running workers do.

    Files are append-only: an applied one that was changed since is refused. Running it again, or by several processes
    at once, does no harm. Exit codes: 0 up to date, 1 PostgreSQL cannot be reached, 2 settings or a migration are wrong.
    """
    try:
        steps = asyncio.run(_migrate(nodes or [], dry_run=dry_run, quiet=as_json, wait=wait))
    except OmnibaseError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_FAILED) from error
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(steps), indent=2).decode())
        return
    counts = {state: sum(step.state == state for step in steps) for state in ("applied", "pending", "current", "ahead")}
    typer.echo(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing to migrate")


async def _migrate(nodes: list[str], *, dry_run: bool, quiet: bool, wait: float) -> list[MigrationStep]:
    from omnibase_infra.shared.cli.process_settings import load_process_settings
    from omnibase_infra.shared.core.settings import require_postgres
    from omnibase_infra.shared.postgres.inbox_retention import RetentionOptions
    from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, read_migrations
    from omnibase_infra.shared.postgres.migrations import migrate as run

    settings = load_process_settings()
    dsn = require_postgres(settings)
    plan: list[list[Migration]] = [infrastructure_migrations()]
    plan += [read_migrations(folder.parent.name, folder / "migrations") for folder in _node_folders(nodes)]
    if wait:
        await _wait_for_server(settings, wait)
    return await run(
        dsn,
        plan,
        dry_run=dry_run,
        retention=RetentionOptions(keep_days=settings.postgres_inbox_keep_days),
        report=_silent if quiet else _print_step,
        report_days=_print_kept if quiet else _print_days,
    )


async def _wait_for_server(settings: Settings, seconds: float) -> None:
    """Return when the server lets us in. Apart from the migrations: no bound may cut one of those off.

    Raises:
        DependencyUnavailableError: it could not be reached in time; says why.
    """
    from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
    from omnibase_infra.shared.resilience.retry_policy import RetryOptions, RetryPolicy, retrying

    async def look() -> None:
        async with (
            PostgresConnectionPool.from_settings(settings, application_name="omninode migrate") as pool,
            pool.acquire() as connection,
        ):
            await connection.fetchval("SELECT 1")

    # Time bounds it, not attempts; somebody waits for this, so there is no budget.
    patient = RetryPolicy(attempts=1_000_000, base=0.2, cap=2.0, jitter="equal", total_seconds=seconds)
    await retrying(look, patient, dependency="postgres", options=RetryOptions(quiet=True))


def _node_folders(nodes: list[str]) -> list[Path]:
    from omnibase_infra.shared.postgres.migrations import newest_node_folders
    from omnibase_infra.shared.registry.nodes import find_node
    from omnibase_infra.shared.registry.packages import worker_folders

    folders: dict[str, Path] = {}
    for root in worker_folders():
        folders |= newest_node_folders(root)
    names = [node.replace("-", "_") for node in nodes] or sorted(folders)
    # Looking for one that has no contract raises, with what there is and a close match.
    return [folders.get(name) or find_node(name).folder for name in dict.fromkeys(names)]


def _print_step(step: MigrationStep) -> None:
    duration = f"  ({step.seconds:.2f} s)" if step.state == "applied" else ""
    typer.echo(f"{step.state:<8} {step.scope}/{step.name}{duration}")


def _print_days(report: RetentionReport) -> None:
    if report.added or report.dropped:
        typer.echo(f"inbox and outbox: {len(report.added)} partitions added, {len(report.dropped)} days dropped")
    _print_kept(report)


def _print_kept(report: RetentionReport) -> None:
    for reason in report.kept:
        typer.echo(f"warning: {reason}", err=True)


def _silent(_: MigrationStep) -> None:
    return
