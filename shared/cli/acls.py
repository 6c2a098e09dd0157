"""`omninode acls`: what each worker may do on the cluster, derived from contracts; planned and brought to brokers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from omnibase_infra.shared.cli import console, exit_codes
from omnibase_infra.shared.cli.topics import AsJson, Nodes, _counted, _specs

if TYPE_CHECKING:
    from omnibase_infra.shared.core.settings import Settings
    from omnibase_infra.shared.core.worker_spec import WorkerSpec
    from omnibase_infra.shared.kafka.acls import KafkaAclAdmin
    from omnibase_infra.topics.acls import AclPlan, AclRule

app = typer.Typer(
    name="acls",
    help=(
        "Plan, apply and list what workers may do on the cluster.\n\n"
        "Each worker may read its topics, write what it publishes, and use its own retry and dead-letter topics, group and "
        "transactions: nothing else. Workers are told apart by OMNIBASE_KAFKA_PRINCIPAL. Log in as a user who may administer "
        "the cluster."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Clients = Annotated[
    list[str] | None,
    typer.Option(
        "--client",
        help="Also what this principal needs to send the nodes commands and read their answers; repeatable.",
        metavar="PRINCIPAL",
    ),
]


@app.command()
def plan(nodes: Nodes = None, clients: Clients = None, as_json: AsJson = False) -> None:
    """Show what is missing on the cluster and what is too much, and change nothing.

    Exit codes: 0 the cluster is as the contracts say, 1 it cannot be asked, 2 it differs, or settings are wrong.
    """
    with console.reported_errors():
        session = _Session(nodes, clients)
        planned = session.plan()
    if as_json:
        console.print_json(planned)
    else:
        _print_plan(planned)
    raise typer.Exit(exit_codes.OK if planned.is_empty else exit_codes.USAGE)


@app.command()
def apply(
    nodes: Nodes = None,
    clients: Clients = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Also take away what workers may do beyond their contracts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Grant what is missing; it may be repeated, and run by several people at once.

    Exit codes: 0 the cluster is as the contracts say, 1 something is left, or the cluster refuses, 2 settings are wrong.
    """
    with console.reported_errors():
        session = _Session(nodes, clients)
        planned = session.plan()
        session.admin.grant(planned.missing)
        if revoke:
            session.admin.revoke(planned.surplus)
    is_complete = revoke or not planned.surplus
    if as_json:
        console.print_json({"granted": planned.missing, "revoked" if revoke else "left": planned.surplus})
    else:
        _print_done(planned, revoked=revoke)
    raise typer.Exit(exit_codes.OK if is_complete else exit_codes.FAILED)


@app.command(name="list")
def list_rules(
    nodes: Nodes = None,
    clients: Clients = None,
    as_json: AsJson = False,
    commands: Annotated[
        bool, typer.Option("--commands", help="Print calls of kafka-acls.sh, for whoever administers the cluster.")
    ] = False,
) -> None:
    """List what the contracts need; asks no cluster.

    Exit codes: 0 listed, 2 wrong usage.
    """
    from omnibase_infra.shared.core.settings import load_settings

    with console.reported_errors():
        rules = _wanted(load_settings(), _node_specs(nodes), clients)
    if as_json:
        console.print_json(rules)
    elif commands:
        for rule in rules:
            typer.echo(rule.command())
    else:
        console.print_table(
            ("principal", "may", "what", "name"),
            (
                (rule.principal, rule.operation, rule.resource, rule.name + ("*" if rule.pattern == "prefixed" else ""))
                for rule in rules
            ),
        )


class _Session:
    """The rules of the contracts and those of the cluster, from the settings of this process."""

    def __init__(self, nodes: Sequence[str] | None, clients: Sequence[str] | None) -> None:
        from omnibase_infra.shared.cli.process_settings import load_process_settings
        from omnibase_infra.shared.kafka.acls import KafkaAclAdmin

        self._settings = load_process_settings()
        specs = _node_specs(nodes)
        self._wanted = _wanted(self._settings, specs, clients)
        # Named nodes are judged alone; otherwise everything that looks like a worker of the realm is.
        self._workers = {spec.worker for spec in specs} if nodes else None
        self.admin: Final[KafkaAclAdmin] = KafkaAclAdmin(self._settings, log=console.quiet)

    def plan(self) -> AclPlan:
        """Return where the cluster differs."""
        from omnibase_infra.topics import acls

        judged = acls.worker_principals(self._settings.kafka_principal, self._settings.realm, self._workers)
        return acls.plan(self._wanted, self.admin.rules(), judged)


def _node_specs(nodes: Sequence[str] | None) -> list[WorkerSpec]:
    """Return every version of the nodes, of all where none are named."""
    from omnibase_infra.shared.registry.nodes import find_node

    chosen = {find_node(node).node for node in nodes or []}
    return [spec for spec in _specs() if not chosen or spec.node in chosen]


def _wanted(settings: Settings, specs: Sequence[WorkerSpec], clients: Sequence[str] | None) -> tuple[AclRule, ...]:
    from omnibase_infra.shared.core.errors import ConfigurationError
    from omnibase_infra.topics import acls

    rules = set(acls.worker_rules(specs, settings.realm, settings.kafka_principal))
    for client in clients or []:
        if not client.startswith("User:"):
            raise ConfigurationError(f"--client: {client!r} is no principal", hint=f"write User:{client}")
        rules |= set(acls.client_rules(specs, settings.realm, client))
    return tuple(sorted(rules))


def _print_plan(planned: AclPlan) -> None:
    for rule in planned.missing:
        typer.echo(f"+ {rule}")
    for rule in planned.surplus:
        typer.echo(f"- {rule}: no contract needs it")
    if planned.is_empty:
        typer.echo(f"nothing to do, {_counted(len(planned.unchanged), 'right')} as the contracts say")
        return
    typer.echo(
        f"{len(planned.missing)} missing, {len(planned.surplus)} too much, "
        f"{_counted(len(planned.unchanged), 'right')} as the contracts say"
    )
    if planned.surplus:
        console.note("hint: `omninode acls apply --revoke` takes away what is too much")


def _print_done(planned: AclPlan, *, revoked: bool) -> None:
    for rule in planned.missing:
        typer.echo(f"granted  {rule}")
    for rule in planned.surplus:
        typer.echo(f"{'revoked' if revoked else 'left':<8} {rule}")
    left = 0 if revoked else len(planned.surplus)
    took = f", {len(planned.surplus)} revoked" if revoked else ""
    end = f"{left} left (--revoke takes them away)" if left else "the cluster is as the contracts say"
    typer.echo(f"{_counted(len(planned.missing), 'right')} granted{took}, {end}")
