"""The parts of a worker, made and put together for its contract: what the event loop's side of it consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Consumer

from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.ports import EffectStore, RecordProducer, WorkerNode
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.resilience.circuit_breaker_factory import CircuitBreakerFactory
from omnibase_infra.shared.resilience.retry_budget import RetryBudget
from omnibase_infra.shared.resilience.retry_policy import RETRY_PRESETS
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.careful import Careful
from omnibase_infra.shared.runtime.dead_letters import DeadLetters
from omnibase_infra.shared.runtime.delivery import Delivery, OutputDelivery
from omnibase_infra.shared.runtime.dependencies import Dependencies
from omnibase_infra.shared.runtime.executor import Executor
from omnibase_infra.shared.runtime.intake import Intake
from omnibase_infra.shared.runtime.lane_retry import IN_LANE, IN_LANE_BUDGET, LaneRetry
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.observed_execution import ObservedExecution
from omnibase_infra.shared.runtime.parking import Parking
from omnibase_infra.shared.runtime.rate_gate import RateGate
from omnibase_infra.shared.runtime.record_spans import RecordSpans
from omnibase_infra.shared.runtime.records import Record
from omnibase_infra.shared.runtime.refusal_answers import RefusalAnswers
from omnibase_infra.shared.runtime.refused_outputs import RefusedOutputs
from omnibase_infra.shared.runtime.transaction_stage import TransactionStage
from omnibase_infra.shared.runtime.transactional_commits import TransactionalCommits, TransactionSupport
from omnibase_infra.shared.runtime.unknown_operation import UnknownOperationHandler, unknown_operation_spec

if TYPE_CHECKING:  # loads the tracing library
    from omnibase_infra.shared.observability.tracer_factory import Tracing

MakeCommits = Callable[[Consumer], TransactionalCommits]


class WorkerParts(NamedTuple):
    """What a worker consists of on its event loop.

    Attributes:
        make_commits: of a transactional worker, what commits outputs and offsets together.
    """

    lanes: Lanes
    intake: Intake
    dependencies: Dependencies
    parking: Parking
    careful: Careful
    executor: Executor
    make_commits: MakeCommits | None


def build_parts(  # noqa: PLR0913 - what surrounds them
    node: WorkerNode,
    settings: Settings,
    *,
    producer: RecordProducer | TransactionSupport,
    stores: Mapping[str, EffectStore],
    metrics: WorkerMetrics,
    log: Any,
    on_left: Callable[[int, int], None],
    on_dependency: Callable[[], None],
    on_late_death: Callable[[], None],
    tracing: Tracing | None = None,
) -> WorkerParts:
    """Return the parts of a worker.

    Args:
        node / settings / producer / stores / metrics / log: see `Worker`.
        on_left: told of (records, bytes) of source topics that left the worker.
        on_dependency: told that a dependency has become usable or unusable.
        on_late_death: told, on the consumer thread, of a dead letter of a record that had finished.
        tracing: of the process; None traces nothing.

    Raises:
        ValueError: the producer does not fit the contract's guarantee.
    """
    spec, realm = node.spec, settings.realm
    group = realm.group(spec.worker, spec.major)
    lanes = Lanes(on_left)
    retries = metrics.retries(IN_LANE)
    budget = RetryBudget(IN_LANE_BUDGET, metrics=retries)
    dependencies = Dependencies(spec, stores, CircuitBreakerFactory(metrics.dependencies), on_dependency, budget)
    intake = Intake(spec, realm, lanes.by_operation, _add_lanes(node, lanes, dependencies))
    answers = Answers(spec, realm, settings.max_record_bytes)
    dead_letters = DeadLetters(spec, group)
    delivery, make_commits = _delivery(
        spec,
        producer,
        answers=answers,
        dead_letters=dead_letters,
        metrics=metrics,
        log=log,
        on_late_death=on_late_death,
    )

    def refuse(record: Record, error: BaseException) -> None:
        executor.refuse(record, error)

    parking = lanes.parking = Parking(
        spec,
        group,
        lanes=lanes,
        intake=intake,
        delivery=delivery,
        dead_letters=dead_letters,
        refuse=refuse,
        metrics=metrics,
        log=log,
        max_records=settings.max_parked_records,
        max_bytes=settings.max_parked_bytes,
    )
    careful = Careful(log)
    executor = Executor(
        spec,
        lanes=lanes,
        execution=ObservedExecution(
            spec, answers, dict(stores), RecordSpans(tracing, spec, group, metrics) if tracing is not None else None
        ),
        delivery=delivery,
        dead_letters=dead_letters,
        refusal_answers=RefusalAnswers(spec, realm, answers),
        retry=LaneRetry.of_contract(spec.retry, budget, retries),
        metrics=metrics,
        log=log,
        parking=parking,
        careful=careful,
        rates=RateGate.of_worker(spec, settings, metrics),
    )
    return WorkerParts(lanes, intake, dependencies, parking, careful, executor, make_commits)


def _delivery(
    spec: WorkerSpec,
    producer: RecordProducer | TransactionSupport,
    *,
    answers: Answers,
    dead_letters: DeadLetters,
    metrics: WorkerMetrics,
    log: Any,
    on_late_death: Callable[[], None],
) -> tuple[OutputDelivery, MakeCommits | None]:
    """Return where outputs go and, when offsets go with them, what commits both."""
    if (spec.guarantee == "transactional") != isinstance(producer, TransactionSupport):
        raise ValueError(f"{spec.worker} is {spec.guarantee}, its producer is not")
    if not isinstance(producer, TransactionSupport):
        retries = metrics.retries("kafka").retries

        def failed(error: DeliveryError) -> None:
            retries.inc()
            log.warning(LogEvent.DELIVERY_FAILED, error=error.message, records=len(error.errors))

        return Delivery(producer, RETRY_PRESETS["kafka"], failed), None
    support, stage = producer, TransactionStage(producer.check)
    refused = RefusedOutputs(spec, answers=answers, dead_letters=dead_letters, log=log, on_dead_letter=on_late_death)

    def make_commits(consumer: Consumer) -> TransactionalCommits:
        return TransactionalCommits(consumer, metrics, log, stage=stage, support=support, replace=refused.replacement)

    return stage, make_commits


def _add_lanes(node: WorkerNode, lanes: Lanes, dependencies: Dependencies) -> Lane:
    """Make a lane per operation, and the one for operations the contract lacks, which is returned."""
    for operation in node.spec.operations:
        lanes.add(Lane(operation, node.handlers[operation.name], dependencies.gate(operation.needs)))
    operation = unknown_operation_spec(node.spec)
    unknown = Lane(operation, UnknownOperationHandler(node.spec), dependencies.gate(operation.needs))
    lanes.add(unknown)
    return unknown
