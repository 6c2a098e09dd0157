"""The SQL files beside a contract: statements that operations run, and migrations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from omnibase_infra.shared.contracts.draft import Draft, sql_files
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.schema_check import did_you_mean
from omnibase_infra.shared.contracts.statement_file import StatementFile, parse_statement_file
from omnibase_infra.shared.contracts.yaml_source import Path, Position
from omnibase_infra.shared.core.errors import ContractError, Problem

_MIGRATION: Final = re.compile(r"([0-9]{4})_[a-z][a-z0-9_]*\.sql\Z", re.ASCII)


def read_statements(draft: Draft, shown_folder: str) -> dict[str, StatementFile]:
    """Parse every statement file of the contract; report what is wrong with files and references to them.

    Args:
        draft: the contract; its source collects the problems.
        shown_folder: how problems name the contract's folder, with a closing slash, or empty.
    """
    folder = draft.contract.folder
    present = set(sql_files(folder, "statements"))
    used: set[str] = set()
    for operation, path in draft.operations:
        kit = draft.kits.get(operation.kit)
        for key, option in (kit.options if kit else {}).items():
            if option.role not in ("statement_file", "statement_files"):
                continue
            _check_references(draft, (*path, key), present)
            if option.role == "statement_files" and not operation.statements:
                message = f"{operation.name or 'the operation'} has no statements: there is no file in statements/"
                draft.report(Rule.STATEMENT_FILE, message, (*path, "kit"))
        used.update(operation.statements)
    parsed: dict[str, StatementFile] = {}
    for name in sorted(present):
        try:
            parsed[name] = parse_statement_file(folder / name, f"{shown_folder}{name}")
        except ContractError as error:
            draft.source.problems.extend(error.problems)
    _check_unused(draft, present - used, shown_folder)
    _check_migrations(draft, folder, shown_folder)
    return {name: parsed[name] for name in sorted(used & parsed.keys())}


def _check_references(draft: Draft, path: Path, present: set[str]) -> None:
    entry = draft.data["io_operations"][path[1]].get(path[2])
    stated: list[tuple[Any, Path]] = [(entry, path)] if isinstance(entry, str) else []
    if isinstance(entry, list):
        stated = [(item, (*path, index)) for index, item in enumerate(entry)]
    for name, place in stated:
        if isinstance(name, str) and name not in present:
            message = f"there is no file {name!r} beside the contract{did_you_mean(name, present)}"
            draft.report(Rule.STATEMENT_FILE, message, place)


def _check_unused(draft: Draft, unused: set[str], shown_folder: str) -> None:
    kits_are_known = all(operation.kit in draft.kits for operation, _ in draft.operations)
    if not kits_are_known or not draft.operations or not draft.whole(("io_operations",)):
        return  # who would use the file cannot be told
    for name in sorted(unused):
        message = "no operation of the contract runs this statement; name it there, or remove the file"
        draft.source.problems.append(Problem(f"{shown_folder}{name}", 1, 1, message, Rule.STATEMENT_UNUSED.id))


def _check_migrations(draft: Draft, folder: FilePath, shown_folder: str) -> None:
    for expected, name in enumerate(sql_files(folder, "migrations"), start=1):
        match = _MIGRATION.match(name.removeprefix("migrations/"))
        if match is None:
            message = f"the file name is malformed, expected {expected:04d}_what_it_does.sql"
        elif int(match[1]) != expected:
            message = f"the migration has number {match[1]}, expected {expected:04d}: numbers count from 0001, no gaps"
        else:
            continue
        place = Position(1, 1)
        draft.source.problems.append(
            Problem(f"{shown_folder}{name}", place.line, place.column, message, Rule.MIGRATION_NAME.id)
        )


def names_by_operation(statements: Mapping[str, StatementFile], paths: tuple[str, ...]) -> dict[str, StatementFile]:
    """Return an operation's statements by the names callers use."""
    return {statements[path].name: statements[path] for path in paths if path in statements}
