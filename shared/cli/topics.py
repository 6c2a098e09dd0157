"""`omninode topics`: the fleet's topics, derived from contracts; checked, planned and brought to a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from omnibase_infra.shared.cli import console, exit_codes
from omnibase_infra.shared.core.errors import ConfigurationError, UnknownNodeError
from omnibase_infra.shared.core.naming import TOPIC_KINDS

if TYPE_CHECKING:
    from omnibase_infra.shared.core.settings import Settings
    from omnibase_infra.shared.core.worker_spec import WorkerSpec
    from omnibase_infra.topics.catalogue import Catalogue, TopicEntry
    from omnibase_infra.topics.changes import Action, Plan
    from omnibase_infra.topics.payload_schemas import PayloadSchema, SchemaBreak
    from omnibase_infra.topics.provisioning import ApplyReport, DriftReport, Outcome
    from omnibase_infra.topics.topic_registry import TopicRegistry

app = typer.Typer(
    name="topics",
    help=(
        "Lint, plan, apply, check and list the fleet's topics.\n\n"
        "What topics there are follows from the contracts. The cluster and the realm come from OMNIBASE_* variables and "
        "from what `omninode infra up` wrote. Nothing here ever deletes a topic."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Nodes = Annotated[
    list[str] | None, typer.Option("--node", help="Only what this node needs; repeatable.", metavar="NODE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
AllowRepartition = Annotated[
    bool,
    typer.Option("--allow-repartition", help="Also grow topics with ordered keys: keys move to other partitions."),
]
_MARKS: Final = {
    "create-topic": "+ ",
    "add-partitions": "+ ",
    "alter-config": "~ ",
    "commit-first-offsets": "@ ",
}


@app.command()
def lint(nodes: Nodes = None, as_json: AsJson = False) -> None:
    """Check the topics of all contracts, each and together, the policy on topics, and who can read what; needs no cluster.

    Payloads are those of the generated nodes: versions of one major, and consumers of another worker's events.

    Exit codes: 0 no problem, 1 problems, 2 wrong usage.
    """
    from omnibase_infra.shared.cli.contract import _kits, _roots
    from omnibase_infra.shared.contracts.discovery import discover_nodes, find_node
    from omnibase_infra.shared.contracts.fleet_checks import FleetPolicy, load_fleet
    from omnibase_infra.shared.contracts.loader import shown_path
    from omnibase_infra.topics.lint import lint as lint_topics
    from omnibase_infra.topics.policy import DEFAULT_POLICY

    with console.reported_errors():
        found = discover_nodes(_roots())
        locations = [location for versions in found.values() for location in versions]
        chosen = [find_node(node, found) for node in nodes or []] or locations
        # The budget is counted with the other topic rules, by the catalogue itself.
        fleet = load_fleet(locations, _kits(), FleetPolicy(partition_budget=sys.maxsize))
        problems = [*fleet.problems, *lint_topics(fleet.contracts, DEFAULT_POLICY, _payload_schemas())]
        folders = tuple(f"{shown_path(location.folder)}/" for location in chosen)
        shown = sorted(problem for problem in problems if problem.file.startswith(folders))
    if as_json:
        console.print_json({"contracts": len(chosen), "problems": shown})
    else:
        for problem in shown:
            typer.echo(str(problem))
        typer.echo(f"{_counted(len(chosen), 'contract')} checked, {_counted(len(shown), 'problem')}", err=bool(shown))
    raise typer.Exit(exit_codes.FAILED if shown else exit_codes.OK)


@app.command()
def plan(nodes: Nodes = None, as_json: AsJson = False, allow_repartition: AllowRepartition = False) -> None:
    """Show what `apply` would do, and change nothing.

    Exit codes: 0 nothing to do, 1 the cluster cannot be asked, 2 there are changes, or settings or contracts are wrong.
    """
    from omnibase_infra.topics.provisioning import plan_cluster

    with console.reported_errors():
        session = _Session(nodes)
        planned = plan_cluster(session.admin, session.catalogue, session.realm, allow_repartition=allow_repartition)
    if as_json:
        console.print_json(planned)
    else:
        _print_plan(planned)
    raise typer.Exit(exit_codes.OK if planned.is_empty else exit_codes.USAGE)


@app.command()
def apply(
    nodes: Nodes = None,
    as_json: AsJson = False,
    allow_repartition: AllowRepartition = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before keys move (--allow-repartition).")] = False,
) -> None:
    """Create and alter topics, and commit the first offsets of consumer groups.

    It may be interrupted, repeated, and run by several people at once. Exit codes: 0 the cluster is as the contracts
    say, 1 something is left (it says what and why), 2 settings or contracts are wrong.
    """
    from omnibase_infra.topics.provisioning import plan_cluster, provision

    with console.reported_errors():
        session = _Session(nodes)
        if allow_repartition and not yes:
            _confirm(plan_cluster(session.admin, session.catalogue, session.realm, allow_repartition=True))
        report = provision(
            session.admin,
            session.catalogue,
            session.realm,
            allow_repartition=allow_repartition,
            progress=None if as_json else _print_progress,
        )
    if as_json:
        console.print_json(report)
    else:
        _print_report(report)
    raise typer.Exit(exit_codes.OK if report.is_complete else exit_codes.FAILED)


@app.command()
def check(nodes: Nodes = None, as_json: AsJson = False) -> None:
    """Compare the cluster with the contracts: missing and differing topics, lost offsets, stray topics, unreadable payloads.

    Exit codes: 0 no difference, 1 the cluster cannot be asked, 2 there are differences, or settings are wrong.
    """
    from omnibase_infra.topics.provisioning import check as check_cluster

    with console.reported_errors():
        session = _Session(nodes)
        drift = check_cluster(session.admin, session.catalogue, session.realm, session.registry.catalogue)
        breaks = session.schema_breaks()
    if as_json:
        console.print_json({**_builtins(drift), "schema_breaks": breaks})
    else:
        _print_drift(drift)
        for item in breaks:
            typer.echo(f"! {item.worker} {'.'.join(map(str, item.version))}: {item.message} [{item.rule}]")
    raise typer.Exit(exit_codes.USAGE if drift.has_drift or breaks else exit_codes.OK)


@app.command(name="list")
def list_topics(
    nodes: Nodes = None,
    kind: Annotated[str | None, typer.Option(help=f"Only this kind: {', '.join(TOPIC_KINDS)}.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the topics of the generated nodes with their settings; needs no cluster.

    Names are logical: the realm is put before them on a cluster. Exit codes: 0 listed, 2 wrong usage.
    """
    from omnibase_infra.topics.catalogue import derive
    from omnibase_infra.topics.declarations import from_spec

    with console.reported_errors():
        if kind is not None and kind not in TOPIC_KINDS:
            raise ConfigurationError(f"--kind: {kind!r} is not one of {', '.join(TOPIC_KINDS)}")
        catalogue = derive(map(from_spec, _specs()))
        entries = [entry for entry in _of_nodes(catalogue, nodes).entries if kind in (None, entry.kind)]
    if as_json:
        console.print_json([{"topic": str(entry.topic), "kind": entry.kind, **_plain(entry)} for entry in entries])
        return
    console.print_table(
        ("topic", "owner", "partitions", "kept", "readers"),
        (
            (
                str(entry.topic),
                f"{entry.owner} (external)" if entry.external else entry.owner,
                entry.partitions,
                _kept(entry),
                ", ".join(f"{reader.worker} v{reader.major}" for reader in entry.readers) or None,
            )
            for entry in entries
        ),
    )


