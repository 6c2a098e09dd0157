"""One run of `omninode dlq redrive` or `discard`, from what is meant to what was done."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from omnibase_infra.shared.cli import console, exit_codes
from omnibase_infra.shared.cli.dead_letter_output import print_selection
from omnibase_infra.shared.cli.interruption import Interruption
from omnibase_infra.shared.core.clock import SystemClock
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.core.ids import original_id
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.dead_letter_audit import Action
from omnibase_infra.shared.runtime.dead_letter_filter import DeadLetterFilter
from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterLog, DeadLetterSnapshot
from omnibase_infra.shared.runtime.redrive import RedriveOrder, RedriveReport, RedriveRun
from omnibase_infra.shared.runtime.redrive_records import RedriveRecords
from omnibase_infra.shared.runtime.redrive_selection import Selection, make_selection
from omnibase_infra.shared.runtime.redrive_transaction import RedriveTransactions

INTERRUPTED: Final = 130


def select(
    snapshot: DeadLetterSnapshot, wanted: DeadLetterFilter, refusal: Callable[..., str], limit: int | None
) -> Selection:
    """Return what is acted on of all that is meant."""
    return make_selection(snapshot, snapshot.select(wanted), refusal, limit)


def ends_here(selection: Selection, spec: WorkerSpec, verb: str, *, dry_run: bool, as_json: bool) -> bool:
    """Show what is going to be done; return whether that is all.

    Raises:
        typer.Exit: with 1, nothing of what was meant can be done.
    """
    if as_json:
        if dry_run:
            console.print_json_line({"dry_run": True, "selected": selection.count, "refused": len(selection.refused)})
    else:
        print_selection(selection, verb)
    if not selection.chosen and selection.refused and not dry_run:
        console.note("error: none of the dead letters that were meant can be redriven")
        raise typer.Exit(exit_codes.FAILED)
    if not selection.chosen:
        if not as_json:
            console.note(f"nothing to {verb}: no open dead letter of {spec.worker} v{spec.major} is meant")
        elif not dry_run:
            console.print_json_line({"resolved": 0, "refused": 0, "left": 0, "ending": "finished"})
    elif dry_run:
        console.note(f"would {verb} {_counted(selection.count)}; nothing was changed")
    return dry_run or not selection.chosen


def confirm(selection: Selection, verb: str, *, yes: bool) -> None:
    """Ask, unless told not to.

    Raises:
        ConfigurationError: nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("nothing was changed", hint=f"add --yes to {verb} {_counted(selection.count)}")
    typer.confirm(f"{verb.capitalize()} {_counted(selection.count)}?", abort=True)


def order_of(
    action: Action,
    by: str | None,
    wanted: DeadLetterFilter,
    *,
    rate: float | None = None,
    reason: str | None = None,
    edited: bytes | None = None,
) -> RedriveOrder:
    """Return the order for a run of its own id."""
    return RedriveOrder(
        action=action,
        redrive_id=original_id(),
        by=by or _operator(),
        reason=reason,
        filters=wanted.described(),
        rate=rate,
        edited=edited,
    )


def _operator() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        # A container's user may have a number and no name.
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def act(
    settings: Settings,
    spec: WorkerSpec,
    log: DeadLetterLog,
    records: RedriveRecords,
    order: RedriveOrder,
    snapshot: DeadLetterSnapshot,
    selection: Selection,
) -> RedriveReport:
    """Do it, with a bar on a terminal; Ctrl-C stops it after the transaction under way."""
    with (
        Interruption() as interruption,
        RedriveTransactions(settings, spec, log=console.quiet) as transactions,
        _progress(order.action, selection.count) as progress,
    ):
        run = RedriveRun(spec, settings.realm, log, transactions, records, clock=SystemClock(), wait=interruption.wait)
        return run.run(order, snapshot, selection, progress)


@contextmanager
def _progress(action: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield the callback that moves a bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (TextColumn(action), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(action, total=total)
        yield lambda count: display.update(task, advance=count)


def end(report: RedriveReport, selection: Selection, spec: WorkerSpec, order: RedriveOrder, *, as_json: bool) -> None:
    """Say what was done, and leave with the exit code for it."""
    done = "redriven" if order.action == "redrive" else "discarded"
    if as_json:
        console.print_json_line({**_plain(report), "refused": len(selection.refused)})
    else:
        typer.echo(f"{done} {_counted(report.resolved)} of {spec.worker} v{spec.major}, id {report.redrive_id}")
    if report.already:
        console.note(f"{report.already} had been resolved by somebody else meanwhile")
    if report.gone:
        console.note(f"{report.gone} had been removed by retention meanwhile")
    if report.ending == "interrupted":
        console.note(f"interrupted: {report.left} are left; run the same command again to go on")
        raise typer.Exit(INTERRUPTED)
    if selection.refused:
        console.note(f"error: {_counted(len(selection.refused))} could not be {done}; the reasons stand above")
        raise typer.Exit(exit_codes.FAILED)


def _plain(report: RedriveReport) -> dict[str, object]:
    return msgspec.structs.asdict(report)


def _counted(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"
