"""`omninode contract`: what contracts say, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from omnibase_infra.shared.cli.contract_diff import diff
from omnibase_infra.shared.core.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from omnibase_infra.shared.contracts.discovery import NodeLocation
    from omnibase_infra.shared.contracts.kits import KitSchema

EXIT_PROBLEMS: Final = 1
EXIT_CONFIGURATION: Final = 2

app = typer.Typer(name="contract", no_args_is_help=True, rich_markup_mode=None)
app.command()(diff)


@app.callback()
def contract() -> None:
    """What contracts say, checked, and what their changes break."""


class LintReport(msgspec.Struct, frozen=True):
    """What `lint --json` prints: the contracts looked at and every problem, sorted by place."""

    contracts: tuple[str, ...]
    problems: tuple[Problem, ...]


@app.command()
def lint(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Nodes (postgres_adapter, postgres_adapter/v1_0_0), contract files or folders; none: all nodes.",
            metavar="[NODE|PATH]...",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print contracts and problems as JSON on stdout.")] = False,
) -> None:
    """Check contracts, their SQL files and how they fit together; needs no server.

    Prints every problem at once as `file:line:column: what is wrong, what was expected [rule]`. All contracts of the
    fleet are read, also when only some are named: who else consumes or publishes a topic decides what is right.
    Further folders with nodes come from OMNIBASE_WORKERS_PATH. Exit codes: 0 no problem, 1 problems, 2 wrong usage.
    """
    try:
        report = _lint(targets or [])
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_CONFIGURATION) from error
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        for problem in report.problems:
            typer.echo(str(problem))
        typer.echo(_summary(report), err=bool(report.problems))
    if report.problems:
        raise typer.Exit(EXIT_PROBLEMS)


def _summary(report: LintReport) -> str:
    checked = f"{len(report.contracts)} contract{'' if len(report.contracts) == 1 else 's'} checked"
    if not report.problems:
        return f"{checked}, no problems"
    files = len({problem.file for problem in report.problems})
    found = len(report.problems)
    return f"{checked}, {found} problem{'' if found == 1 else 's'} in {files} file{'' if files == 1 else 's'}"


def _lint(targets: list[str]) -> LintReport:
    from omnibase_infra.shared.contracts.discovery import discover_nodes
    from omnibase_infra.shared.contracts.fleet_checks import load_fleet
    from omnibase_infra.shared.contracts.loader import shown_path

    nodes = discover_nodes(_roots())
    everything = {location.path: location for versions in nodes.values() for location in versions}
    chosen = {location.path: location for target in targets for location in _locations(target, nodes)}
    selected = chosen or everything
    fleet = load_fleet((everything | chosen).values(), _kits())
    folders = {shown_path(location.folder) for location in selected.values()}
    problems = [
        problem
        for problem in fleet.problems
        if any(problem.file.startswith(f"{folder}/") or folder == "." for folder in folders)
    ]
    return LintReport(tuple(sorted(shown_path(path) for path in selected)), tuple(problems))


def _roots() -> list[Path]:
    from omnibase_infra import workers
    from omnibase_infra.shared.core.settings import environment_values

    further = environment_values(["OMNIBASE_WORKERS_PATH"]).get("OMNIBASE_WORKERS_PATH", "")
    return [Path(str(workers.__file__)).resolve().parent, *(Path(part) for part in further.split(":") if part)]


def _locations(target: str, nodes: Mapping[str, list[NodeLocation]]) -> Iterable[NodeLocation]:
    """Return the contracts a command-line word means: a node first, else a file or folder."""
    from omnibase_infra.shared.contracts.discovery import find_node, locate_contracts

    path = Path(target)
    if target.split("/", 1)[0].replace("-", "_") in nodes or not path.exists():
        return [find_node(target, nodes)]
    return locate_contracts(path)


def _kits() -> Mapping[str, KitSchema]:
    """The kits contracts may use. The generator is only imported when a third party brings a kit."""
    from importlib.metadata import entry_points

    from omnibase_infra.shared.contracts.kits import BUILT_IN_KITS, KIT_ENTRY_POINTS

    built_in = {name.split(".", 1)[0] for name in BUILT_IN_KITS}
    if all(entry.name in built_in for entry in entry_points(group=KIT_ENTRY_POINTS)):
        return BUILT_IN_KITS
    from omnibase_infra.shared.generator.kits.discovery import installed_kits, schemas_of

    return {**BUILT_IN_KITS, **schemas_of(installed_kits())}