class _Session:
    """The realm, its catalogue and its cluster, from the settings of this process."""

    def __init__(self, nodes: Sequence[str] | None) -> None:
        from omnibase_infra.shared.cli.process_settings import load_process_settings
        from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin

        settings = load_process_settings()
        self.realm = settings.realm
        self.registry = _registry(settings)
        self.catalogue = _of_nodes(self.registry.catalogue, nodes)
        self.admin = KafkaTopicAdmin(settings, log=console.quiet)

    def schema_breaks(self) -> list[SchemaBreak]:
        """Return the payloads of these workers that somebody cannot read."""
        from omnibase_infra.topics.payload_schemas import schema_breaks

        workers = {entry.owner for entry in self.catalogue.entries}
        return [item for item in schema_breaks(_payload_schemas()) if item.worker in workers]


def _registry(settings: Settings) -> TopicRegistry:
    from omnibase_infra.topics.topic_registry import TopicRegistry, replication_factor

    return TopicRegistry.from_specs(_specs(), settings.realm, replication_factor(settings))


def _specs() -> list[WorkerSpec]:
    from omnibase_infra.shared.registry.nodes import load_spec, node_versions

    versions = node_versions()
    if not versions:
        raise UnknownNodeError("there are no generated nodes", hint="run `omninode generate`")
    return [load_spec(item.node, ".".join(map(str, item.version))) for item in versions]


