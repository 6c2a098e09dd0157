"""`omninode`: the command line. Each command group is a module of its own, imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

# Name → (module, one line of help). A module offers `app`, or a function named like the command.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "run": ("run", "Run a node's worker until SIGTERM."),
    "publish": ("publish", "Send a command to a worker, and wait for its answer."),
    "tail": ("tail", "Follow answers, commands or dead letters."),
    "generate": ("generate", "Write nodes from their contracts; --check and --diff look for drift."),
    "contract": ("contract", "Check contracts, every problem at once; say what a change breaks."),
    "topics": ("topics", "Lint, plan, apply, check and list the fleet's topics."),
    "acls": ("acls", "Plan, apply and list what each worker may do on the cluster."),
    "schemas": ("schemas", "Export payload schemas; publish them to a schema registry."),
    "offsets": ("offsets", "Show and, guarded, reset a worker's committed offsets."),
    "status": ("status", "Show the fleet at a glance: processes, lag, dead letters, and what is wrong."),
    "metrics": ("metrics", "Show or serve the metrics of all processes of a node, added up."),
    "dlq": ("dlq", "Look at dead letters, and redrive or discard them."),
    "migrate": ("migrate", "Apply the SQL migrations of the inbox, the outbox and the nodes."),
    "config": ("config", "Check and show the settings; secrets are masked."),
    "infra": ("infra", "Start and stop a local Kafka, PostgreSQL and OpenBao."),
    "doctor": ("doctor", "Look for what is wrong, and say what to do."),
    "demo": ("demo", "Kill a worker in mid-work and prove that nothing was lost or doubled."),
}
_MODULES: Final = "omnibase_infra.shared.cli"


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are asked for: `omninode run` loads no generator."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click calls it so
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click calls it so
        """Import and return a command, or None for an unknown name, which click reports."""
        if cmd_name not in COMMANDS:
            return None
        module_name, summary = COMMANDS[cmd_name]
        module = importlib.import_module(f"{_MODULES}.{module_name}")
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(name=cmd_name)(getattr(module, cmd_name))
        command = typer.main.get_command(app)
        command.name = cmd_name
        command.short_help = summary
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - likewise
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    name="omninode",
    help="Run and operate a fleet of Kafka workers that is generated from contracts.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def omninode() -> None:
    """Run and operate a fleet of Kafka workers that is generated from contracts."""


def main() -> None:
    """Run the command line; errors of this project are one clear line and an exit code, never a traceback."""
    from omnibase_infra.shared.core.errors import OmnibaseError

    try:
        app()
    except OmnibaseError as error:
        from omnibase_infra.shared.cli.console import report

        sys.exit(report(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
