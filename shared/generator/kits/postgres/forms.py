"""The forms of the kit's operations: which models, services and samples each has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from keyword import iskeyword
from typing import Any, Final

import msgspec

from omnibase_infra.shared.contracts.model import POSTGRES_POOL, SETTINGS, Contract, Operation
from omnibase_infra.shared.contracts.statement_file import StatementFile
from omnibase_infra.shared.generator.kits.postgres.shared_forms import SharedForm, shared_or_own
from omnibase_infra.shared.generator.kits.postgres.sql_types import AnalysedStatement, Column, Parameter
from omnibase_infra.shared.generator.names import model_name
from omnibase_infra.shared.generator.plan import (
    AliasPlan,
    FieldPlan,
    KitOperation,
    ModelPlan,
    RefusalPlan,
    ServicePlan,
    StructPlan,
)
from omnibase_infra.shared.generator.samples import WRONG, refusals_of, sample_fields
from omnibase_infra.shared.generator.services import service_plan

_TAG_FIELD: Final = "statement"
_QUERY_REQUEST: Final = "ModelPostgresQueryRequest"
_QUERY: Final = "ModelPostgresQueryResponse"
_HEALTH: Final = "ModelPostgresHealthResponse"
# Names that `processors/statements.py` has already.
_TABLES: Final = ("STATEMENTS", "COMMANDS")
_ROW_COUNT: Final = FieldPlan("row_count", "int", description="rows returned, or changed when none are returned.")


class PlannedStatement(msgspec.Struct, frozen=True):
    """A statement with what PostgreSQL said about it, and the names of its models."""

    path: str
    file: StatementFile
    analysis: AnalysedStatement

    @property
    def name(self) -> str:
        """Return the statement's name."""
        return self.file.name

    @property
    def constant(self) -> str:
        """Return the name of its constant in `processors/statements.py`."""
        name = self.name.upper()
        return f"{name}_" if name in _TABLES else name

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return its result columns."""
        return self.analysis.columns

    @property
    def parameters(self) -> str:
        """Return the name of its parameters model."""
        return model_name(self.name, "parameters")

    @property
    def row(self) -> str:
        """Return the name of its row model."""
        return model_name(self.name, "row")

    @property
    def command(self) -> str:
        """Return the name of the model that names it and holds its parameters."""
        return model_name(self.name, "command")

    @property
    def result(self) -> str:
        """Return the name of the model that names it and holds its result."""
        return model_name(self.name, "result")

    @property
    def parameter_fields(self) -> tuple[FieldPlan, ...]:
        """Return the fields of its parameters model."""
        return _fields(self.analysis.parameters)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Return the attributes of its parameters model, in $n order."""
        return tuple(field.name for field in self.parameter_fields)

    @property
    def sample(self) -> dict[str, Any]:
        """Return parameters that are accepted."""
        return sample_fields(self.parameter_fields)

    def shared_models(self) -> list[ModelPlan]:
        """Return its parameters and row models."""
        description = f"Parameters of `{self.name}`: {' '.join(self.file.description.split())}".rstrip(": ")
        models: list[ModelPlan] = [StructPlan(self.parameters, description, self.parameter_fields)]
        if self.columns:
            models.append(
                StructPlan(self.row, f"A row of `{self.name}`.", _fields(self.columns, results=True), kw_only=False)
            )
        return models

    def named_models(self) -> list[ModelPlan]:
        """Return the models for callers that name the statement."""
        rows = [FieldPlan("rows", f"list[{self.row}]", description="its rows.")] if self.columns else []
        return [
            *self.shared_models(),
            StructPlan(
                self.command,
                f"Runs `{self.name}`.",
                (FieldPlan("parameters", self.parameters, description="values of its parameters."),),
                _TAG_FIELD,
                self.name,
            ),
            StructPlan(self.result, f"What `{self.name}` gave.", (_ROW_COUNT, *rows), _TAG_FIELD, self.name),
        ]

    def named_payload(self) -> dict[str, Any]:
        """Return a payload that names the statement."""
        return {_TAG_FIELD: self.name, "parameters": self.sample}

    def named_refusals(self) -> list[RefusalPlan]:
        """Return payloads that name the statement and must be refused."""
        model = StructPlan(self.parameters, "", self.parameter_fields)
        return [
            RefusalPlan({_TAG_FIELD: self.name, "parameters": refusal.payload}, refusal.message)
            for refusal in refusals_of(model, self.sample, "parameters")
        ]


def _fields(items: Sequence[Parameter | Column], *, results: bool = False) -> tuple[FieldPlan, ...]:
    """Return model fields; parameters that may be null may be left out, columns are always there."""
    return tuple(
        FieldPlan(
            f"{item.name}_" if iskeyword(item.name) else item.name,
            item.annotation,
            "None" if item.nullable and not results else "",
            alias=item.name if iskeyword(item.name) else "",
        )
        for item in items
    )


