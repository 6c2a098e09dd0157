"""Payload schemas of a fleet, and whether who writes a payload and who reads it understand one another.

Versions of one major share topics: a newer worker reads what callers of the older one send, and those callers read what
it answers. Across workers, who consumes an event reads what its producer writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Literal

import msgspec

from omnibase_infra.shared.contracts.compatibility import Direction, Incompatibility, Mode, incompatibilities
from omnibase_infra.shared.core.naming import TopicName

Role = Literal["request", "response", "failure"]

# Of each role, what callers of an older version need.
DIRECTIONS: Final[Mapping[Role, Direction]] = {
    "request": "BACKWARD",
    "response": "FORWARD",
    "failure": "FORWARD",
}


class PayloadSchema(msgspec.Struct, frozen=True, kw_only=True):
    """The schema of one type of message, as one version of a worker reads or writes it.

    Attributes:
        version: major, minor, patch of the contract.
        role: a `request` is read by the worker, a `response` or `failure` is written by it.
        event_type: CloudEvents type; what both sides know it by.
        model: the payload's class name.
        schema: JSON Schema document.
    """

    worker: str
    version: tuple[int, int, int]
    operation: str
    role: Role
    topic: str
    event_type: str
    model: str
    schema: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Return how people name it: operation and role."""
        return f"{self.operation} {self.role}"

    @property
    def version_text(self) -> str:
        """Return the version as contracts write it."""
        return ".".join(map(str, self.version))


class SchemaBreak(msgspec.Struct, frozen=True, order=True):
    """A payload that somebody cannot read.

    Attributes:
        worker / version: whose contract is to be changed.
        operation: of that contract.
        rule: TP005 between versions of a worker, TP006 between workers.
    """

    worker: str
    version: tuple[int, int, int]
    operation: str
    message: str
    rule: str


def schema_breaks(schemas: Iterable[PayloadSchema]) -> list[SchemaBreak]:
    """Return every payload of the fleet that somebody cannot read, sorted.

    Args:
        schemas: of every version of every worker.
    """
    known = list(schemas)
    return sorted({*_between_versions(known), *_between_workers(known)})


def compare(
    old: Sequence[PayloadSchema], new: Sequence[PayloadSchema], mode: Mode | None = None
) -> Iterator[tuple[PayloadSchema, Incompatibility]]:
    """Yield what breaks when the one set of a worker's schemas is followed by the other.

    Args:
        old: what is in use.
        new: what is to follow.
        mode: of every schema; None: requests BACKWARD, answers FORWARD, which is what callers of the old set need.
    """
    following = {(item.operation, item.role): item for item in new}
    for item in old:
        follower = following.get((item.operation, item.role))
        wanted: Mode = mode or DIRECTIONS[item.role]
        if follower is None:
            if wanted != "NONE":
                message = f"{item.label} is gone"
                direction: Direction = "FORWARD" if wanted == "FORWARD" else "BACKWARD"
                yield item, Incompatibility("$", "message-removed", message, direction)
            continue
        for broken in incompatibilities(item.schema, follower.schema, wanted):
            yield follower, broken


def _between_versions(schemas: Sequence[PayloadSchema]) -> Iterator[SchemaBreak]:
    versions: dict[tuple[str, int], dict[tuple[int, int, int], list[PayloadSchema]]] = {}
    for item in schemas:
        versions.setdefault((item.worker, item.version[0]), {}).setdefault(item.version, []).append(item)
    for (worker, _), by_version in versions.items():
        for older, newer in pairwise(sorted(by_version)):
            for item, broken in compare(by_version[older], by_version[newer]):
                old_text = ".".join(map(str, older))
                message = f"{item.label} does not fit callers of {old_text}: {broken}; raise the major version"
                yield SchemaBreak(worker, newer, item.operation, message, "TP005")


def _between_workers(schemas: Sequence[PayloadSchema]) -> Iterator[SchemaBreak]:
    written: dict[str, list[PayloadSchema]] = {}
    for item in schemas:
        if item.role != "request":
            written.setdefault(item.event_type, []).append(item)
    for reader in schemas:
        if reader.role != "request" or TopicName.parse(reader.event_type).kind == "cmd":
            continue
        for writer in written.get(reader.event_type, ()):
            for broken in incompatibilities(writer.schema, reader.schema, "BACKWARD"):
                message = f"{reader.label} cannot read what {writer.worker} {writer.version_text} publishes: {broken}"
                yield SchemaBreak(reader.worker, reader.version, reader.operation, message, "TP006")
