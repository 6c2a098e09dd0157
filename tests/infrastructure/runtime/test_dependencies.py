"""A dependency that is down holds back what needs it and nothing else, is probed by one, and is shown."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.resilience.circuit_breaker_factory import CircuitBreakerFactory
from omnibase_infra.shared.runtime.dependencies import Dependencies, DependencyGate
from omnibase_infra.shared.testing.manual_clock import ManualClock

ORDERS, LABELS, CONTROL = "onex.cmd.shop.orders.v1", "onex.cmd.shop.labels.v1", "onex.cmd.shop.control.v1"
SPEC = WorkerSpec(
    generation=1,
    node="shop",
    worker="shop",
    class_name="Shop",
    version="1.0.0",
    contract_sha256="0" * 64,
    description="",
    node_type="effect",
    subscribe=(ORDERS, LABELS, CONTROL),
    publish=(),
    dependencies=("postgres", "vault"),
    operations=(
        OperationSpec(name="order", topic=ORDERS, event_type="order", needs=("postgres",)),
        OperationSpec(name="label", topic=LABELS, event_type="label", needs=("postgres", "vault")),
        OperationSpec(name="health_check", topic=CONTROL, event_type="health"),
    ),
)


class Store:
    """A dependency that answers or not."""

    def __init__(self, dependency: str) -> None:
        self.dependency = dependency
        self.down = False

    def session(self, isolation: Any = None) -> Any:
        raise NotImplementedError

    async def ping(self) -> None:
        if self.down:
            raise DependencyUnavailableError("down", dependency=self.dependency)


class Shop:
    """The dependencies of one worker, a gate per operation, and a clock."""

    def __init__(self, spec: WorkerSpec = SPEC) -> None:
        self.clock = ManualClock()
        self.registry = MetricsRegistry(process_metrics=False)
        breakers = CircuitBreakerFactory(
            WorkerMetrics(self.registry, spec).dependencies, clock=self.clock, uniform=lambda: 0.0
        )
        self.changes = 0
        self.stores = {name: Store(name) for name in spec.dependencies}
        self.dependencies = Dependencies(spec, self.stores, breakers, self._changed)
        self.gates = {one.name: self.dependencies.gate(one.needs) for one in spec.operations}

    def _changed(self) -> None:
        self.changes += 1

    def fail(self, operation: str, dependency: str, times: int = 10) -> None:
        """Let work of an operation find a dependency down, until its breaker opens."""
        for _ in range(times):
            passage = self.gates[operation].enter()
            if passage is None:
                return
            passage.failed(DependencyUnavailableError("down", dependency=dependency))

    def open_gates(self) -> set[str]:
        return {name for name, gate in self.gates.items() if _is_open(gate)}

    def metric(self, name: str, dependency: str) -> float:
        lines = self.registry.exposition().decode().splitlines()
        (line,) = (one for one in lines if one.startswith(f"{name}{{") and f'dependency="{dependency}"' in one)
        return float(line.rpartition(" ")[2])


def _is_open(gate: DependencyGate) -> bool:
    passage = gate.enter()
    if passage is not None:
        passage.release()
    return passage is not None


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_while_all_answer_every_gate_is_open_and_no_topic_waits(shop: Shop) -> None:
    assert shop.open_gates() == {"order", "label", "health_check"}
    assert shop.dependencies.blocked_topics() == frozenset()


def test_only_operations_and_topics_that_need_what_is_down_wait(shop: Shop) -> None:
    shop.fail("label", "vault")
    assert shop.open_gates() == {"order", "health_check"}
    assert shop.dependencies.blocked_topics() == {LABELS}


def test_a_topic_some_of_whose_operations_need_nothing_that_is_down_is_not_paused() -> None:
    mixed = OperationSpec(name="price", topic=LABELS, event_type="price", needs=("postgres",))
    shop = Shop(structs.replace(SPEC, operations=(*SPEC.operations, mixed)))
    shop.fail("label", "vault")
    assert shop.open_gates() == {"order", "price", "health_check"}
    assert shop.dependencies.blocked_topics() == frozenset()
    assert shop.dependencies.first_down(("postgres", "vault", "unknown")) == "vault"
    assert shop.dependencies.first_down(("postgres",)) is None
    shop.fail("order", "postgres")
    assert shop.dependencies.blocked_topics() == {ORDERS, LABELS}


def test_what_needs_nothing_runs_though_everything_is_down(shop: Shop) -> None:
    shop.fail("label", "vault")
    shop.fail("order", "postgres")
    assert shop.open_gates() == {"health_check"}
    assert shop.dependencies.blocked_topics() == {ORDERS, LABELS}


def test_half_open_one_record_of_one_operation_probes_and_its_success_lets_all_flow(shop: Shop) -> None:
    shop.fail("order", "postgres")
    shop.clock.advance(3600)
    probe = shop.gates["order"].enter()
    assert probe is not None
    assert probe.limit == 1
    assert shop.gates["order"].enter() is None
    assert shop.gates["label"].enter() is None, "the one probe is out already"
    probe.succeeded()
    passage = shop.gates["label"].enter()
    assert passage is not None
    assert passage.limit is None
    assert shop.dependencies.blocked_topics() == frozenset()


def test_a_probe_that_did_not_run_is_given_back_for_the_next(shop: Shop) -> None:
    shop.fail("order", "postgres")
    shop.clock.advance(3600)
    first = shop.gates["order"].enter()
    assert first is not None
    first.release()
    assert shop.gates["order"].enter() is not None


def test_a_gate_that_one_dependency_closes_keeps_no_probe_of_another(shop: Shop) -> None:
    shop.fail("label", "vault")
    shop.fail("order", "postgres")
    shop.clock.advance(2)  # a probe of postgres is due, one of vault is not
    assert shop.gates["label"].enter() is None
    probe = shop.gates["order"].enter()
    assert probe is not None
    assert probe.limit == 1


def test_the_failure_of_one_dependency_is_not_held_against_another(shop: Shop) -> None:
    shop.fail("label", "vault")
    assert shop.dependencies.by_name["postgres"].breaker.state == "closed"
    assert shop.open_gates() >= {"order"}


def test_a_closed_gate_is_asked_again_soon_and_at_most_every_second(shop: Shop) -> None:
    shop.fail("label", "vault")
    assert 0.02 <= shop.gates["label"].seconds_until_open() <= 1.0
    assert shop.gates["order"].seconds_until_open() == pytest.approx(0.02)


def test_a_passage_names_the_dependency_that_is_silent(shop: Shop) -> None:
    passage = shop.gates["label"].enter()
    assert passage is not None
    passage.succeeded()
    assert passage.silent() is None
    passage.failed(DependencyUnavailableError("down", dependency="vault"))
    assert passage.silent() == "vault"


def test_a_breaker_shows_in_readiness_and_metrics(shop: Shop) -> None:
    passage = shop.gates["label"].enter()
    assert passage is not None
    passage.succeeded()
    assert shop.dependencies.describe() == {"postgres": "ok", "vault": "ok"}
    assert shop.dependencies.usable
    before = shop.changes

    shop.fail("label", "vault")

    assert shop.dependencies.describe() == {"postgres": "ok", "vault": "down"}
    assert shop.changes > before
    assert shop.metric("omnibase_breaker_state", "vault") == 2
    assert shop.metric("omnibase_breaker_trips_total", "vault") == 1
    assert shop.metric("omnibase_breaker_state", "postgres") == 0