def plan_statement(_contract: Contract, operation: Operation, statements: Sequence[PlannedStatement]) -> KitOperation:
    """`postgres.statement`: the parameters are the payload."""
    (statement,) = statements
    response = model_name(operation.name, "response")
    result = {
        "one": [FieldPlan("row", f"{statement.row} | None", description="its row, null when there is none.")],
        "many": [FieldPlan("rows", f"list[{statement.row}]", description="its rows.")],
        "exec": [],
    }[statement.file.cardinality]
    model = StructPlan(response, f"What `{operation.name}` gave.", (_ROW_COUNT, *result))
    parameters = StructPlan(statement.parameters, "", statement.parameter_fields)
    return KitOperation(
        request=statement.parameters,
        response=response,
        models=(*statement.shared_models(), model),
        payloads=(statement.sample,),
        refusals=(RefusalPlan([], "Expected `object`, got `array`"), *refusals_of(parameters, statement.sample)),
        options={"statements": (statement,), "statement": statement},
    )


def plan_statements(_contract: Contract, operation: Operation, statements: Sequence[PlannedStatement]) -> KitOperation:
    """`postgres.statements`: the payload names one of several and gives its parameters."""
    request, response = model_name(operation.name, "request"), model_name(operation.name, "response")
    aliases = (
        _union(
            request,
            f"What `{operation.name}` may be asked: one of the named statements.",
            [s.command for s in statements],
        ),
        _union(response, f"What `{operation.name}` answers.", [s.result for s in statements]),
    )
    return KitOperation(
        request=request,
        response=response,
        models=(*(model for statement in statements for model in statement.named_models()), *aliases),
        payloads=tuple(statement.named_payload() for statement in _inserts_first(statements)),
        refusals=(
            RefusalPlan([], "Expected `object`, got `array`"),
            RefusalPlan({_TAG_FIELD: "no_such_statement", "parameters": {}}, "Invalid value 'no_such_statement'"),
            *(refusal for statement in statements for refusal in statement.named_refusals()),
        ),
        options={"statements": tuple(statements), "named": True},
    )


def _inserts_first(statements: Sequence[PlannedStatement]) -> list[PlannedStatement]:
    """Examples that need no rows to be there come first."""
    return sorted(statements, key=lambda statement: not statement.file.sql.lower().startswith("insert"))


def plan_transaction(_contract: Contract, operation: Operation, statements: Sequence[PlannedStatement]) -> KitOperation:
    """`postgres.transaction`: several named statements in order, all or nothing."""
    command, result = model_name(operation.name, "command"), model_name(operation.name, "result")
    limit = int(operation.options["max_statements"])
    request = StructPlan(
        model_name(operation.name, "request"),
        "Statements to run in order, all or nothing.",
        (
            FieldPlan(
                "statements",
                f"Annotated[list[{command}], Meta(min_length=1, max_length={limit})]",
                description="what to run, in order.",
            ),
            FieldPlan("isolation", "IsolationLevel", "'read committed'", "isolation level of the transaction."),
        ),
    )
    response = StructPlan(
        model_name(operation.name, "response"),
        "What the statements gave.",
        (FieldPlan("results", f"list[{result}]", description="one per statement, in order."),),
    )
    named = _inserts_first(statements)[0].named_payload()
    payload = {"statements": [named], "isolation": "serializable"}
    return KitOperation(
        request=request.name,
        response=response.name,
        models=(
            *(model for statement in statements for model in statement.named_models()),
            _union(command, f"A statement of `{operation.name}`.", [s.command for s in statements]),
            _union(result, f"The result of a statement of `{operation.name}`.", [s.result for s in statements]),
            request,
            response,
        ),
        isolation="requests[0].isolation if requests else None",
        payloads=(payload,),
        refusals=(
            RefusalPlan([], "Expected `object`, got `array`"),
            RefusalPlan({"statements": []}, "`$.statements`"),
            RefusalPlan({**payload, "isolation": "chaos"}, "`$.isolation`"),
            RefusalPlan({"statements": [{**named, "parameters": WRONG}]}, "`$.statements[0].parameters`"),
        ),
        options={"statements": tuple(statements), "named": True, "max_statements": limit},
    )


