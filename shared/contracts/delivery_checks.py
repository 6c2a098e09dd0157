"""Delivery, batching, limits and resources: values that contradict one another."""

from __future__ import annotations

from collections.abc import Callable

from omnibase_infra.shared.contracts.draft import Draft
from omnibase_infra.shared.contracts.kit_checks import declared_services
from omnibase_infra.shared.contracts.model import POSTGRES_POOL, Operation
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.schema_check import did_you_mean
from omnibase_infra.shared.contracts.units import format_duration, parse_cpu, parse_duration, parse_memory
from omnibase_infra.shared.contracts.yaml_source import Path

_KAFKA_SERVICE = "kafka_producer_pool"


def check_guarantee(draft: Draft) -> None:
    """The guarantee has what it rests on."""
    contract, place = draft.contract, ("delivery", "guarantee")
    services = declared_services(draft)
    whole = draft.whole(("dependencies",))
    pool = f"add {{name: {POSTGRES_POOL}, type: service, class_name: PostgresConnectionPool}} to dependencies"
    if draft.has(place) and whole:
        if contract.delivery.guarantee == "effectively_once" and POSTGRES_POOL not in services:
            message = f"effectively_once keeps inbox and outbox in PostgreSQL: {pool}"
            draft.report(Rule.INBOX_NEEDS_POSTGRES, message, place)
        others = sorted(services - {_KAFKA_SERVICE})
        if contract.delivery.guarantee == "transactional" and others:
            message = f"a Kafka transaction cannot take back an effect on {', '.join(others)}; use effectively_once"
            draft.report(Rule.TRANSACTIONAL_EFFECT, message, place)
        unexplained = not contract.idempotency and draft.whole(("idempotency",))
        if contract.delivery.guarantee == "at_least_once" and unexplained and not _only_reads(draft):
            message = "at_least_once repeats effects after a crash: say in `idempotency` why that is harmless"
            draft.report(Rule.IDEMPOTENCY, message, place)
    if contract.delivery.on_dead_letter == "hold":
        place = ("delivery", "on_dead_letter")
        if draft.operations and all(operation.ordering == "none" for operation, _ in draft.operations):
            message = "hold keeps later records of a key back, but no operation has `ordering: key`"
            draft.report(Rule.ORDERING, message, place)


def check_journals(draft: Draft) -> None:
    """An effect elsewhere that happens once has an inbox, and changes something."""
    guarantee = draft.contract.delivery.guarantee
    for operation, path in draft.operations:
        journaled = operation.options.get("effect") == "journal"
        if journaled and draft.has(("delivery", "guarantee")) and guarantee != "effectively_once":
            message = f"effect: journal keeps intents beside the inbox, which {guarantee} has not; use effectively_once"
            draft.report(Rule.JOURNAL, message, (*path, "effect"))
        elif journaled and operation.options.get("read_only") is True:
            draft.report(Rule.JOURNAL, "what is read only has no effect to write down", (*path, "effect"))
        if operation.options.get("repeatable") is True and not journaled:
            message = "`repeatable` is about an effect elsewhere, which needs `effect: journal`"
            draft.report(Rule.JOURNAL, message, (*path, "repeatable"))


def _only_reads(draft: Draft) -> bool:
    return bool(draft.operations) and all(_reads(draft, operation) for operation, _ in draft.operations)


def _reads(draft: Draft, operation: Operation) -> bool:
    kit = draft.kits.get(operation.kit)
    if kit is None or kit.read_only or operation.options.get("read_only") is True:
        return True  # an unknown kit has its own message
    statements = [draft.contract.statements.get(path) for path in operation.statements]
    return bool(statements) and all(statement is not None and statement.read_only for statement in statements)


def check_retry(draft: Draft) -> None:
    """Delays grow, and dead-letter limits can be reached."""
    place: Path = ("delivery", "retry", "tiers")
    texts = draft.data.get("delivery", {}).get("retry", {}).get("tiers", [])
    if len(texts) == len(draft.contract.delivery.retry.tiers):
        previous = 0.0
        for index, delay in enumerate(draft.contract.delivery.retry.tiers):
            if draft.has((*place, index)) and delay <= previous:
                expected = f"more than {format_duration(previous)}" if previous else "more than nothing"
                message = f"the delay {texts[index]} does not grow, expected {expected}"
                draft.report(Rule.RETRY_TIERS, message, (*place, index))
            previous = max(previous, delay)
    limit = draft.contract.delivery.dead_letter_limit
    if draft.has(("delivery", "dlq", "limit")) and limit.consecutive > limit.window:
        message = f"{limit.consecutive} in a row never come within a window of {limit.window}: the ratio stops the worker first"
        draft.report(Rule.DEAD_LETTER_LIMIT, message, ("delivery", "dlq", "limit", "consecutive"))


