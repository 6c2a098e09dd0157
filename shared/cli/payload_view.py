"""Shows the payload of an answer to people: rows as tables, anything else as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omnibase_infra.shared.cli.console import cell_text, print_json, print_table


def print_payload(payload: Any) -> None:
    """Print a payload, given as plain JSON values.

    Recognised are the response models of the kits: `rows` or `row` of a statement, `columns` and `rows` of a query,
    `results` of a transaction.
    """
    if not isinstance(payload, Mapping):
        print_json(payload)
    elif isinstance(results := payload.get("results"), list) and results:
        for number, result in enumerate(results, start=1):
            print(f"{'' if number == 1 else chr(10)}result {number}")
            print_payload(result)
    elif not _print_rows(payload):
        print_json(payload)


def _print_rows(payload: Mapping[str, Any]) -> bool:
    """Print the rows of a payload and its other fields beneath; return whether it has any."""
    rows = [payload["row"]] if isinstance(payload.get("row"), Mapping) else payload.get("rows")
    if not isinstance(rows, list) or not rows:
        return False
    columns = _columns(payload.get("columns"), rows)
    if not columns:
        return False
    print_table(columns, [_cells(row, columns) for row in rows])
    rest = {name: value for name, value in payload.items() if name not in ("row", "rows", "columns")}
    if rest:
        print(f"\n{', '.join(f'{name}: {cell_text(value)}' for name, value in rest.items())}")
    return True


def _columns(given: Any, rows: Sequence[Any]) -> list[str]:
    if isinstance(given, list) and all(isinstance(column, Mapping) and "name" in column for column in given):
        return [str(column["name"]) for column in given]
    if all(isinstance(row, Mapping) for row in rows):
        return list(dict.fromkeys(name for row in rows for name in row))
    return []


def _cells(row: Any, columns: Sequence[str]) -> Sequence[Any]:
    return [row.get(column) for column in columns] if isinstance(row, Mapping) else list(row)
