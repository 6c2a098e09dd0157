"""`omninode offsets`: where a worker's consumer group stands, and, guarded, where it is to go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from omnibase_infra.shared.cli import console, exit_codes
from omnibase_infra.shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from omnibase_infra.topics.catalogue import Reader
    from omnibase_infra.topics.cluster import TopicAdmin
    from omnibase_infra.topics.offsets import GroupOffsets, Move
    from omnibase_infra.topics.topic_registry import TopicRegistry

app = typer.Typer(
    name="offsets",
    help=(
        "Show and, guarded, reset a worker's committed offsets.\n\n"
        "The cluster and the realm come from OMNIBASE_* variables and from what `omninode infra up` wrote."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Node = Annotated[str, typer.Argument(help="Worker or node: postgres-adapter, postgres_adapter.", metavar="NODE")]
Version = Annotated[
    str | None, typer.Option("--version", help="Of this version's group, such as 1; default: the newest.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@app.command()
def show(node: Node, version: Version = None, as_json: AsJson = False) -> None:
    """Show committed offset, log and lag of every partition a worker reads, and whether they fit together.

    Exit codes: 0 consistent, 1 the cluster cannot be asked, 2 wrong node or settings, 3 an offset is missing or points
    outside its log.
    """
    from omnibase_infra.topics.offsets import show as show_offsets

    with console.reported_errors():
        reader, registry, admin = _session(node, version)
        found = show_offsets(admin, registry, reader)
    if as_json:
        console.print_json(_plain(found))
    else:
        _print_offsets(found)
    raise typer.Exit(exit_codes.OK if found.is_consistent else exit_codes.UNHEALTHY)


@app.command()
def reset(
    node: Node,
    topic: Annotated[str, typer.Option("--topic", help="Logical name of a topic the worker reads.", metavar="TOPIC")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="earliest, latest, an offset, or a time like 2026-01-31T12:00:00Z.",
            metavar="earliest|latest|OFFSET|TIME",
        ),
    ],
    partition: Annotated[
        list[int] | None, typer.Option("--partition", help="Only this partition; repeatable.", min=0)
    ] = None,
    version: Version = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move a worker's committed offsets. Refused while the worker runs; asks first unless told --yes.

    Forwards skips records for good, backwards delivers them again. Exit codes: 0 moved, 1 the group has live members or
    the cluster cannot be asked, 2 wrong usage.
    """
    from omnibase_infra.topics.offsets import parse_target, plan_reset
    from omnibase_infra.topics.offsets import reset as move_offsets

    with console.reported_errors():
        target = parse_target(to)
        reader, registry, admin = _session(node, version)
        moves = plan_reset(admin, registry, reader, topic, target, partition or ())
        if not yes:
            _confirm(moves)
        move_offsets(admin, registry, reader, moves)
    if as_json:
        console.print_json([_plain_move(move) for move in moves])
        return
    _print_moves(moves)
    typer.echo(f"moved {reader.group(registry.realm)}")


def _session(node: str, version: str | None) -> tuple[Reader, TopicRegistry, TopicAdmin]:
    from omnibase_infra.shared.cli.process_settings import load_process_settings
    from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
    from omnibase_infra.shared.registry.nodes import load_spec, node_versions
    from omnibase_infra.topics.catalogue import Reader
    from omnibase_infra.topics.topic_registry import TopicRegistry

    spec = load_spec(node, version)
    settings = load_process_settings()
    specs = [load_spec(item.node, ".".join(map(str, item.version))) for item in node_versions()]
    registry = TopicRegistry.from_specs(specs, settings.realm)
    return Reader(spec.worker, spec.major), registry, KafkaTopicAdmin(settings, log=console.quiet)


def _confirm(moves: Sequence[Move]) -> None:
    """Show what would happen and ask.

    Raises:
        ConfigurationError: nobody can be asked.
    """
    _print_moves(moves)
    if not sys.stdin.isatty():
        raise ConfigurationError("nothing was moved", hint="add --yes to move the offsets as shown")
    typer.confirm("Move the offsets?", abort=True)


def _print_offsets(found: GroupOffsets) -> None:
    console.print_table(
        ("topic", "partition", "committed", "low", "high", "lag", "standing"),
        (
            (item.topic, item.partition, item.committed, item.low, item.high, item.lag, item.standing)
            for item in found.partitions
        ),
    )
    for topic in found.missing_topics:
        console.note(f"{topic} does not exist; run `omninode topics apply`")
    lag = sum(item.lag for item in found.partitions)
    typer.echo(f"{found.group}: {found.members} live members, {lag} records to read")
    if not found.is_consistent:
        console.note("error: not consistent, so a worker of this group will not start")
        console.note(
            "hint: `omninode topics apply` prepares what is unprepared; `omninode offsets reset` moves the rest"
        )


def _print_moves(moves: Sequence[Move]) -> None:
    console.print_table(
        ("topic", "partition", "before", "after", "effect"),
        (
            (move.partition.topic, move.partition.number, move.before, move.after, _effect(move.before, move.after))
            for move in moves
        ),
    )


def _effect(before: int | None, after: int) -> str:
    if before is None:
        return "begins here"
    if after == before:
        return "none"
    return f"skips {after - before}" if after > before else f"repeats {before - after}"


def _plain(found: GroupOffsets) -> dict[str, object]:
    import msgspec

    partitions = [{**msgspec.structs.asdict(item), "lag": item.lag} for item in found.partitions]
    return {
        "group": found.group,
        "members": found.members,
        "consistent": found.is_consistent,
        "partitions": partitions,
        "missing_topics": found.missing_topics,
    }


def _plain_move(move: Move) -> dict[str, object]:
    return {
        "topic": move.partition.topic,
        "partition": move.partition.number,
        "before": move.before,
        "after": move.after,
    }
