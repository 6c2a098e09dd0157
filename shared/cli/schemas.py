"""`omninode schemas`: JSON Schemas of all payloads, exported to files or published to a schema registry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from omnibase_infra.shared.cli import console, exit_codes

if TYPE_CHECKING:
    from omnibase_infra.shared.core.naming import Realm
    from omnibase_infra.shared.kafka.schema_registry import SchemaRegistryClient
    from omnibase_infra.topics.payload_schemas import PayloadSchema
    from omnibase_infra.topics.schema_publishing import SchemaAction, SchemaPlan
    from omnibase_infra.topics.schema_subjects import Subject

app = typer.Typer(
    name="schemas",
    help=(
        "Export the JSON Schemas of payloads, and publish them to a Confluent-compatible schema registry.\n\n"
        "The registry comes from OMNIBASE_SCHEMA_REGISTRY_* and is optional: no worker asks it anything. Nothing here "
        "ever deletes a subject."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Nodes = Annotated[list[str] | None, typer.Option("--node", help="Only of this node; repeatable.", metavar="NODE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
_SUFFIX: Final = ".schema.json"


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="Folder to write; it holds nothing else.")] = Path("topics/schemas"),
    nodes: Nodes = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 when anything differs.")] = False,
) -> None:
    """Write <output>/<worker>/<version>/<operation>.<role>.schema.json for every payload of the generated nodes.

    And infrastructure/<model>.schema.json for what every worker speaks: errors, health, status, metrics.

    The schemas of shared models lie beside them, in shared/models/<service>/schemas, and are written by `generate`.
    Exit codes: 0 done, or nothing differs; 1 something differs; 2 wrong usage.
    """
    from omnibase_infra.shared.registry.payload_schemas import infrastructure_schemas

    with console.reported_errors():
        wanted = {output / _file_of(item): _text(item.schema) for item in _schemas(nodes)}
        if not nodes:
            shared = infrastructure_schemas()
            wanted |= {output / f"infrastructure/{name}{_SUFFIX}": _text(found) for name, found in shared.items()}
        strays = [] if nodes else [path for path in sorted(output.rglob(f"*{_SUFFIX}")) if path not in wanted]
        differing = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    if check:
        for path in differing:
            typer.echo(f"{path}: {'differs' if path.exists() else 'is missing'}; run `omninode schemas export`")
        for path in strays:
            typer.echo(f"{path}: no contract asks for it; run `omninode schemas export`")
        if not differing and not strays:
            typer.echo(f"{len(wanted)} schemas as the nodes say")
        raise typer.Exit(exit_codes.FAILED if differing or strays else exit_codes.OK)
    for path in differing:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8", newline="\n")
    for path in strays:
        path.unlink()
    typer.echo(f"{len(differing)} schemas written, {len(strays)} deleted, {len(wanted)} in {output}")


@app.command()
def plan(nodes: Nodes = None, as_json: AsJson = False) -> None:
    """Show what `apply` would do, and change nothing.

    Exit codes: 0 nothing to do, 1 the registry cannot be asked, 2 there are changes, or settings are wrong.
    """
    from omnibase_infra.topics.schema_publishing import plan_schemas

    with console.reported_errors():
        session = _Session(nodes)
        planned = plan_schemas(session.registry, session.subjects)
    if as_json:
        console.print_json(planned)
    else:
        _print_plan(planned)
    raise typer.Exit(exit_codes.OK if planned.is_empty else exit_codes.USAGE)


@app.command()
def apply(nodes: Nodes = None, as_json: AsJson = False) -> None:
    """Set the compatibility of each subject and register the schemas that it lacks.

    A schema that breaks the newest one is refused, and its subject left as it is. Exit codes: 0 the registry is as the
    contracts say, 1 something is left (it says what and why), 2 settings are wrong.
    """
    from omnibase_infra.topics.schema_publishing import apply_schemas

    with console.reported_errors():
        session = _Session(nodes)
        report = apply_schemas(session.registry, session.subjects, None if as_json else _print_progress)
    if as_json:
        console.print_json(report)
    else:
        for failure in report.failed:
            console.note(f"failed: {failure.action}\n  {failure.reason}")
        for refusal in report.refusals:
            console.note(f"left: {refusal}")
        left = len(report.failed) + len(report.refusals)
        typer.echo(f"{len(report.done)} changes made, " + (f"{left} left" if left else "as the contracts say"))
    raise typer.Exit(exit_codes.OK if report.is_complete else exit_codes.FAILED)


@app.command()
def check(nodes: Nodes = None, as_json: AsJson = False) -> None:
    """Compare the registry with the contracts: schemas that lack or differ, compatibility, stray subjects of the realm.

    Exit codes: 0 no difference, 1 the registry cannot be asked, 2 there are differences, or settings are wrong.
    """
    from omnibase_infra.topics.schema_publishing import plan_schemas, stray_subjects

    with console.reported_errors():
        session = _Session(nodes)
        planned = plan_schemas(session.registry, session.subjects)
        strays = [] if nodes else stray_subjects(session.registry, session.subjects, session.realm)
    if as_json:
        console.print_json({"plan": planned, "stray": strays})
    else:
        _print_plan(planned)
        for name in strays:
            typer.echo(f"? {name}: no contract asks for it")
    raise typer.Exit(exit_codes.USAGE if strays or not planned.is_empty else exit_codes.OK)


class _Session:
    """The registry, and what should be in it, from the settings of this process."""

    registry: SchemaRegistryClient
    realm: Realm
    subjects: list[Subject]

    def __init__(self, nodes: Sequence[str] | None) -> None:
        from omnibase_infra.shared.cli.process_settings import load_process_settings
        from omnibase_infra.shared.kafka.schema_registry import SchemaRegistryClient
        from omnibase_infra.topics.schema_subjects import subjects_of

        settings = load_process_settings()
        self.realm = settings.realm
        self.registry = SchemaRegistryClient(settings)
        self.subjects = subjects_of(_schemas(nodes), settings.realm, settings.schema_registry_compatibility)


def _schemas(nodes: Sequence[str] | None) -> list[PayloadSchema]:
    from omnibase_infra.shared.registry.nodes import find_node, node_versions
    from omnibase_infra.shared.registry.payload_schemas import node_schemas

    chosen = {find_node(name).node for name in nodes or ()}
    return [item for node in node_versions() if not chosen or node.node in chosen for item in node_schemas(node)]


def _file_of(item: PayloadSchema) -> str:
    return f"{item.worker}/{item.version_text}/{item.operation}.{item.role}{_SUFFIX}"


def _text(schema: Mapping[str, Any]) -> str:
    return f"{json.dumps(schema, indent=2, ensure_ascii=False)}\n"


def _print_plan(planned: SchemaPlan) -> None:
    for action in planned.actions:
        typer.echo(f"+ {action}")
    for refusal in planned.refusals:
        typer.echo(f"! {refusal}")
    changes, refusals = len(planned.actions), len(planned.refusals)
    typer.echo(f"{changes} changes, {refusals} refusals, {len(planned.unchanged)} subjects unchanged")


def _print_progress(action: SchemaAction, done: bool) -> None:
    typer.echo(f"{'done' if done else 'failed':<8} {action}")
