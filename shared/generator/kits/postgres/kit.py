"""The postgres kit: typed statements, transactions, queries and health on `shared.postgres`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from omnibase_infra.shared.contracts.kits import BUILT_IN_KITS
from omnibase_infra.shared.contracts.model import Contract, Operation
from omnibase_infra.shared.contracts.statement_file import StatementFile
from omnibase_infra.shared.core.errors import ContractError, Problem
from omnibase_infra.shared.generator.imports import model_import
from omnibase_infra.shared.generator.kits.interface import KitAnalysis, Servers, TestBlock
from omnibase_infra.shared.generator.kits.postgres import forms
from omnibase_infra.shared.generator.kits.postgres.forms import PlannedStatement
from omnibase_infra.shared.generator.kits.postgres.lock import LOCK_FILE, lock_keys, read_lock, write_lock
from omnibase_infra.shared.generator.kits.postgres.sql_types import AnalysedStatement
from omnibase_infra.shared.generator.plan import GenerationPlan, KitOperation, OperationPlan, SourceFile
from omnibase_infra.shared.generator.rendering import Templates

_TEMPLATES: Final = Templates(Path(__file__).parent / "templates")
# A role every server has; the test's user may take it on.
_WITH_ROLE: Final = 'Settings.model_validate({"env": "test", "postgres_query_role": "pg_read_all_data"})'
_WITHOUT_ROLE: Final = 'Settings.model_validate({"env": "test"})'
_FORMS: Final = ("statement", "statements", "transaction", "query", "health")

Facts = Mapping[str, PlannedStatement]


class PostgresKit(msgspec.Struct, frozen=True):
    """Operations on a PostgreSQL database."""

    name: str = "postgres"
    schemas: tuple[Any, ...] = tuple(BUILT_IN_KITS[f"postgres.{form}"] for form in _FORMS)

    def analyse(self, contract: Contract, servers: Servers) -> KitAnalysis:
        """Return what PostgreSQL says about the contract's statements, from the lock file as far as it holds.

        Raises:
            ContractError: PostgreSQL refuses migrations or statements; all of the statements' problems at once.
            DependencyUnavailableError, LocalServiceError: no server can be asked.
        """
        if not contract.statements:
            return KitAnalysis(facts={})
        keys = lock_keys(contract, contract.statements)
        lock = contract.folder / LOCK_FILE
        known = read_lock(lock.read_text(encoding="utf-8") if lock.is_file() else None, keys)
        missing = {path: statement for path, statement in contract.statements.items() if path not in known}
        analyses = known | (_ask(contract, missing, servers.postgres_dsn()) if missing else {})
        facts = {
            path: PlannedStatement(path, contract.statements[path], analyses[path])
            for path in sorted(contract.statements)
        }
        return KitAnalysis(facts=facts, locks=(write_lock(analyses, keys),))

    def plan_operation(self, contract: Contract, operation: Operation, facts: Facts) -> KitOperation:
        """Return models, services and samples of an operation."""
        statements = [facts[path] for path in operation.statements]
        return forms.PLANNERS[operation.kit](contract, operation, statements)

    def emit(self, plan: GenerationPlan, operations: Sequence[OperationPlan]) -> Iterable[SourceFile]:
        """Yield a processor per operation, and the table of statements they share."""
        statements = _statements(operations)
        if statements:
            content = _TEMPLATES.render(
                "statements.py.j2",
                plan=plan,
                statements=statements,
                commands=_commands(operations),
                models=model_import(plan, _table_models(statements, operations)),
            )
            yield SourceFile("processors/statements.py", content)
        for operation in operations:
            form = operation.kit.split(".", 1)[1]
            content = _TEMPLATES.render(
                f"processor_{form}.py.j2",
                plan=plan,
                operation=operation,
                models=model_import(plan, [operation.details.request, operation.details.response]),
                **operation.details.options,
            )
            yield SourceFile(f"processors/{operation.name}.py", content)

    def integration_tests(self, plan: GenerationPlan, operations: Sequence[OperationPlan]) -> TestBlock | None:
        """Return tests that run every statement, and every other operation, on the real PostgreSQL."""
        code = _TEMPLATES.render(
            "test_integration.py.j2",
            plan=plan,
            statements=_statements(operations),
            payloads=[(item.name, list(item.details.payloads)) for item in operations],
            queries=[operation for operation in operations if operation.kit == "postgres.query"],
            health_checks=[operation for operation in operations if operation.kit == "postgres.health"],
            arguments=_arguments(plan, _WITH_ROLE),
            off_arguments=_arguments(plan, _WITHOUT_ROLE),
        )
        imports, _, body = code.partition("# ---\n")
        return TestBlock(tuple(line for line in imports.splitlines() if line), body)


def _ask(contract: Contract, statements: Mapping[str, StatementFile], dsn: str) -> dict[str, AnalysedStatement]:
    # Drivers and parsers are needed only now.
    from omnibase_infra.shared.generator.kits.postgres.analysis import analyse_statement
    from omnibase_infra.shared.generator.kits.postgres.catalogue import Catalogue
    from omnibase_infra.shared.generator.kits.postgres.scratch_database import scratch_database

    migrations = [(name, contract.folder / name) for name in contract.migrations]
    analyses: dict[str, AnalysedStatement] = {}
    problems: list[Problem] = []
    with scratch_database(dsn, migrations) as connection:
        catalogue = Catalogue(connection)
        for path in sorted(statements):
            try:
                analyses[path] = analyse_statement(connection, catalogue, path, statements[path])
            except ContractError as error:
                problems.extend(error.problems)
    if problems:
        raise ContractError(problems)
    return analyses


def _statements(operations: Iterable[OperationPlan]) -> list[PlannedStatement]:
    """Return every statement of the operations once, sorted by name."""
    found = {
        statement.name: statement
        for operation in operations
        for statement in operation.details.options.get("statements", ())
    }
    return [found[name] for name in sorted(found)]


def _commands(operations: Iterable[OperationPlan]) -> list[PlannedStatement]:
    """Return the statements that callers name, sorted."""
    return _statements(operation for operation in operations if operation.details.options.get("named"))


def _table_models(statements: Sequence[PlannedStatement], operations: Sequence[OperationPlan]) -> list[str]:
    rows = [statement.row for statement in statements if statement.columns]
    commands = _commands(operations)
    return [*rows, *(s.command for s in commands), *(s.result for s in commands)]


def _arguments(plan: GenerationPlan, settings: str) -> str:
    """Return the node's constructor arguments in a test that has a pool."""
    known = {"PostgresConnectionPool": "pool", "Settings": settings}
    return ", ".join(f"{item.attribute}={known.get(item.class_name, item.example)}" for item in plan.services)


KIT: Final = PostgresKit()
