"""`omninode generate` and `omninode-generate`: nodes from their contracts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from omnibase_infra.shared.cli.exit_codes import FAILED, OK, USAGE
from omnibase_infra.shared.core.errors import ConfigurationError, ContractError, OmnibaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnibase_infra.shared.generator.kits.interface import Servers
    from omnibase_infra.shared.generator.targets import Target
    from omnibase_infra.shared.generator.writer import WriteResult

_NODE_TYPES: Final = ("effect", "compute", "reducer", "orchestrator")


def generate(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Nodes: postgres_adapter, postgres_adapter/v1_0_0; shared models: models, models/postgres; none: all.",
            metavar="[NODE|models]...",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 when anything differs.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change.")] = False,
    database: Annotated[
        str | None,
        typer.Option(
            help="DSN of a PostgreSQL whose user may create databases, to analyse statements. "
            "Default: OMNIBASE_POSTGRES_DSN, else a temporary local server. Needed only when SQL files changed.",
        ),
    ] = None,
) -> None:
    """Write nodes from their contracts, and shared models from theirs, all or nothing for each.

    Exit codes: 0 done, or nothing differs; 1 something differs (--check, --diff) or failed; 2 a contract is wrong.
    """
    from omnibase_infra.shared.cli.generate_models import is_models, over_models

    named = nodes or []
    code = over_models([name for name in named if is_models(name)], all_of_them=not named, check=check, diff=diff)
    of_nodes = [name for name in named if not is_models(name)]
    if of_nodes or not named:
        chosen = [(path, f"omninode generate {name}") for name, path in _contracts(of_nodes)]
        code = max(code, _over(chosen, None, database, check=check, diff=diff))
    raise typer.Exit(code)


def _one_file(
    node_type: Annotated[str, typer.Option("--type", help=f"What the contract must be: {', '.join(_NODE_TYPES)}.")],
    contract: Annotated[Path, typer.Option(help="The contract file.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option(help="The version folder to write, like order_store/v1_0_0.")],
    tests: Annotated[Path | None, typer.Option(help="Folder for the generated tests. Default: see the README.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 when anything differs.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change.")] = False,
    database: Annotated[str | None, typer.Option(help="DSN of a PostgreSQL to analyse statements with.")] = None,
) -> None:
    """Write one node from one contract file.

    A contract outside of the output folder is copied into it, with the SQL files beside it.
    """
    from omnibase_infra.shared.generator.contract_copy import bring_contract
    from omnibase_infra.shared.generator.targets import target_of

    target = target_of(output, tests)
    path = bring_contract(contract, node_type, target.node, write=not (check or diff))
    repair = f"omninode-generate --type {node_type} --contract {contract} --output {output}"
    raise typer.Exit(_over([(path, repair)], target, database, check=check, diff=diff))


def _contracts(names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield (node/version, contract) of the named nodes, or of all."""
    from omnibase_infra.shared.cli.contract import _roots
    from omnibase_infra.shared.contracts.discovery import discover_nodes, find_node

    found = discover_nodes(_roots())
    for name in names:
        location = find_node(name, found)
        yield str(location), location.path
    if not names:
        yield from ((str(location), location.path) for versions in found.values() for location in versions)


def _over(
    chosen: Iterable[tuple[Path, str]], target: Target | None, database: str | None, *, check: bool, diff: bool
) -> int:
    """Run over contracts and return the exit code; an error of one does not keep others from being looked at."""
    from omnibase_infra.shared.generator.servers import servers
    from omnibase_infra.shared.generator.targets import target_of

    code = OK
    step: Callable[[Path, str, Target, Servers], int] = _check if check else _diff if diff else _generate
    with servers(database, _say) as available:
        for path, repair in chosen:
            try:
                code = max(code, step(path, repair, target or target_of(path.parent), available))
            except ContractError as error:
                typer.echo(str(error), err=True)
                code = USAGE
            except (OmnibaseError, OSError) as error:
                typer.echo(f"error: {path}: {error}", err=True)
                code = max(code, USAGE if isinstance(error, ConfigurationError) else FAILED)
    return code


def _generate(path: Path, repair: str, target: Target, available: Servers) -> int:
    from omnibase_infra.shared.generator.kits.discovery import installed_kits
    from omnibase_infra.shared.generator.workflow import generate_node

    started = time.monotonic()
    result = generate_node(path, target, installed_kits(), available)
    typer.echo(f"{_name(target)}: {summary(result)} ({time.monotonic() - started:.1f} s)")
    if result.warning:
        _say(f"warning: {result.warning}\nA file that people own needs your attention; `{repair} --check` says where.")
    return OK


def _check(path: Path, repair: str, target: Target, available: Servers) -> int:
    from omnibase_infra.shared.generator.kits.discovery import installed_kits
    from omnibase_infra.shared.generator.workflow import check

    findings = check(path, target, installed_kits(), available, repair)
    for finding in findings:
        typer.echo(str(finding))
    if not findings:
        typer.echo(f"{_name(target)}: as its contract says")
    return FAILED if findings else OK


def _diff(path: Path, repair: str, target: Target, available: Servers) -> int:  # noqa: ARG001 - one signature for all
    from omnibase_infra.shared.generator.kits.discovery import installed_kits
    from omnibase_infra.shared.generator.workflow import diff

    lines = list(diff(path, target, installed_kits(), available))
    typer.echo("".join(lines), nl=False)
    return FAILED if lines else OK


def _name(target: Target) -> str:
    return f"{target.node.parent.name}/{target.node.name}"


def summary(result: WriteResult) -> str:
    """Return what was written, in a few words."""
    if not result.written and not result.deleted:
        return "up to date"
    parts = [f"{len(result.written)} files written"]
    parts += [f"{len(result.deleted)} deleted"] if result.deleted else []
    return ", ".join(parts)


def _say(message: str) -> None:
    typer.echo(message, err=True)


def main() -> None:
    """Run `omninode-generate`; errors of this project are one clear line and an exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name="omninode-generate")(_one_file)
    try:
        app()
    except OmnibaseError as error:
        _say(f"error: {error}")
        sys.exit(USAGE if isinstance(error, ConfigurationError) else FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
