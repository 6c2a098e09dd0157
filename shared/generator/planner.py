"""From a checked contract to the plan of its node. Pure, apart from what kits ask their servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from keyword import iskeyword
from typing import Final

from omnibase_infra.shared.contracts.kits import SERVERS, KitSchema, server_of
from omnibase_infra.shared.contracts.model import Contract, Operation, RateLimit
from omnibase_infra.shared.core.errors import ContractError, Problem
from omnibase_infra.shared.core.worker_spec import (
    RUNTIME_GENERATION,
    DeadLetterSpec,
    Guarantee,
    OperationSpec,
    RateLimitSpec,
    RetrySpec,
    WorkerSpec,
)
from omnibase_infra.shared.generator.definitions import definition_models
from omnibase_infra.shared.generator.kits.discovery import kit_of, schemas_of
from omnibase_infra.shared.generator.kits.interface import Kit, Servers
from omnibase_infra.shared.generator.plan import (
    GenerationPlan,
    KitOperation,
    ModelPlan,
    OperationPlan,
    ServicePlan,
)
from omnibase_infra.topics.declarations import topic_settings

FAILED_MODEL: Final = "ModelErrorResponse"
# What the node's class and the folder of processors have already.
_RESERVED: Final = ("handlers", "spec", "statements")


def make_plan(contract: Contract, package: str, kits: Mapping[str, Kit], servers: Servers) -> GenerationPlan:
    """Return the plan of a contract's node.

    Args:
        contract: loaded with the schemas of `kits`.
        package: import path of the node's version folder.
        kits: by name.
        servers: for kits whose locks no longer hold.

    Raises:
        ContractError: something the contract says cannot be generated; located.
        DependencyUnavailableError, LocalServiceError: a server is needed and cannot be asked.
    """
    _refuse_reserved_names(contract)
    schemas = schemas_of(kits)
    used = sorted({kit_of(kits, operation.kit).name for operation in contract.operations})
    analyses = {name: kits[name].analyse(contract, servers) for name in used}
    operations = []
    for operation in contract.operations:
        kit = kit_of(kits, operation.kit)
        details = kit.plan_operation(contract, operation, analyses[kit.name].facts)
        spec = _operation_spec(contract, operation, schemas[operation.kit], details)
        operations.append(OperationPlan(operation.name, operation.kit, operation.description, spec, details))
    models = [model for operation in operations for model in operation.details.models]
    return GenerationPlan(
        contract=contract,
        package=package,
        spec=_worker_spec(contract, operations),
        operations=tuple(operations),
        models=_unique_models(contract, [*models, *definition_models(contract.definitions)]),
        services=_unique_services(operations),
        locks=tuple(lock for name in used for lock in analyses[name].locks),
    )


def schema_urn(contract: Contract, model: str) -> str:
    """Return the `dataschema` of a payload model."""
    return f"urn:omnibase:{contract.worker}:{model}:{contract.version}"


def _refuse_reserved_names(contract: Contract) -> None:
    """An operation becomes a method and a module; some names cannot be either."""
    # The node looks for how an effect elsewhere ended by a method of its own.
    looks = {f"resolve_{item.name}" for item in contract.operations if item.options.get("effect") == "journal"}
    problems = [
        Problem(
            contract.path.name, 1, 1, f"an operation cannot be called {item.name!r}, the name is reserved; rename it"
        )
        for item in contract.operations
        if iskeyword(item.name) or item.name in _RESERVED or item.name in looks
    ]
    if problems:
        raise ContractError(problems)


def _operation_spec(
    contract: Contract, operation: Operation, schema: KitSchema, details: KitOperation
) -> OperationSpec:
    guarantee = _guarantee(contract, operation, schema)
    # The inbox row of an operation that happens once lives in the same PostgreSQL transaction as its effect.
    inbox = ("postgres",) if guarantee == "effectively_once" else ()
    answers = operation.answer and contract.answer_topic is not None
    return OperationSpec(
        name=operation.name,
        topic=str(operation.topic),
        event_type=str(operation.trigger),
        request_schema=schema_urn(contract, details.request),
        completed_type=str(operation.completed) if answers else "",
        failed_type=str(operation.failed) if answers else "",
        completed_schema=schema_urn(contract, details.response) if answers else "",
        failed_schema=schema_urn(contract, FAILED_MODEL) if answers else "",
        answer_topic=str(contract.answer_topic) if answers else "",
        needs=tuple(name for name in dict.fromkeys((*operation.needs, *inbox)) if name in SERVERS),
        guarantee=guarantee,
        ordering=operation.ordering,
        batch_max=operation.batch.max if operation.batch else 1,
        linger_seconds=operation.batch.linger if operation.batch else 0.0,
        concurrency=operation.concurrency,
        timeout_seconds=operation.timeout,
        effect=operation.options.get("effect", "transaction"),
        repeatable=operation.options.get("repeatable", False),
    )


def _guarantee(contract: Contract, operation: Operation, schema: KitSchema) -> Guarantee:
    """What changes nothing may be repeated: it needs no inbox, and answers while PostgreSQL is down."""
    if schema.read_only or operation.options.get("read_only"):
        return "at_least_once"
    return contract.delivery.guarantee


def _worker_spec(contract: Contract, operations: Iterable[OperationPlan]) -> WorkerSpec:
    declared = [server_of(item.name) for item in contract.dependencies if item.type == "service"]
    needed = [need for operation in operations for need in operation.spec.needs]
    dependencies = dict.fromkeys(name for name in (*declared, *needed) if name)
    retry, limit = contract.delivery.retry, contract.delivery.dead_letter_limit
    return WorkerSpec(
        generation=RUNTIME_GENERATION,
        node=contract.node,
        worker=contract.worker,
        class_name=contract.name,
        version=str(contract.version),
        contract_sha256=contract.sha256,
        description=contract.description,
        node_type=contract.node_type,
        subscribe=tuple(str(item.topic) for item in contract.event_bus.subscribe),
        publish=tuple(str(item.topic) for item in contract.event_bus.publish),
        reply_topics=tuple(str(topic) for topic in contract.event_bus.reply_topics),
        partitions=contract.event_bus.partitions,
        topic_settings=topic_settings(contract),
        start=contract.event_bus.start,
        guarantee=contract.delivery.guarantee,
        dependencies=tuple(dependencies),
        operations=tuple(operation.spec for operation in operations),
        retry=RetrySpec(in_lane=retry.in_lane, tiers=retry.tiers, jitter=retry.jitter),
        dead_letters=DeadLetterSpec(
            consecutive=limit.consecutive,
            ratio=limit.ratio,
            window=limit.window,
            then=contract.delivery.on_dead_letter,
        ),
        rate_limits=tuple(_rate_limit_spec(limit) for limit in contract.rate_limits),
        max_record_bytes=contract.limits.max_record_bytes,
        max_depth=contract.limits.max_depth,
        max_fields=contract.limits.max_fields,
    )


def _rate_limit_spec(limit: RateLimit) -> RateLimitSpec:
    return RateLimitSpec(
        per=limit.per,
        count=limit.limit.count,
        seconds=int(limit.limit.period),
        burst=limit.burst,
        operation=limit.operation or "",
        on_limit=limit.on_limit,
    )


def _unique_models(contract: Contract, models: Iterable[ModelPlan]) -> tuple[ModelPlan, ...]:
    """Return each model once, sorted by name; two different models of one name are the contract's mistake."""
    by_name: dict[str, ModelPlan] = {}
    problems = []
    for model in models:
        if by_name.setdefault(model.name, model) != model:
            message = f"two different models would be called {model.name}; rename the definition or the operation"
            problems.append(Problem(contract.path.name, 1, 1, message))
    if problems:
        raise ContractError(problems)
    return tuple(by_name[name] for name in sorted(by_name))


def _unique_services(operations: Iterable[OperationPlan]) -> tuple[ServicePlan, ...]:
    return tuple(sorted({service for operation in operations for service in operation.details.services}))
