"""`omninode tail`: follow a worker's answers, commands or dead letters."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnibase_infra.shared.cli import console
from omnibase_infra.shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from omnibase_infra.shared.client.tail import TailStream
    from omnibase_infra.shared.core.settings import Settings

app = typer.Typer(name="tail", add_completion=False, rich_markup_mode=None)


@app.command()
def tail(  # noqa: PLR0913, PLR0917 - one parameter per option
    node: Annotated[str, typer.Argument(help="Worker or node: postgres-adapter, postgres_adapter.", metavar="NODE")],
    dead_letters: Annotated[bool, typer.Option("--dead-letters", help="Follow what the worker gave up on.")] = False,
    commands: Annotated[bool, typer.Option("--commands", help="Follow what the worker is asked.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with what is in the log, not with what comes.")
    ] = False,
    until_end: Annotated[bool, typer.Option("--until-end", help="Print what is in the log now and stop.")] = False,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", help="CloudEvents type or its event part, with * and ?: '*-failed'. Repeatable.", metavar="TYPE"
        ),
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option("--correlation-id", help="One conversation only.", metavar="ID")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after so many records.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each record as one line of JSON.")] = False,
) -> None:
    """Follow a worker's answers, or with an option its commands or dead letters, until Ctrl-C.

    Joins no consumer group and commits nothing: workers do not notice. Exit codes: 0 stopped as asked, 1 Kafka cannot
    be reached, 2 wrong node, settings, or a topic is missing.
    """
    from omnibase_infra.shared.cli.process_settings import load_process_settings
    from omnibase_infra.shared.registry.nodes import load_spec

    with console.reported_errors():
        if dead_letters and commands:
            raise ConfigurationError("--dead-letters and --commands exclude each other")
        load_spec(*node.split("/", 1))
        stream: TailStream = "dead-letters" if dead_letters else "commands" if commands else "answers"
        options = {
            "stream": stream,
            "from_beginning": from_beginning or until_end,
            "until_end": until_end,
            "types": types,
            "correlationid": correlation_id,
        }
        try:
            asyncio.run(_follow(load_process_settings(), node, options, limit, as_json=as_json))
        except KeyboardInterrupt:
            return


async def _follow(settings: Settings, node: str, options: dict[str, Any], limit: int | None, *, as_json: bool) -> None:
    from omnibase_infra.shared.cli.record_view import record_json, record_lines
    from omnibase_infra.shared.client.fleet_client import FleetClient

    shown = 0
    async with FleetClient(settings, log=console.warnings) as client, client.tail(node, **options) as records:
        if not as_json:
            console.note(f"following {', '.join(records.topics)}")
        async for record in records:
            if as_json:
                console.print_json_line(record_json(record))
            else:
                typer.echo("\n".join(record_lines(record)))
            shown += 1
            if shown == limit:
                return
