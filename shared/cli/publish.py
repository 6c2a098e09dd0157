"""`omninode publish`: check a command against its contract, send it, and wait for the answer where asked."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from omnibase_infra.shared.cli import console
from omnibase_infra.shared.cli.payload_view import print_payload
from omnibase_infra.shared.client.errors import AnsweredFailedError
from omnibase_infra.shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from omnibase_infra.shared.client.answer import Answer
    from omnibase_infra.shared.client.node_interface import OperationInterface
    from omnibase_infra.shared.core.envelope import Envelope
    from omnibase_infra.shared.core.settings import Settings

app = typer.Typer(name="publish", add_completion=False, rich_markup_mode=None)


@app.command()
def publish(  # noqa: PLR0913, PLR0917 - one parameter per option
    node: Annotated[str, typer.Argument(help="Worker or node: postgres-adapter, postgres_adapter.", metavar="NODE")],
    operation: Annotated[
        str, typer.Argument(help="Operation of its contract: execute_statement.", metavar="OPERATION")
    ],
    data: Annotated[
        str, typer.Option("--data", "-d", help="Payload: JSON, @FILE, or - for stdin.", metavar="JSON|@FILE|-")
    ] = "{}",
    key: Annotated[
        str | None, typer.Option("--key", help="Commands of one key are run in the order they were sent.")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="What the command is about.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option("--correlation-id", help="Conversation it belongs to; default: it begins one.")
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option("--expires-in", help="After this time it is answered expired, not run.", metavar="DURATION"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and print it.")] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", help="How long to wait: 500ms, 30s, 5m.", metavar="DURATION")
    ] = "30s",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON: the answer's envelope, or the command's.")
    ] = False,
) -> None:
    """Send a command to a worker. A payload that does not fit the contract is refused before anything is sent.

    Settings come from OMNIBASE_* variables and from what `omninode infra up` wrote.

    Exit codes: 0 sent, or with --wait completed; 1 Kafka cannot be reached or did not confirm; 2 wrong node, operation,
    payload or settings; 4 no answer in time (the command may still run); 5 the worker answered failed.
    """
    from omnibase_infra.shared.cli.process_settings import load_process_settings
    from omnibase_infra.shared.client.node_interface import load_interface

    with console.reported_errors():
        target = load_interface(node).operation(operation)
        payload = _read_payload(data)
        # What can be refused without a broker is.
        target.encode_request(payload)
        seconds = console.parse_seconds("--timeout", timeout)
        attributes = {
            "key": key,
            "subject": subject,
            "correlationid": correlation_id,
            "expires_in": None if expires_in is None else console.parse_seconds("--expires-in", expires_in),
        }
        settings = load_process_settings()
        if not wait:
            sent = asyncio.run(_publish(settings, node, target, payload, attributes))
            _print_sent(sent, target, settings, as_json=as_json)
            return
        try:
            answer = asyncio.run(_request(settings, node, target, payload, attributes, seconds))
        except AnsweredFailedError as refused:
            raise typer.Exit(_print_refusal(refused, as_json=as_json)) from refused
        _print_answer(answer, as_json=as_json)


async def _publish(
    settings: Settings, node: str, target: OperationInterface, payload: bytes, attributes: dict[str, Any]
) -> Envelope:
    from omnibase_infra.shared.client.fleet_client import FleetClient

    async with FleetClient(settings, log=console.quiet) as client:
        return await client.publish(node, target.spec.name, payload, **attributes)


async def _request(
    settings: Settings,
    node: str,
    target: OperationInterface,
    payload: bytes,
    attributes: dict[str, Any],
    seconds: float,
) -> Answer:
    from omnibase_infra.shared.client.fleet_client import FleetClient

    async with FleetClient(settings, log=console.quiet) as client:
        return await client.request(node, target.spec.name, payload, timeout=seconds, **attributes)


def _read_payload(data: str) -> bytes:
    """Return the JSON that `--data` means.

    Raises:
        ConfigurationError: its file cannot be read.
    """
    if data == "-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        # What the shell passed on, also where it is not UTF-8: the check of the payload says so.
        return data.encode("utf-8", "surrogateescape")
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--data: {data[1:]} cannot be read: {error.strerror}") from error


def _print_sent(sent: Envelope, target: OperationInterface, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        console.print_json_line(sent)
        return
    typer.echo(f"sent {sent.id} to {settings.realm}.{target.spec.topic}")
    if target.spec.answer_topic:
        console.note(f"its answer: omninode tail {target.worker} --from-beginning --correlation-id {sent.conversation}")


def _print_answer(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        console.print_json_line(answer.envelope)
        return
    # As it came: the model may lack fields that a newer worker answers.
    print_payload(msgspec.json.decode(answer.envelope.data))
    console.note(f"completed in {answer.seconds * 1000:.0f} ms")


def _print_refusal(refused: AnsweredFailedError, *, as_json: bool) -> int:
    """Print a failed answer and return the exit code."""
    if as_json:
        console.print_json_line(refused.envelope)
    code = console.report(refused)
    response = refused.response
    facts = dict(response.details)
    if response.dependency:
        facts["dependency"] = response.dependency
    for name, value in facts.items():
        console.note(f"  {name}: {value}")
    if response.retryable:
        console.note("hint: sending it again may work")
    return code
