"""`omninode doctor`: look at everything a worker needs, say what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Final

import typer

from omnibase_infra.shared.cli import console, exit_codes
from omnibase_infra.shared.cli import doctor_installation as installation
from omnibase_infra.shared.cli.doctor_report import CheckResult, CheckState, run_check, skipped
from omnibase_infra.shared.cli.process_settings import load_process_settings
from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.settings import Settings

app = typer.Typer(name="doctor", add_completion=False, rich_markup_mode=None)

_LABELS: Final[dict[CheckState, str]] = {"ok": "ok     ", "wrong": "WRONG  ", "skipped": "skipped"}
_COLOURS: Final[dict[CheckState, str]] = {"ok": "green", "wrong": "red", "skipped": "yellow"}
_WIDTH: Final = 15


@app.command()
def doctor(
    node: Annotated[
        str | None, typer.Argument(help="Look at what this node needs only; none: all nodes.", metavar="[NODE]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")] = False,
) -> None:
    """Look at the installation, the nodes and the servers; change nothing.

    Exit codes: 0 all is well, 2 there is no such node, 3 something is wrong.
    """
    from omnibase_infra.shared.registry.nodes import find_node, node_names

    with console.reported_errors():
        names = [find_node(node).node] if node else node_names()
        results: list[CheckResult] = []
        for result in _all_checks(names, only=names[0] if node else None):
            results.append(result)
            if not as_json:
                _print(result)
    healthy = all(result.state != "wrong" for result in results)
    if as_json:
        console.print_json({"healthy": healthy, "checks": results})
    else:
        count = sum(result.state == "wrong" for result in results)
        console.note("all is well" if healthy else f"{count} of {len(results)} checks found something wrong")
    if not healthy:
        raise typer.Exit(exit_codes.UNHEALTHY)


def _all_checks(names: list[str], only: str | None) -> Iterator[CheckResult]:
    """Yield results as they come, each check after those it builds on."""
    yield from run_check("python", installation.python)
    yield from run_check("packages", installation.packages)
    yield from run_check("import root", installation.import_root)
    loaded: list[str] = []
    for name in names:
        found = run_check("nodes", partial(installation.node, name))
        yield from found
        if _is_well(found):
            loaded.append(name)
    yield from run_check("generated files", lambda: installation.generated_files(only))
    yield from run_check("local services", installation.local_services)
    try:
        settings = load_process_settings()
    except (SettingsError, DependencyUnavailableError) as error:
        yield CheckResult("settings", "wrong", error.message, error.hint or "set them, or run `omninode infra up`")
        yield skipped("servers", "without settings there is nobody to ask")
        return
    yield from run_check("settings", lambda: installation.settings(settings))
    yield from _server_checks(settings, loaded)


def _server_checks(settings: Settings, names: list[str]) -> Iterator[CheckResult]:
    from omnibase_infra.shared.cli import doctor_servers as servers
    from omnibase_infra.shared.registry.nodes import load_spec

    specs = [load_spec(name) for name in names]
    kafka = run_check("kafka", lambda: servers.kafka(settings)) if settings.kafka_bootstrap_servers else []
    yield from kafka
    if _is_well(kafka):
        yield from run_check("topics", lambda: servers.topics_and_offsets(settings, specs))
    else:
        yield skipped("topics", "Kafka cannot be asked")
    in_need = [spec for spec in specs if "postgres" in spec.dependencies]
    if not in_need:
        yield skipped("postgres", "no node needs it")
        return
    advice = "check OMNIBASE_POSTGRES_DSN, or run `omninode infra status`"
    postgres = run_check("postgres", lambda: servers.postgres(settings), advice) if settings.postgres_dsn else []
    yield from postgres
    if not _is_well(postgres):
        yield skipped("migrations", "PostgreSQL cannot be asked")
        return
    migrations = run_check("migrations", lambda: servers.migrations(settings, in_need))
    yield from migrations
    if _is_well(migrations):
        yield from run_check("statements", lambda: servers.statements(settings, in_need))
    else:
        yield skipped("statements", "the schema is not up to date")


def _is_well(results: list[CheckResult]) -> bool:
    return bool(results) and all(result.state == "ok" for result in results)


def _print(result: CheckResult) -> None:
    label = typer.style(_LABELS[result.state], fg=_COLOURS[result.state])
    indent = " " * (len(_LABELS["ok"]) + _WIDTH + 4)
    text = result.message.replace("\n", f"\n{indent}")
    typer.echo(f"{label}  {result.check:<{_WIDTH}}  {text}")
    if result.action:
        typer.echo(f"{indent}→ {result.action}")