def _payload_schemas() -> list[PayloadSchema]:
    from omnibase_infra.shared.registry.nodes import node_versions
    from omnibase_infra.shared.registry.payload_schemas import node_schemas

    return [schema for node in node_versions() for schema in node_schemas(node)]


def _builtins(drift: DriftReport) -> dict[str, object]:
    import msgspec

    found: dict[str, object] = msgspec.to_builtins(drift)
    return found


def _of_nodes(catalogue: Catalogue, nodes: Sequence[str] | None) -> Catalogue:
    from omnibase_infra.shared.core.naming import worker_name
    from omnibase_infra.shared.registry.nodes import find_node

    if not nodes:
        return catalogue
    return catalogue.of_workers({worker_name(find_node(node).node) for node in nodes})


def _confirm(planned: Plan) -> None:
    """Ask before keys move.

    Raises:
        ConfigurationError: nobody can be asked.
    """
    from omnibase_infra.topics.changes import AddPartitions

    growing = [action for action in planned.actions if isinstance(action, AddPartitions)]
    if not growing:
        return
    for action in growing:
        console.note(_line(action))
    if not sys.stdin.isatty():
        raise ConfigurationError("--allow-repartition moves keys to other partitions", hint="add --yes to say so")
    typer.confirm("Records of one key will be in two partitions until the old ones are consumed. Go on?", abort=True)


def _line(action: Action) -> str:
    from omnibase_infra.topics.planning import describe

    return _MARKS[str(type(action).__struct_config__.tag)] + describe(action)


def _print_plan(planned: Plan) -> None:
    for action in planned.actions:
        typer.echo(_line(action))
    for refusal in planned.refusals:
        typer.echo(f"! {refusal}")
    if planned.is_empty:
        typer.echo(f"nothing to do, {_counted(len(planned.unchanged), 'topic')} as the contracts say")
        return
    typer.echo(
        f"{_counted(len(planned.actions), 'change')}, {_counted(len(planned.refusals), 'refusal')}, "
        f"{_counted(len(planned.unchanged), 'topic')} unchanged"
    )


def _print_progress(action: Action, outcome: Outcome) -> None:
    typer.echo(f"{outcome:<8} {_line(action)}")


def _print_report(report: ApplyReport) -> None:
    for failure in report.failed:
        console.note(f"failed: {_line(failure.action)}\n  {failure.reason}")
    for refusal in report.refusals:
        console.note(f"left: {refusal}")
    left = len(report.failed) + len(report.skipped) + len(report.refusals)
    counts = f"{_counted(len(report.done), 'change')} made"
    typer.echo(f"{counts}, {left} left" if left else f"{counts}, the cluster is as the contracts say")


def _print_drift(drift: DriftReport) -> None:
    for action in drift.plan.actions:
        typer.echo(_line(action))
    for refusal in drift.plan.refusals:
        typer.echo(f"! {refusal}")
    for topic in drift.stray:
        typer.echo(f"? {topic}: no contract lists it")
    if not drift.has_drift:
        typer.echo(f"no drift, {_counted(len(drift.plan.unchanged), 'topic')} as the contracts say")
        return
    differences = len(drift.plan.actions) + len(drift.plan.refusals)
    typer.echo(f"{_counted(differences, 'difference')}, {_counted(len(drift.stray), 'stray topic')}")
    if drift.plan.actions:
        console.note("hint: run `omninode topics apply`")


def _plain(entry: TopicEntry) -> dict[str, object]:
    import msgspec

    return {
        "owner": entry.owner,
        "external": entry.external,
        "keyed": entry.keyed,
        "partitions": entry.partitions,
        "config": entry.config,
        "source": None if entry.source is None else str(entry.source),
        "readers": msgspec.to_builtins(entry.readers),
        "writers": entry.writers,
        "messages": msgspec.to_builtins(entry.messages),
    }


def _kept(entry: TopicEntry) -> str:
    from omnibase_infra.shared.contracts.units import format_duration

    seconds = entry.retention_seconds
    kept = "for ever" if seconds is None else format_duration(seconds)
    return kept if entry.config["cleanup.policy"] == "delete" else f"{kept}, newest of each key"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else noun + 's'}"
