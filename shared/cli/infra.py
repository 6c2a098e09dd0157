"""`omninode infra`: real Kafka and PostgreSQL for this folder, started and stopped without Docker."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import typer

from omnibase_infra.shared.cli import exit_codes
from omnibase_infra.shared.cli.console import note, reported_errors
from omnibase_infra.shared.core.settings import ENV_FILE, state_directory

if TYPE_CHECKING:
    from omnibase_infra.shared.local_services import ServiceStatus

MASK = "********"

app = typer.Typer(
    name="infra",
    help=(
        "Real Kafka and PostgreSQL for this folder, without Docker, Java or root; OpenBao (Vault) when named by `--only`."
        "\n\n"
        "State lies in the nearest `.omnibase` folder (OMNIBASE_STATE_DIR overrides it). A service whose address the "
        "environment gives (OMNIBASE_KAFKA_BOOTSTRAP_SERVERS, OMNIBASE_POSTGRES_DSN, OMNIBASE_VAULT_ADDR, "
        "OMNIBASE_CONSUL_ADDR) is never started here; `status` shows it as external.\n\n"
        "Exit codes: 0 done, 1 a service failed, 2 wrong usage or settings, 3 `status`: not all services are healthy."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
)

Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", help="Services to act on: kafka, postgres, openbao; comma-separated or repeated.", metavar="NAMES"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


class EnvFormat(StrEnum):
    """How `env` prints variables."""

    ENV = "env"
    SHELL = "shell"
    JSON = "json"


@app.command()
def up(only: Only = None, as_json: AsJson = False) -> None:
    """Start the services that do not run yet and write their addresses to `.omnibase/env`.

    The first time per user it fetches the jars of Kafka (43 MB) and makes a start-up cache: under a minute. Later
    starts take about a second; nothing happens to a service that runs. Exit codes: 0 all run, 1 one failed, 3 one of
    those that the environment names does not answer.
    """
    from omnibase_infra.shared.cli.infra_progress import show_progress
    from omnibase_infra.shared.local_services import status as ask_status
    from omnibase_infra.shared.local_services import up as start

    with reported_errors():
        wanted = _split(only)
        with show_progress() as progress:
            start(only=wanted, progress=progress)
        statuses = [item for item in ask_status() if wanted is None or item.name in wanted]
    if as_json:
        _print_json({"services": [_plain(item) for item in statuses], "env_file": str(_env_file())})
    else:
        _print_table(statuses)
        typer.echo(f'\nAddresses are in {_env_file()}; for a shell: eval "$(omninode infra env --format shell)"')
    if not all(item.healthy for item in statuses):
        raise typer.Exit(exit_codes.UNHEALTHY)


@app.command()
def down(
    only: Only = None,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Also remove topics, databases, logs and passwords.")
    ] = False,
) -> None:
    """Stop what `up` started in this folder; nothing else. Data stay unless told otherwise.

    Exit codes: 0 stopped, or nothing was running; 1 a service could not be stopped.
    """
    from omnibase_infra.shared.cli.infra_progress import show_progress
    from omnibase_infra.shared.local_services import down as stop

    with reported_errors():
        with show_progress() as progress:
            stopped = stop(only=_split(only), delete_data=delete_data, progress=progress)
        typer.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
        if delete_data:
            typer.echo("data removed")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Ask every service how it is: address, version, uptime, health.

    Exit codes: 0 all are healthy, 3 one is stopped or does not answer.
    """
    from omnibase_infra.shared.local_services import status as ask_status

    with reported_errors():
        statuses = ask_status()
    if as_json:
        _print_json([_plain(item) for item in statuses])
    else:
        _print_table(statuses)
    if not all(item.healthy for item in statuses):
        raise typer.Exit(exit_codes.UNHEALTHY)


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="kafka, postgres or openbao.", metavar="SERVICE")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines from the end.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until interrupted.")] = False,
) -> None:
    """Print the end of a service's log.

    Exit codes: 0 printed, 1 there is no such service.
    """
    from omnibase_infra.shared.local_services import follow_log, log_path
    from omnibase_infra.shared.local_services import logs as last_lines

    with reported_errors():
        path = log_path(None, service)
        if not follow:
            for line in last_lines(None, service, lines=lines):
                typer.echo(line)
            return
        try:
            for line in follow_log(path, lines=lines):
                typer.echo(line)
        except KeyboardInterrupt:
            return


@app.command()
def env(
    output_format: Annotated[
        EnvFormat,
        typer.Option("--format", help='`env`: NAME=value; `shell`: for eval "$(…)", with real secrets; `json`.'),
    ] = EnvFormat.ENV,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print passwords; otherwise only `shell` does.")
    ] = False,
) -> None:
    """Print the variables that reach the services.

    Exit codes: 0 printed, 1 nothing runs and the environment gives no address.
    """
    from omnibase_infra.shared.local_services import env as read_variables

    with reported_errors():
        variables = read_variables()
    if not any(name != "OMNIBASE_ENV" for name in variables):
        note("error: nothing runs here")
        note("hint: run `omninode infra up`")
        raise typer.Exit(exit_codes.FAILED)
    if output_format is EnvFormat.SHELL:
        for name, value in variables.items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        return
    shown = variables if show_secrets else {name: _masked(value) for name, value in variables.items()}
    if output_format is EnvFormat.JSON:
        _print_json(shown)
        return
    for name, value in shown.items():
        typer.echo(f"{name}={value}")


def _split(only: Sequence[str] | None) -> list[str] | None:
    names = [name.strip() for part in only or [] for name in part.split(",")]
    return [name for name in names if name] or None


def _env_file() -> Path:
    return state_directory() / ENV_FILE


def _masked(value: str) -> str:
    """Return a URL with its password masked; other values as they are."""
    parts = urlsplit(value)
    if parts.password is None:
        return value
    netloc = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{MASK}@{netloc[2]}"))


def _plain(item: ServiceStatus) -> dict[str, Any]:
    path = str(item.log_path) if item.log_path else None
    return {**asdict(item), "healthy": item.healthy, "log_path": path}


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content, indent=2))


def _print_table(statuses: Sequence[ServiceStatus]) -> None:
    colours = {"running": "green", "external": "green", "unhealthy": "red", "stopped": "yellow"}
    rows = [("service", "state", "address", "version", "uptime")] + [
        (item.name, item.state, item.address or "-", item.version or "-", _duration(item.uptime_seconds))
        for item in statuses
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if colour := colours.get(row[1]):
            cells[1] = typer.style(cells[1], fg=colour)
        typer.echo("  ".join(cells).rstrip())
    for item in statuses:
        if item.detail:
            typer.echo(f"{item.name}: {item.detail}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{value}{unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")) if value]
    return " ".join(parts[:2]) or "0s"
