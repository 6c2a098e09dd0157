"""`omninode contract diff`: what a changed contract breaks, and for whom."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from omnibase_infra.shared.cli import console, exit_codes
from omnibase_infra.shared.core.errors import ConfigurationError, UnknownNodeError

if TYPE_CHECKING:
    from omnibase_infra.shared.contracts.compatibility import Incompatibility, Mode
    from omnibase_infra.shared.core.worker_spec import WorkerSpec
    from omnibase_infra.topics.payload_schemas import PayloadSchema

_SCHEMA_SUFFIX: Final = ".schema.json"


class _Side(NamedTuple):
    """What one word of the command line means. `spec` and `payloads` are of a node, `schemas` of anything else."""

    name: str
    schemas: Mapping[str, Mapping[str, Any]]
    payloads: Sequence[PayloadSchema] = ()
    spec: WorkerSpec | None = None


def diff(
    old: Annotated[
        str,
        typer.Argument(
            help="What is in use: a node's version (postgres_adapter/v1_0_0), a models.yaml, a schema file or a folder of them."
        ),
    ],
    new: Annotated[str, typer.Argument(help="What is to follow it, of the same kind.")],
    mode: Annotated[
        str | None,
        typer.Option(
            help="BACKWARD: new readers read old payloads; FORWARD: old readers read new ones; FULL: both. Default: of "
            "payloads what callers of OLD need (requests BACKWARD, answers FORWARD), of other schemas FULL.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Say what in NEW breaks programs that were written for OLD, each with the path of the value.

    Exit codes: 0 nothing breaks, 1 something breaks, 2 wrong usage.
    """
    with console.reported_errors():
        wanted = _mode(mode)
        before, after = _side(old), _side(new)
        breaks = [*_contract_breaks(before, after), *_schema_breaks(before, after, wanted)]
    if as_json:
        console.print_json({"old": before.name, "new": after.name, "breaking": breaks})
    else:
        for item in breaks:
            typer.echo(
                f"{item['schema']} {item['path']}: {item['message']} [{item['rule']}, breaks {item['direction']}]"
            )
        typer.echo(_summary(before, after, breaks), err=bool(breaks))
    raise typer.Exit(exit_codes.FAILED if breaks else exit_codes.OK)


def _summary(before: _Side, after: _Side, breaks: Sequence[Mapping[str, str]]) -> str:
    compared = f"{before.name} → {after.name}"
    if not breaks:
        return f"{compared}: nothing breaks"
    count = f"{len(breaks)} breaking change{'' if len(breaks) == 1 else 's'}"
    majors = [side.spec.major for side in (before, after) if side.spec is not None]
    if len(majors) == 2 and majors[0] < majors[1]:
        return f"{compared}: {count}, which a new major version may have"
    return f"{compared}: {count}; raise the major version, in a folder and with command topics of its own"


def _mode(text: str | None) -> Mode | None:
    from omnibase_infra.shared.contracts.compatibility import MODES

    for mode in MODES:
        if text is not None and text.upper() == mode:
            return mode
    if text is not None:
        raise ConfigurationError(f"--mode: {text!r} is not one of {', '.join(MODES)}")
    return None


def _side(word: str) -> _Side:
    path = Path(word)
    if path.is_dir() and (files := sorted(path.rglob(f"*{_SCHEMA_SUFFIX}"))):
        return _Side(
            word, {file.relative_to(path).as_posix().removesuffix(_SCHEMA_SUFFIX): _read(file) for file in files}
        )
    if path.is_file() and path.suffix == ".json":
        return _Side(word, {"schema": _read(path)})
    if path.is_file():
        from omnibase_infra.shared.contracts.model_contract import load_model_contract

        models = load_model_contract(path)
        return _Side(word, {name: models.schema(name) for name in models.definitions})
    return _node(word)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is no JSON Schema: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} is no JSON Schema: expected an object, found {type(found).__name__}")
    return found


def _node(word: str) -> _Side:
    from omnibase_infra.shared.registry.nodes import find_node, load_spec
    from omnibase_infra.shared.registry.payload_schemas import node_schemas

    name, _, version = word.strip("/").partition("/")
    try:
        found = find_node(name, version or None)
    except UnknownNodeError as error:
        hint = error.hint or "name a node's version, or an existing file or folder"
        raise UnknownNodeError(error.message, hint=hint) from error
    text = ".".join(map(str, found.version))
    return _Side(f"{found.node} {text}", {}, node_schemas(found), load_spec(found.node, text))


def _contract_breaks(before: _Side, after: _Side) -> list[dict[str, str]]:
    """Compare what two versions of a node promise beside their payloads."""
    if before.spec is None or after.spec is None:
        if (before.spec is None) != (after.spec is None):
            raise ConfigurationError(f"{before.name} and {after.name} are not of one kind")
        return []
    found = []
    new = {operation.name: operation for operation in after.spec.operations}
    for operation in before.spec.operations:
        follower = new.get(operation.name)
        if follower is None:
            found.append(_break(operation.name, "operation-removed", "callers still send it"))
            continue
        if follower.topic != operation.topic and before.spec.major == after.spec.major:
            message = f"callers send it to {operation.topic}, it is read from {follower.topic}"
            found.append(_break(operation.name, "topic-changed", message))
        if operation.answer_topic and not follower.answer_topic:
            found.append(_break(operation.name, "answer-removed", "callers wait for its answer"))
        elif operation.answer_topic != follower.answer_topic and before.spec.major == after.spec.major:
            message = f"callers wait on {operation.answer_topic}, it answers on {follower.answer_topic}"
            found.append(_break(operation.name, "answer-moved", message))
        if operation.ordering == "key" and follower.ordering == "none":
            found.append(_break(operation.name, "order-dropped", "messages of one key are no longer kept in order"))
    return found


def _break(operation: str, rule: str, message: str) -> dict[str, str]:
    return {"schema": operation, "path": "$", "rule": rule, "message": message, "direction": "BACKWARD"}


def _schema_breaks(before: _Side, after: _Side, mode: Mode | None) -> list[dict[str, str]]:
    from omnibase_infra.shared.contracts.compatibility import Incompatibility, incompatibilities
    from omnibase_infra.topics.payload_schemas import compare

    if before.spec is not None and after.spec is not None:
        remaining = {operation.name for operation in after.spec.operations}
        compared = compare([item for item in before.payloads if item.operation in remaining], after.payloads, mode)
        return [_plain(item.label, broken) for item, broken in compared if broken.rule != "message-removed"]
    found = []
    for name, schema in before.schemas.items():
        if name not in after.schemas:
            gone = Incompatibility("$", "schema-removed", "it is gone", "BACKWARD")
            found += [_plain(name, gone)] if mode != "NONE" else []
            continue
        try:
            broken = incompatibilities(schema, after.schemas[name], mode or _default_mode(name))
        except LookupError as error:
            raise ConfigurationError(f"{name}: {error}") from error
        found += [_plain(name, item) for item in broken]
    return found


def _default_mode(name: str) -> Mode:
    """Return what callers of the old schema need: exported files of payloads say by their names whose they are."""
    from omnibase_infra.topics.payload_schemas import DIRECTIONS

    role = name.rsplit(".", 1)[-1]
    return next((mode for known, mode in DIRECTIONS.items() if known == role), "FULL")


def _plain(schema: str, broken: Incompatibility) -> dict[str, str]:
    return {
        "schema": schema,
        "path": broken.path,
        "rule": broken.rule,
        "message": broken.message,
        "direction": broken.direction,
    }
