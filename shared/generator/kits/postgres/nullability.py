"""Which result columns an outer join, or a grouping set, may fill with NULL. Read from PostgreSQL's own plan."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

# `alias.column`, with quotes where needed: an output that is a plain column of a table in the plan.
_PLAIN_COLUMN: Final = re.compile(
    r'(?P<alias>"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)\.(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)\Z'
)


def nulled_outputs(plan: Mapping[str, Any], count: int) -> Sequence[bool]:
    """Return for each of a statement's `count` output columns whether the plan may fill it with NULL.

    Sound, not exact: a column that cannot be followed through an outer join counts as nullable.

    Args:
        plan: the top node of EXPLAIN (VERBOSE, FORMAT JSON).
        count: of the statement's result columns.
    """
    if any("Grouping Sets" in node for node in _nodes(plan)):
        return [True] * count
    outer = [node for node in _nodes(plan) if node.get("Join Type") in ("Left", "Right", "Full")]
    tables = {str(node["Alias"]) for node in _nodes(plan) if "Relation Name" in node and "Alias" in node}
    nulled = {alias for join in outer for side in _nullable_sides(join) for alias in _aliases(side)}
    outputs = plan.get("Output") or []
    if len(outputs) < count:
        return [bool(outer)] * count
    return [_may_be_nulled(str(output), tables, nulled, bool(outer)) for output in outputs[:count]]


def _may_be_nulled(output: str, tables: set[str], nulled: set[str], has_outer_join: bool) -> bool:
    match = _PLAIN_COLUMN.match(output)
    alias = match["alias"].strip('"').replace('""', '"') if match else None
    if alias in ("old", "new"):
        return True
    if alias in tables:
        return alias in nulled
    return has_outer_join


def _nullable_sides(join: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    outer, inner = (_child(join, relation) for relation in ("Outer", "Inner"))
    if join["Join Type"] in ("Left", "Full"):
        yield inner
    if join["Join Type"] in ("Right", "Full"):
        yield outer


def _child(node: Mapping[str, Any], relationship: str) -> Mapping[str, Any]:
    return next(child for child in node["Plans"] if child.get("Parent Relationship") == relationship)


def _aliases(node: Mapping[str, Any]) -> Iterator[str]:
    return (str(inner["Alias"]) for inner in _nodes(node) if "Alias" in inner)


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
