"""From a contract file to a checked `Contract`, or to every problem of the file at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from omnibase_infra.shared.contracts.checks import run_checks
from omnibase_infra.shared.contracts.contract_hash import contract_hash
from omnibase_infra.shared.contracts.draft import build_draft, prune, sql_files
from omnibase_infra.shared.contracts.kit_checks import check_kit_options
from omnibase_infra.shared.contracts.kits import BUILT_IN_KITS, KitSchema
from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.schema_check import check_schema, report_missing_keys
from omnibase_infra.shared.contracts.statement_checks import read_statements
from omnibase_infra.shared.contracts.yaml_source import read_yaml
from omnibase_infra.shared.core.errors import ContractError, Problem


def load_contract(path: Path, kits: Mapping[str, KitSchema] = BUILT_IN_KITS) -> Contract:
    """Read and check a contract, the statements it runs and the migrations beside it.

    Args:
        path: the contract file.
        kits: the kits operations may use, by name; the built-in ones unless told otherwise.

    Raises:
        ContractError: every problem of the contract and its SQL files, each with file, line and column.
    """
    shown = shown_path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{(error.strerror or 'cannot be read').lower()}, expected a contract file"
        raise ContractError([Problem(shown, 1, 1, message, Rule.FILE_UNREADABLE.id)]) from error
    source = read_yaml(content, shown)
    if source.data is None:
        if not source.problems:
            source.add(Rule.WRONG_TYPE, "the document is nothing, expected a mapping", source.position(()))
        raise ContractError(source.problems)
    unusable = check_schema(source)
    if not isinstance(source.data, dict):
        raise ContractError(source.problems)
    unusable |= check_kit_options(source, prune(source.data, unusable), kits)
    report_missing_keys(source)
    draft = build_draft(source, unusable, path, kits)
    statements = read_statements(draft, shown[: len(shown) - len(path.name)])
    draft = draft._replace(contract=msgspec.structs.replace(draft.contract, statements=statements))
    run_checks(draft)
    if source.problems:
        raise ContractError(_without_repetition(source.problems))
    migrations = sql_files(path.parent, "migrations")
    return msgspec.structs.replace(
        draft.contract,
        migrations=tuple(migrations),
        sha256=contract_hash(content, path.parent, [*statements, *migrations]),
    )


def shown_path(path: Path) -> str:
    """Return the path as people see it: relative to where they are, when it lies below."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except (OSError, ValueError):
        return path.as_posix()


def _without_repetition(problems: list[Problem]) -> list[Problem]:
    return sorted(set(problems))
