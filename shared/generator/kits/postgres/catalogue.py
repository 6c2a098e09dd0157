"""What analysis needs from PostgreSQL's catalogue: types behind oids, NOT NULL of columns, quoting of names."""

from __future__ import annotations

import psycopg

from omnibase_infra.shared.generator.kits.postgres.sql_types import SqlType

# Follows domains down to their base type; an array's row carries its element's oid.
_TYPE = """
WITH RECURSIVE chain AS (
    SELECT oid, typtype, typbasetype FROM pg_type WHERE oid = %(oid)s
    UNION ALL
    SELECT inner_type.oid, inner_type.typtype, inner_type.typbasetype
    FROM pg_type AS inner_type JOIN chain ON chain.typtype = 'd' AND inner_type.oid = chain.typbasetype
)
SELECT t.typname, format_type(t.oid, -1), t.typtype, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END
FROM chain JOIN pg_type AS t USING (oid) WHERE t.typtype <> 'd'
"""
_LABELS = "SELECT enumlabel FROM pg_enum WHERE enumtypid = (SELECT to_regtype(%s)::oid) ORDER BY enumsortorder"
_NOT_NULL = "SELECT attnotnull FROM pg_attribute WHERE attrelid = %s AND attnum = %s"


class Catalogue:
    """Answers from one database, each asked once."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._types: dict[int, SqlType] = {}

    def type_of(self, oid: int) -> SqlType:
        """Return the type behind an oid."""
        if oid not in self._types:
            self._types[oid] = self._read_type(oid)
        return self._types[oid]

    def _read_type(self, oid: int) -> SqlType:
        row = self._connection.execute(_TYPE, {"oid": oid}).fetchone()
        if row is None:
            raise LookupError(f"PostgreSQL knows no type {oid}")
        name, sql, kind, element = row
        if element:
            inner = self.type_of(element)
            # An array of arrays does not exist; an array of a domain over an array does, and has no counterpart.
            return SqlType(name, sql) if inner.array else SqlType(inner.name, inner.sql, True, inner.labels)
        if kind != "e":
            return SqlType(name, sql)
        labels = [label for (label,) in self._connection.execute(_LABELS, [sql])]
        return SqlType(name, sql, labels=tuple(labels))

    def is_not_null(self, table: int, column: int) -> bool:
        """Return whether a result column is a table's column that is NOT NULL."""
        if not table:
            return False
        row = self._connection.execute(_NOT_NULL, [table, column]).fetchone()
        return bool(row and row[0])

    def quoted(self, name: str) -> str:
        """Return the name as SQL must spell it."""
        row = self._connection.execute("SELECT quote_ident(%s)", [name]).fetchone()
        return str(row[0]) if row else name
