"""`omninode dlq`: look at what a worker gave up on, and put it back to work or discard it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from omnibase_infra.shared.cli import console
from omnibase_infra.shared.cli.dead_letter_options import (
    All,
    Codes,
    Fingerprints,
    Keys,
    Offsets,
    Since,
    Types,
    Until,
    dead_letter_filter,
    parse_place,
)
from omnibase_infra.shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from omnibase_infra.shared.core.settings import Settings
    from omnibase_infra.shared.core.worker_spec import WorkerSpec
    from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterLog
    from omnibase_infra.shared.runtime.redrive_records import RedriveRecords
    from omnibase_infra.shared.runtime.redrive_selection import Selection

app = typer.Typer(
    name="dlq",
    help=(
        "Look at a worker's dead letters, and redrive or discard them.\n\n"
        "A dead letter stays in its topic until retention removes it; what was done about it is kept beside it. "
        "The cluster and the realm come from OMNIBASE_* variables and from what `omninode infra up` wrote."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Node = Annotated[str, typer.Argument(help="Worker or node: postgres-adapter, postgres_adapter.", metavar="NODE")]
Version = Annotated[
    str | None, typer.Option("--version", help="Of this version's dead letters, such as 1; default: the newest.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many.")]
Rate = Annotated[
    float | None, typer.Option("--rate", min=0.001, help="At most so many per second; default: as fast as it goes.")
]
By = Annotated[str | None, typer.Option("--by", help="Who does it, for the audit; default: the user and this host.")]


@app.command("list")
def list_dead_letters(  # noqa: PLR0913, PLR0917 - one parameter per option
    node: Node,
    code: Codes = None,
    fingerprint: Fingerprints = None,
    key: Keys = None,
    event_type: Types = None,
    since: Since = None,
    until: Until = None,
    offset: Offsets = None,
    everything: All = False,
    limit: Limit = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the oldest first: when, key, code, type, fingerprint, attempts and state.

    With --limit the latest. Exit codes: 0 listed, 1 the cluster cannot be asked, 2 wrong node, option or settings.
    """
    from omnibase_infra.shared.cli import dead_letter_output as output

    with console.reported_errors():
        wanted = dead_letter_filter(code, fingerprint, key, event_type, since, until, offset, resolved=everything)
        settings, spec = _session(node, version)
        with _log(settings, spec) as log:
            snapshot = log.read()
    found = [(letter, state) for letter, state in snapshot if wanted.passes(letter, state)]
    shown = found if limit is None else found[-limit:]
    if as_json:
        output.print_letters_json(snapshot, shown)
        return
    if shown:
        output.print_letters(shown)
    left_out = f", the latest {len(shown)} shown" if len(shown) < len(found) else ""
    console.note(f"{len(found)} of {len(snapshot.letters)} dead letters of {spec.worker} v{spec.major}{left_out}")