def check_batches(draft: Draft) -> None:
    """Batches fit their kit, their time-out and their order."""
    for operation, path in draft.operations:
        place = (*path, "timeout")
        if draft.has(place) and parse_duration(draft.data["io_operations"][path[1]]["timeout"]) == 0:
            draft.report(Rule.OUT_OF_RANGE, "the time-out is nothing, expected more than 0s", place)
        if operation.batch is None:
            continue
        kit = draft.kits.get(operation.kit)
        if kit is not None and not kit.batchable:
            message = f"the kit {kit.name} handles one record at a time; remove `batch`"
            draft.report(Rule.BATCH_KIT, message, (*path, "batch"), of_key=True)
        if operation.batch.linger >= operation.timeout:
            message = (
                f"a batch may wait {format_duration(operation.batch.linger)} for more records, "
                f"the time-out is {format_duration(operation.timeout)}; expected less"
            )
            draft.report(Rule.BATCH_VALUES, message, (*path, "batch", "linger_ms"))


def check_rate_limits(draft: Draft) -> None:
    """Rate limits name operations there are, and refuse only what is answered."""
    names = {operation.name for operation, _ in draft.operations}
    for limit, path in draft.rate_limits:
        if limit.operation is not None and limit.operation not in names and draft.whole(("io_operations",)):
            message = f"there is no operation {limit.operation!r}{did_you_mean(limit.operation, names)}"
            draft.report(Rule.RATE_LIMIT, message, (*path, "operation"))
        if limit.on_limit == "refuse" and draft.whole(("io_operations",)):
            silent = [one.name for one, _ in draft.operations if limit.operation in (None, one.name) and not one.answer]
            if silent:
                message = f"{', '.join(silent)} answers nothing: what is refused would be lost; use `wait`"
                draft.report(Rule.REFUSAL_UNANSWERED, message, (*path, "on_limit"))


def check_capabilities(draft: Draft) -> None:
    """Capability names are unique."""
    seen: set[str] = set()
    for capability, path in draft.capabilities:
        if capability.name and capability.name in seen:
            message = f"the capability {capability.name!r} is listed twice; rename or remove one"
            draft.report(Rule.CAPABILITY_TWICE, message, (*path, "name"))
        seen.add(capability.name)


def check_resources(draft: Draft) -> None:
    """Requests lie within limits, and replicas within partitions."""
    resources = draft.contract.resources
    cpu_place: Path = ("resources", "limits", "cpu")
    if resources.cpu_limit is not None:
        _check_within(draft, parse_cpu, resources.cpu_request, resources.cpu_limit, cpu_place)
    memory_place: Path = ("resources", "limits", "memory")
    _check_within(draft, parse_memory, resources.memory_request, resources.memory_limit, memory_place)
    replicas: Path = ("resources", "replicas")
    if resources.replicas_min > resources.replicas_max:
        message = (
            f"at least {resources.replicas_min} replicas and at most {resources.replicas_max} contradict each other"
        )
        draft.report(Rule.RESOURCES, message, (*replicas, "min"))
    bus = draft.contract.event_bus
    widest = max((item.partitions or bus.partitions for item in bus.subscribe), default=0)
    if widest and draft.has((*replicas, "max")) and resources.replicas_max > widest:
        message = f"{resources.replicas_max} replicas for {widest} partitions: those above {widest} would idle"
        draft.report(Rule.RESOURCES, message, (*replicas, "max"))


def _check_within(draft: Draft, parse: Callable[[str], int], request: str, limit: str, place: Path) -> None:
    try:
        exceeded = parse(request) > parse(limit)
    except ValueError as error:
        draft.report(Rule.MALFORMED, str(error), place)
        return
    if exceeded:
        message = f"the request {request} is above the limit {limit}"
        own = draft.has(place)
        draft.report(Rule.RESOURCES, message, place if own else ("resources", "requests", place[-1]))
