"""Change the payload of one dead letter in an editor; what does not fit the contract goes nowhere."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import typer

from omnibase_infra.shared.cli import console
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    InvalidPayloadError,
    RecordRefusedError,
    UndecodableError,
)

if TYPE_CHECKING:
    from omnibase_infra.shared.client.node_interface import NodeInterface, OperationInterface
    from omnibase_infra.shared.runtime.dead_letter_view import Headers

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def edited_value(value: bytes | None, headers: Headers, interface: NodeInterface) -> bytes:
    """Let a person change the payload, and return the record's value with it; everything else stays.

    Args:
        value / headers: of the dead letter.
        interface: of the worker, whose model the payload has to fit.

    Raises:
        ConfigurationError: its payload cannot be edited, was not changed, or there is no editor.
        InvalidPayloadError: it does not fit, and nobody is there to mend it.
    """
    binary = envelopes.is_binary(headers)
    try:
        envelope = envelopes.decode(value, list(headers))
    except RecordRefusedError as error:
        raise ConfigurationError(
            f"--edit: the record is no envelope, so it has no payload: {error.message}",
            hint="discard it, and send a correct one with `omninode publish`",
        ) from error
    operation = _operation(interface, envelope.type)
    before = _pretty(bytes(envelope.data))
    text = before
    while True:
        text = _in_editor(text)
        if text.strip() == before.strip():
            raise ConfigurationError("--edit: the payload was not changed, and nothing was redriven")
        try:
            return _with_payload(value or b"", bytes(operation.encode_request(text)), operation, binary=binary)
        except InvalidPayloadError as error:
            if not sys.stdin.isatty():
                raise
            console.report(error)
            typer.confirm("Edit it again?", default=True, abort=True)


def _operation(interface: NodeInterface, event_type: str) -> OperationInterface:
    for spec in interface.spec.operations:
        if spec.event_type == event_type:
            return interface.operation(spec.name)
    raise ConfigurationError(f"--edit: {interface.spec.worker} has no operation for {event_type}, so no model to check")


def _with_payload(value: bytes, data: bytes, operation: OperationInterface, *, binary: bool) -> bytes:
    """Return the value with another payload. Attributes stay byte for byte, also those that are unknown here."""
    if not binary:
        fields = {name: raw for name, raw in _FIELDS.decode(value).items() if name not in ("data", "data_base64")}
        data = msgspec.json.encode({**fields, "data": msgspec.Raw(data)})
    try:
        operation.limits.check(data)
    except UndecodableError as error:
        raise InvalidPayloadError(f"the worker would refuse it: {error.message}") from None
    return data


def _pretty(data: bytes) -> str:
    try:
        return msgspec.json.format(data, indent=2).decode() + "\n"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return data.decode("utf-8", "backslashreplace")


def _in_editor(text: str) -> str:
    """Return what a person makes of a text.

    Raises:
        ConfigurationError: no editor is set, or it failed.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise ConfigurationError("--edit: no editor is set", hint="set EDITOR, for example EDITOR=vi")
    # A folder that only this user may enter: the payload may hold secrets.
    with tempfile.TemporaryDirectory(prefix="omninode-") as folder:
        file = Path(folder) / "payload.json"
        file.write_text(text, encoding="utf-8")
        try:
            ended = subprocess.run([*shlex.split(editor), str(file)], check=False)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"--edit: the editor {editor!r} cannot be started: {error}") from error
        if ended.returncode:
            raise ConfigurationError(f"--edit: the editor ended with {ended.returncode}, and nothing was redriven")
        return file.read_text(encoding="utf-8", errors="surrogateescape")