@app.command()
def group(  # noqa: PLR0913, PLR0917 - one parameter per option
    node: Node,
    code: Codes = None,
    fingerprint: Fingerprints = None,
    key: Keys = None,
    event_type: Types = None,
    since: Since = None,
    until: Until = None,
    offset: Offsets = None,
    everything: All = False,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Group dead letters by failure, the largest group first: those of a group differ in ids, numbers, quoted values.

    Exit codes: 0 grouped, 1 the cluster cannot be asked, 2 wrong node, option or settings.
    """
    from omnibase_infra.shared.cli import dead_letter_output as output
    from omnibase_infra.shared.runtime.dead_letter_filter import grouped

    with console.reported_errors():
        wanted = dead_letter_filter(code, fingerprint, key, event_type, since, until, offset, resolved=everything)
        settings, spec = _session(node, version)
        with _log(settings, spec) as log:
            snapshot = log.read()
    groups = grouped((letter, state) for letter, state in snapshot if wanted.passes(letter, state))
    if as_json:
        console.print_json(output.groups_json(groups))
        return
    if groups:
        output.print_groups(groups)
    count = sum(item.count for item in groups)
    console.note(f"{count} dead letters of {spec.worker} v{spec.major} in {len(groups)} groups")


@app.command()
def show(
    node: Node,
    place: Annotated[str, typer.Argument(help="As `dlq list` shows it: 0/17, or 17.", metavar="PLACE")],
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter whole: why it is here, what was done, headers, envelope and payload. Secrets are masked.

    Exit codes: 0 shown, 1 the cluster cannot be asked, 2 no such dead letter, wrong node or settings.
    """
    from omnibase_infra.shared.cli import dead_letter_output as output
    from omnibase_infra.shared.core.limits import DecodeLimits
    from omnibase_infra.shared.runtime.dead_letter_log import letter_of
    from omnibase_infra.shared.runtime.dead_letter_view import readable

    with console.reported_errors():
        wanted = parse_place("PLACE", place)
        settings, spec = _session(node, version)
        with _log(settings, spec) as log:
            message = log.fetch_one(wanted)
            if message is None:
                raise ConfigurationError(
                    f"{spec.worker} v{spec.major} has no dead letter at {wanted}",
                    hint=f"see `omninode dlq list {spec.worker} --all`; retention removes old ones",
                )
            resolutions = log.read_resolutions()
    letter = letter_of(message)
    limits = DecodeLimits(spec.max_record_bytes, spec.max_depth, spec.max_fields)
    whole = readable(letter, message.value(), message.headers() or [], limits)  # type: ignore[arg-type]
    if as_json:
        console.print_json(output.whole_json(whole, resolutions.state(letter), resolutions.of(letter)))
        return
    typer.echo("\n".join(output.whole_lines(whole, resolutions.state(letter), resolutions.of(letter))))


@app.command()
def redrive(  # noqa: PLR0913, PLR0917 - one parameter per option
    node: Node,
    code: Codes = None,
    fingerprint: Fingerprints = None,
    key: Keys = None,
    event_type: Types = None,
    since: Since = None,
    until: Until = None,
    offset: Offsets = None,
    everything: Annotated[
        bool, typer.Option("--all", help="With --offset: also what was redriven or discarded; it runs once more.")
    ] = False,
    dry_run: DryRun = False,
    rate: Rate = None,
    limit: Limit = None,
    edit: Annotated[
        bool, typer.Option("--edit", help="Change the payload of one dead letter in $EDITOR first.")
    ] = False,
    by: By = None,
    yes: Yes = False,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Put open dead letters back to work: only for the worker that gave them up, in its own retry topics.

    Each is a new attempt: also one that has expired meanwhile runs. Stop it when you like and run the same command
    again: it goes on where it stopped, and does nothing twice.

    Exit codes: 0 done; 1 something could not be redriven, or the cluster cannot be asked, or another redrive of this
    worker took over; 2 wrong usage; 130 interrupted, what is left is said.
    """
    from omnibase_infra.shared.cli import dead_letter_run as run

    with console.reported_errors():
        if everything and not offset:
            raise ConfigurationError("--all runs again what was already run", hint="say which, by --offset")
        if edit and dry_run:
            raise ConfigurationError("--edit and --dry-run exclude each other")
        wanted = dead_letter_filter(code, fingerprint, key, event_type, since, until, offset, resolved=everything)
        settings, spec = _session(node, version)
        with _log(settings, spec) as log:
            records = _records(settings, spec, log)
            snapshot = log.read()
            selection = run.select(snapshot, wanted, records.refusal, limit)
            if run.ends_here(selection, spec, "redrive", dry_run=dry_run, as_json=as_json):
                return
            edited = _edited(log, selection, node, version) if edit else None
            run.confirm(selection, "redrive", yes=yes)
            order = run.order_of("redrive", by, wanted, rate=rate, edited=edited)
            report = run.act(settings, spec, log, records, order, snapshot, selection)
    run.end(report, selection, spec, order, as_json=as_json)


@app.command()
def discard(  # noqa: PLR0913, PLR0917 - one parameter per option
    node: Node,
    reason: Annotated[str, typer.Option("--reason", help="Why they are not to run; kept with each.", metavar="TEXT")],
    code: Codes = None,
    fingerprint: Fingerprints = None,
    key: Keys = None,
    event_type: Types = None,
    since: Since = None,
    until: Until = None,
    offset: Offsets = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    by: By = None,
    yes: Yes = False,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Settle open dead letters without running them. Records that are held behind one are let go.

    They stay in the topic until retention removes them. Exit codes: as of redrive.
    """
    from omnibase_infra.shared.cli import dead_letter_run as run

    with console.reported_errors():
        if not reason.strip():
            raise ConfigurationError(
                "--reason is empty", hint="say why they are not to run: whoever asks reads it there"
            )
        wanted = dead_letter_filter(code, fingerprint, key, event_type, since, until, offset)
        settings, spec = _session(node, version)
        with _log(settings, spec) as log:
            records = _records(settings, spec, log)
            snapshot = log.read()
            selection = run.select(snapshot, wanted, lambda _: "", limit)
            if run.ends_here(selection, spec, "discard", dry_run=dry_run, as_json=as_json):
                return
            run.confirm(selection, "discard", yes=yes)
            order = run.order_of("discard", by, wanted, reason=reason.strip())
            report = run.act(settings, spec, log, records, order, snapshot, selection)
    run.end(report, selection, spec, order, as_json=as_json)


def _session(node: str, version: str | None) -> tuple[Settings, WorkerSpec]:
    from omnibase_infra.shared.cli.process_settings import load_process_settings
    from omnibase_infra.shared.registry.nodes import load_spec

    spec = load_spec(node, version)
    return load_process_settings(), spec


def _log(settings: Settings, spec: WorkerSpec) -> DeadLetterLog:
    from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterLog

    return DeadLetterLog(settings, spec, log=console.quiet)


def _records(settings: Settings, spec: WorkerSpec, log: DeadLetterLog) -> RedriveRecords:
    from omnibase_infra.shared.runtime.redrive_records import RedriveRecords

    return RedriveRecords(spec, settings.realm, log.partition_counts(list(spec.retry_topics.values())))


def _edited(log: DeadLetterLog, selection: Selection, node: str, version: str | None) -> bytes:
    """Let a person change the payload of the one dead letter that is meant.

    Raises:
        ConfigurationError: several are meant, or it cannot be edited.
    """
    from omnibase_infra.shared.cli.dead_letter_edit import edited_value
    from omnibase_infra.shared.client.node_interface import load_interface

    if len(selection.chosen) != 1:
        raise ConfigurationError(
            f"--edit changes one dead letter, {len(selection.chosen)} are meant", hint="choose it by --offset"
        )
    place = selection.chosen[0].letter.place
    message = log.fetch([place]).get(place)
    if message is None:
        raise ConfigurationError(f"the dead letter at {place} is not in the log any more")
    interface = load_interface(node if version is None else f"{node}/{version}")
    return edited_value(message.value(), message.headers() or [], interface)  # type: ignore[arg-type]