def plan_query(contract: Contract, operation: Operation, _statements: Sequence[PlannedStatement]) -> KitOperation:
    """`postgres.query`: SQL text with bound parameters, read-only, off unless a role is set."""
    limit = int(operation.options["max_rows"])
    column = StructPlan(
        model_name(operation.name, "column"),
        "A column of a query's result.",
        (FieldPlan("name", "str"), FieldPlan("type", "str", description="PostgreSQL's name of its type.")),
    )
    request = StructPlan(
        model_name(operation.name, "request"),
        "SQL text and the values bound to it.",
        (
            FieldPlan("sql", "Annotated[Text, Meta(min_length=1)]", description="one query, with $1 to $n."),
            FieldPlan("parameters", "list[Any]", "[]", "values of $1 to $n, as JSON."),
            FieldPlan("max_rows", f"Annotated[int, Meta(ge=1, le={limit})]", str(limit), "rows the answer may hold."),
        ),
    )
    response = StructPlan(
        model_name(operation.name, "response"),
        "Rows of a query.",
        (
            FieldPlan("columns", f"list[{column.name}]"),
            FieldPlan("rows", "list[list[Any]]", description="values in the order of the columns."),
            FieldPlan("row_count", "int", description="rows in this answer."),
            FieldPlan("truncated", "bool", description="whether there was more than the limits allow."),
        ),
    )
    payload = {"sql": "SELECT $1::int + 1 AS result", "parameters": [41]}
    return KitOperation(
        request=request.name,
        response=response.name,
        models=shared_or_own(
            contract, (SharedForm(_QUERY_REQUEST, request, limit), SharedForm(_QUERY, response, 0, column))
        ),
        services=(_service(contract, POSTGRES_POOL), _service(contract, SETTINGS)),
        payloads=(payload,),
        refusals=(
            RefusalPlan([], "Expected `object`, got `array`"),
            RefusalPlan({"parameters": []}, "missing required field `sql`"),
            RefusalPlan({**payload, "sql": WRONG}, "`$.sql`"),
            RefusalPlan({**payload, "max_rows": limit + 1}, "`$.max_rows`"),
        ),
        options={"pool": POSTGRES_POOL},
    )


def plan_health(contract: Contract, operation: Operation, _statements: Sequence[PlannedStatement]) -> KitOperation:
    """`postgres.health`: whether the server answers, and the state of the pool. Never fails."""
    pool = StructPlan(
        model_name(operation.name, "pool"),
        "The connection pool at one moment.",
        (
            FieldPlan("size", "int", description="open connections."),
            FieldPlan("in_use", "int", description="handed out."),
            FieldPlan("idle", "int", description="open and free."),
            FieldPlan("waiting", "int", description="callers that wait for a connection."),
            FieldPlan("max", "int", description="connections at most."),
            FieldPlan("overdue", "int", "0", description="handed out for longer than the leak bound."),
        ),
    )
    request = StructPlan(model_name(operation.name, "request"), "Asks for the health of PostgreSQL.")
    response = StructPlan(
        model_name(operation.name, "response"),
        "How PostgreSQL is, seen from the worker.",
        (
            FieldPlan("status", "HealthState", description="healthy, degraded or unhealthy."),
            FieldPlan("latency_ms", "float | None", description="of one round trip; null when there was none."),
            FieldPlan("server_version", "str", description="empty when the server was not reached."),
            FieldPlan("pool", pool.name, description="connections of this process."),
            FieldPlan("message", "str", description="why it is not healthy; empty otherwise."),
            FieldPlan("role", "str", "''", description="primary or replica; empty when the server was not reached."),
            FieldPlan("latency_p50_ms", "float | None", "None", description="median of the last 200 round trips."),
            FieldPlan("latency_p95_ms", "float | None", "None", description="95th percentile of the same."),
            FieldPlan("latency_p99_ms", "float | None", "None", description="99th percentile of the same."),
            FieldPlan("error_rate", "float", "0.0", description="share of recent statements that the server failed."),
        ),
    )
    return KitOperation(
        request=request.name,
        response=response.name,
        models=(request, *shared_or_own(contract, (SharedForm(_HEALTH, response, 0, pool),))),
        services=(_service(contract, POSTGRES_POOL),),
        payloads=({},),
        refusals=(RefusalPlan([], "Expected `object`, got `array`"),),
        options={"pool": POSTGRES_POOL},
    )


def _union(name: str, description: str, members: Sequence[str]) -> AliasPlan:
    return AliasPlan(name, description, " | ".join(members))


def _service(contract: Contract, name: str) -> ServicePlan:
    return service_plan(next(item for item in contract.dependencies if item.name == name))


PLANNERS: Final[Mapping[str, Callable[[Contract, Operation, Sequence[PlannedStatement]], KitOperation]]] = {
    "postgres.statement": plan_statement,
    "postgres.statements": plan_statements,
    "postgres.transaction": plan_transaction,
    "postgres.query": plan_query,
    "postgres.health": plan_health,
}
