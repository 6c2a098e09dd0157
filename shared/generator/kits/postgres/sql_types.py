"""Statements and their types as the lock file keeps them, and as Python annotations."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

# Type names as in pg_type; the annotation's names are resolved to imports by `generator.imports`.
ANNOTATIONS: Final = {
    "int2": "SmallInt",
    "int4": "Integer",
    "int8": "BigInt",
    "text": "Text",
    "varchar": "Text",
    "bpchar": "Text",
    "name": "Text",
    "citext": "Text",
    "bool": "bool",
    "float4": "float",
    "float8": "float",
    "numeric": "Decimal",
    "uuid": "UUID",
    "timestamptz": "AwareDateTime",
    "timestamp": "NaiveDateTime",
    "date": "date",
    "time": "time",
    "interval": "timedelta",
    "json": "Any",
    "jsonb": "Any",
    "bytea": "bytes",
}
BatchRows = Literal["positional", "ordinal"]


class SqlType(msgspec.Struct, frozen=True, omit_defaults=True):
    """A type, domains resolved to what they are made of.

    Attributes:
        name: of the base or enum type, as in pg_type.
        sql: how SQL spells it, schema-qualified where needed, without length; arrays: their element.
        array: whether it is an array of that type.
        labels: of an enum, in its order.
    """

    name: str
    sql: str
    array: bool = False
    labels: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Return whether there is a Python type for it."""
        return bool(self.labels) or self.name in ANNOTATIONS

    def annotation(self, *, nullable: bool) -> str:
        """Return the annotation of a model field of this type."""
        element = f"Literal[{', '.join(map(repr, self.labels))}]" if self.labels else ANNOTATIONS[self.name]
        # PostgreSQL allows NULL in every array; JSON's null is a value of Any already.
        whole = f"list[{element if element == 'Any' else f'{element} | None'}]" if self.array else element
        return f"{whole} | None" if nullable and whole != "Any" else whole


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A statement's $n."""

    name: str
    type: SqlType
    nullable: bool = False

    @property
    def annotation(self) -> str:
        """Return the annotation of its field in the parameters model."""
        return self.type.annotation(nullable=self.nullable)


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column of a statement's result."""

    name: str
    type: SqlType
    nullable: bool = False

    @property
    def annotation(self) -> str:
        """Return the annotation of its field in the row model."""
        return self.type.annotation(nullable=self.nullable)


class AnalysedStatement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What PostgreSQL says about a statement. Kept in statements.lock.json.

    Attributes:
        parameters: in $n order.
        columns: of the result, in order.
        batch_sql: the form over arrays that PostgreSQL accepted; None: run one by one.
        batch_rows: how its rows belong to the inputs.
    """

    parameters: tuple[Parameter, ...] = ()
    columns: tuple[Column, ...] = ()
    batch_sql: str | None = None
    batch_rows: BatchRows = "positional"
