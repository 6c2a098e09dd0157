"""Whether payloads written with one JSON Schema can be read with another, and where not.

Two rules of this project are taken for granted: a writer sends the properties its schema names and no others, and a
reader ignores what it does not know, unless its schema says `additionalProperties: false`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from omnibase_infra.shared.contracts.schema_branches import Branch, branches_of, resolver_of
from omnibase_infra.shared.contracts.schema_ranges import range_reasons

Mode = Literal["NONE", "BACKWARD", "FORWARD", "FULL"]
Direction = Literal["BACKWARD", "FORWARD"]
Schema = Mapping[str, Any]

MODES: Final[tuple[Mode, ...]] = get_args(Mode)


class Incompatibility(msgspec.Struct, frozen=True, order=True):
    """Something that one side may write and the other cannot read.

    Attributes:
        path: of the value, like `$.lines[].quantity`.
        rule: stable, kebab case.
        message: what changed, with both values.
        direction: BACKWARD: the new schema cannot read what was written with the old one; FORWARD: the other way.
    """

    path: str
    rule: str
    message: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.path}: {self.message} [{self.rule}, breaks {self.direction}]"


def incompatibilities(old: Schema, new: Schema, mode: Mode = "FULL") -> list[Incompatibility]:
    """Return everything that breaks the mode, sorted by path.

    Args:
        old: the schema that is in use.
        new: the schema that is to follow it.
        mode: BACKWARD: new readers read old payloads; FORWARD: old readers read new payloads; FULL: both; NONE: nothing
            is asked for.

    A change that cannot be judged, such as of a pattern, counts as breaking.
    """
    found: list[Incompatibility] = []
    if mode in ("BACKWARD", "FULL"):
        found += (Incompatibility(*reason, "BACKWARD") for reason in _Reading(old, new).reasons())
    if mode in ("FORWARD", "FULL"):
        found += (Incompatibility(*reason, "FORWARD") for reason in _Reading(new, old).reasons())
    return sorted(set(found))


Reason = tuple[str, str, str]  # path, rule, message


class _Reading:
    """One reading of what one schema writes with another."""

    def __init__(self, writer: Schema, reader: Schema) -> None:
        self._writer = writer
        self._reader = reader
        self._of_writer = resolver_of(writer)
        self._of_reader = resolver_of(reader)
        self._under_way: set[tuple[int, int]] = set()

    def reasons(self) -> list[Reason]:
        return list(self._read(self._writer, self._reader, "$"))

    def _read(self, writer: Any, reader: Any, path: str) -> Iterator[Reason]:
        written, readable = self._of_writer(writer), self._of_reader(reader)
        # A model that contains itself is compared once.
        pair = (id(written), id(readable))
        if pair in self._under_way:
            return
        self._under_way.add(pair)
        try:
            choices = list(branches_of(readable, self._of_reader))
            for branch in branches_of(written, self._of_writer):
                yield from self._read_branch(branch, choices, path)
        finally:
            self._under_way.discard(pair)

    def _read_branch(self, branch: Branch, choices: list[Branch], path: str) -> Iterator[Reason]:
        """Yield why no choice of the reader takes this branch; nothing when one does."""
        fitting = [choice for choice in choices if choice.may_take(branch)]
        if not fitting:
            there = " or ".join(sorted({choice.kind for choice in choices})) or "nothing"
            yield path, "type-changed", f"{branch.name} is written and {there} is read"
            return
        if branch.tag and (tagged := [choice for choice in fitting if choice.tag]):
            fitting = [choice for choice in tagged if choice.tag == branch.tag]
            if not fitting:
                yield path, "alternative-removed", f"{branch.name} is written and not among what is read"
                return
        best: list[Reason] | None = None
        for choice in fitting:
            reasons = list(self._compare(branch, choice, path))
            if not reasons:
                return
            if best is None or len(reasons) < len(best):
                best = reasons
        yield from best or ()

    def _compare(self, writer: Branch, reader: Branch, path: str) -> Iterator[Reason]:
        if reader.kind == "any":
            return
        yield from range_reasons(writer, reader, path)
        if writer.values is not None:
            return  # the values themselves were looked at
        if writer.kind == "object":
            yield from self._compare_objects(writer.schema, reader.schema, path)
        elif writer.kind == "array":
            yield from self._compare_arrays(writer.schema, reader.schema, path)

    def _compare_objects(self, writer: Schema, reader: Schema, path: str) -> Iterator[Reason]:
        written, readable = writer.get("properties", {}), reader.get("properties", {})
        rest = reader.get("additionalProperties", True)
        for name in sorted(written):
            place = f"{path}.{name}"
            if name in readable:
                yield from self._read(written[name], readable[name], place)
            elif rest is False:
                yield place, "property-refused", "it is written, and the reader refuses properties it does not know"
            elif isinstance(rest, Mapping):
                yield from self._read(written[name], rest, place)
        always = writer.get("required", ())
        for name in sorted(reader.get("required", ())):
            if name not in written:
                yield f"{path}.{name}", "property-required", "the reader requires it, and the writer does not know it"
            elif name not in always:
                yield f"{path}.{name}", "property-required", "the reader requires it, and the writer may leave it out"
        yield from self._compare_further(writer, readable, rest, path)

    def _compare_further(self, writer: Schema, readable: Schema, rest: Any, path: str) -> Iterator[Reason]:
        """Compare what a writer may add beyond its properties: only schemas that say so, or name none, let it."""
        further = writer.get("additionalProperties", "properties" not in writer)
        if further is False:
            return
        schema = {} if further is True else further
        for name in sorted(readable.keys() - writer.get("properties", {}).keys()):
            yield from self._read(schema, readable[name], f"{path}.{name}")
        if rest is False:
            yield path, "property-refused", "any property may be written, and the reader refuses those it does not know"
        elif isinstance(rest, Mapping):
            yield from self._read(schema, rest, f"{path}.*")

    def _compare_arrays(self, writer: Schema, reader: Schema, path: str) -> Iterator[Reason]:
        heads = writer.get("prefixItems", []), reader.get("prefixItems", [])
        if len(heads[0]) != len(heads[1]):
            message = f"{len(heads[0])} items with types of their own are written and {len(heads[1])} are read"
            yield path, "items-changed", message
            return
        for index, (written, readable) in enumerate(zip(*heads, strict=True)):
            yield from self._read(written, readable, f"{path}[{index}]")
        written, readable = writer.get("items", True), reader.get("items", True)
        if written is False or readable is True:
            return
        if readable is False:
            if writer.get("maxItems") != len(heads[0]):
                yield path, "items-changed", "further items may be written and none are read"
            return
        yield from self._read({} if written is True else written, readable, f"{path}[]")
