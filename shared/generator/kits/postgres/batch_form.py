"""Rewrite a statement over one set of values into one over arrays, so that a batch is one round trip.

Only shapes whose meaning is certain are rewritten, the author's text is kept around the change, and PostgreSQL itself
judges the result (`analysis`). Everything else runs one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from omnibase_infra.shared.contracts.sql_text import mask, placeholders
from omnibase_infra.shared.generator.kits.postgres.sql_types import BatchRows, Parameter

_VALUES: Final = re.compile(r"\bvalues\s*\(", re.IGNORECASE)


class BatchForm(msgspec.Struct, frozen=True):
    """A statement over arrays $1 … $n.

    Attributes:
        sql: the statement; each $n is an array with one element per input.
        rows: `positional`: result row i belongs to input i. `ordinal`: the first column is the input's number from 1.
    """

    sql: str
    rows: BatchRows


def batch_form(
    sql: str, parameters: Sequence[Parameter], columns: Sequence[str], quoted: Sequence[str], *, many: bool
) -> BatchForm | None:
    """Return the set-based form of a statement, or None when it has none.

    Args:
        sql: the statement, $1 … $n.
        parameters: in $n order.
        columns: names of the result's columns, quoted where SQL needs it.
        quoted: the parameters' names, quoted where SQL needs it.
        many: the statement may give several rows per input, whose order counts.
    """
    if not parameters or any(parameter.type.array for parameter in parameters):
        return None
    try:
        parsed = sqlglot.parse_one(sql, dialect="postgres")
    except SqlglotError:
        return None
    source = _Input(mask(sql).lower(), parameters, quoted)
    if isinstance(parsed, exp.Insert):
        return _insert(sql, parsed, source)
    if isinstance(parsed, exp.Query) and not _writes_or_locks(parsed):
        return _select(sql, source, columns, many=many)
    return None


class _Input:
    """The derived table of a batch's inputs: `unnest(…) WITH ORDINALITY AS input(a, b, ord)`."""

    def __init__(self, masked: str, parameters: Sequence[Parameter], quoted: Sequence[str]) -> None:
        words = set(re.findall(r"[a-z_][a-z0-9_]*", masked))
        self.alias = next(name for name in ("input", "input_rows", "batch_input_rows") if name not in words)
        taken = {parameter.name for parameter in parameters}
        self.ordinal = next(name for name in ("ord", "input_ord", "batch_input_ord") if name not in taken)
        self.columns = tuple(quoted)
        arrays = ", ".join(f"${n}::{parameter.type.sql}[]" for n, parameter in enumerate(parameters, start=1))
        names = ", ".join((*quoted, self.ordinal))
        self.table = f"unnest({arrays}) WITH ORDINALITY AS {self.alias}({names})"

    def substitute(self, sql: str, start: int, end: int) -> str:
        """Return `sql[start:end]` with every $n replaced by the input's column."""
        pieces, position = [], start
        for number, offset in placeholders(mask(sql)):
            if start <= offset < end:
                pieces += [sql[position:offset], f"{self.alias}.{self.columns[number - 1]}"]
                position = offset + len(str(number)) + 1
        return "".join((*pieces, sql[position:end]))


def _insert(sql: str, parsed: exp.Insert, source: _Input) -> BatchForm | None:
    values = parsed.expression
    if parsed.args.get("with_") or not isinstance(values, exp.Values) or len(values.expressions) != 1:
        return None
    masked = mask(sql)
    found = list(_VALUES.finditer(masked))
    if len(found) != 1:
        return None
    opening = found[0].end() - 1
    closing = _closing_parenthesis(masked, opening)
    inside = [opening < offset < closing for _, offset in placeholders(masked)]
    # A parameter behind VALUES (ON CONFLICT … SET x = $2, RETURNING $2) has no single value in a batch.
    if not all(inside) or re.search(r"\bdefault\b", masked[opening:closing], re.IGNORECASE):
        return None
    items = source.substitute(sql, opening + 1, closing).strip()
    select = f"SELECT {items}\nFROM {source.table}\nORDER BY {source.alias}.{source.ordinal}"  # sql: from a parsed statement of the contract
    return BatchForm(sql[: found[0].start()] + select + sql[closing + 1 :], "positional")


def _select(sql: str, source: _Input, columns: Sequence[str], *, many: bool) -> BatchForm:
    inner = source.substitute(sql, 0, len(sql))
    ordinal = f"{source.alias}.{source.ordinal}"
    if not many:
        head = f"SELECT {ordinal}, result.*\nFROM {source.table}\nCROSS JOIN LATERAL (\n{inner}\n) AS result"  # sql: from a parsed statement of the contract
        return BatchForm(f"{head}\nORDER BY {ordinal}", "ordinal")
    # A sort by the input's number alone may shuffle the rows of one input: number them as the statement gives them.
    listed = ", ".join(f"result.{column}" for column in columns)
    return BatchForm(
        f"SELECT {ordinal}, {listed}\nFROM {source.table}\nCROSS JOIN LATERAL (\n"  # sql: from a parsed statement of the contract
        f"SELECT row_number() OVER () AS row_ord, rows.*\nFROM (\n{inner}\n) AS rows\n) AS result\n"
        f"ORDER BY {ordinal}, result.row_ord",
        "ordinal",
    )


def _writes_or_locks(parsed: exp.Query) -> bool:
    return any(parsed.find(kind) for kind in (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Lock, exp.Into))


def _closing_parenthesis(masked: str, opening: int) -> int:
    depth = 0
    for position in range(opening, len(masked)):
        depth += {"(": 1, ")": -1}.get(masked[position], 0)
        if depth == 0:
            return position
    return len(masked)
