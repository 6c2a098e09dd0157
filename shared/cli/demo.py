"""`omninode demo`: the main job on real servers, with a worker killed in mid-work, and the proofs of what it left."""

from __future__ import annotations

from typing import Annotated

import typer

from omnibase_infra.shared.cli import console, exit_codes
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.core.settings import state_directory

app = typer.Typer(name="demo", add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    commands: Annotated[
        int, typer.Option("--commands", min=100, max=1_000_000, help="Order commands to send.")
    ] = 10_000,
    keys: Annotated[int, typer.Option("--keys", min=1, help="Orders they are about; each order is a key.")] = 500,
    keep: Annotated[bool, typer.Option("--keep", help="Leave topics and database, to look at.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")] = False,
) -> None:
    """Kill a worker in mid-work and prove that nothing was lost, doubled or reordered.

    Starts Kafka and PostgreSQL, or uses those of OMNIBASE_KAFKA_BOOTSTRAP_SERVERS and OMNIBASE_POSTGRES_DSN, and works
    in a realm and a database of its own, which it removes in the end. Two workers of postgres_adapter store order
    events; one is killed half-way and another one started; bad input is sent, too. The servers are left running.

    Exit codes: 0 every proof holds; 1 one failed, or the demo could not be run to its end; 2 wrong usage or settings.
    """
    from omnibase_infra.shared.cli.demo_steps.plan import DemoPlan
    from omnibase_infra.shared.cli.demo_steps.report import print_report, report_json
    from omnibase_infra.shared.cli.demo_steps.run import run_demo

    with console.reported_errors():
        if keys > commands:
            raise ConfigurationError(f"--keys: {keys:,} keys need at least as many --commands, not {commands:,}")
        report = run_demo(DemoPlan(commands=commands, keys=keys, keep=keep, state=state_directory()))
    if as_json:
        console.print_json(report_json(report))
    else:
        print_report(report)
    raise typer.Exit(exit_codes.OK if report.passed else exit_codes.FAILED)
