"""The rate gate says of each record whether it runs, waits or is refused, and gives every one its place once."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import RateLimitedError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import OperationSpec, RateLimitSpec, WorkerSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.rate_gate import Held, RateGate
from omnibase_infra.shared.runtime.records import PartitionWork, Record
from omnibase_infra.shared.testing.manual_clock import ManualClock

COMMANDS = "onex.cmd.shop.requests.v1"
TOPIC = TopicName.parse(COMMANDS)
OPERATIONS = ("order", "cancel")


class Shop:
    """A gate with a clock, and records for it."""

    def __init__(self, *limits: RateLimitSpec, **settings: Any) -> None:
        self.spec = WorkerSpec(
            generation=1,
            node="shop",
            worker="shop",
            class_name="Shop",
            version="1.0.0",
            contract_sha256="0" * 64,
            description="Sells.",
            node_type="effect",
            subscribe=(COMMANDS,),
            publish=(),
            operations=tuple(OperationSpec(name=name, topic=COMMANDS, event_type=name) for name in OPERATIONS),
            rate_limits=limits,
        )
        self.clock = ManualClock()
        self.metrics = WorkerMetrics(MetricsRegistry(process_metrics=False), self.spec)
        options = {"park_after_seconds": 5.0, "max_waiting": 5000} | settings
        self.gate = RateGate(self.spec, self.metrics, clock=self.clock, **options)
        self.work = PartitionWork(TOPIC, "dev." + COMMANDS, 0)
        self._offset = 0

    def records(self, count: int, source: str = "/client", **envelope: Any) -> list[Record]:
        return [self._record(source, envelope) for _ in range(count)]

    def _record(self, source: str, envelope: dict[str, Any]) -> Record:
        self._offset += 1
        record = Record(self.work, self._offset, 0, str(self._offset).encode(), b"{}", None)
        record.envelope = Envelope(specversion="1.0", id=str(self._offset), source=source, type="order", **envelope)
        return record

    def split(self, records: list[Record], operation: str = "order") -> tuple[list[Record], list[Held]]:
        return self.gate.split(operation, records)

    def limited(self, operation: str = "order") -> dict[str, float]:
        return {decision: counter._value.get() for decision, counter in self.metrics.rate_limited[operation].items()}


def _limit(**changes: Any) -> RateLimitSpec:
    values: dict[str, Any] = {"per": "client", "count": 50, "seconds": 1, "burst": 100}
    return RateLimitSpec(**(values | changes))


def test_what_is_within_the_limit_runs_in_order() -> None:
    shop = Shop(_limit())
    records = shop.records(100)
    assert shop.split(records) == (records, [])
    assert shop.limited() == {"wait": 0, "park": 0, "refuse": 0}


def test_what_is_beyond_it_waits_each_for_a_place_of_its_own() -> None:
    shop = Shop(_limit())
    records = shop.records(103)
    runnable, held = shop.split(records)
    assert runnable == records[:100]
    assert [one.record for one in held] == records[100:]
    assert [one.seconds for one in held] == pytest.approx([0.02, 0.04, 0.06])
    assert not any(one.park for one in held)
    assert shop.limited() == {"wait": 3, "park": 0, "refuse": 0}


def test_a_record_that_waited_runs_without_being_asked_again() -> None:
    shop = Shop(_limit(burst=1))
    _, held = shop.split(shop.records(3))
    shop.clock.advance(0.04)
    waited = [one.record for one in held]
    assert shop.split(waited) == (waited, [])
    assert shop.limited()["wait"] == 2


def test_a_later_attempt_of_a_record_takes_no_second_place() -> None:
    shop = Shop(_limit(burst=1))
    (record,) = shop.records(1)
    for _ in range(3):
        assert shop.split([record]) == ([record], [])


def test_whoever_comes_later_waits_behind_those_that_wait() -> None:
    shop = Shop(_limit(burst=1))
    shop.split(shop.records(3))
    shop.clock.advance(0.02)
    _, held = shop.split(shop.records(1))
    assert held[0].seconds == pytest.approx(0.04)


def test_clients_do_not_hold_one_another_back() -> None:
    shop = Shop(_limit())
    shop.split(shop.records(200, source="/busy"))
    quiet = shop.records(100, source="/quiet")
    assert shop.split(quiet) == (quiet, [])


def test_a_clients_operations_share_a_limit_that_names_none() -> None:
    shop = Shop(_limit(burst=2))
    shop.split(shop.records(2), "order")
    runnable, held = shop.split(shop.records(1), "cancel")
    assert (runnable, len(held)) == ([], 1)


def test_a_limit_on_one_operation_leaves_the_others_alone() -> None:
    shop = Shop(_limit(burst=1, operation="order"))
    shop.split(shop.records(1), "order")
    cancels = shop.records(50)
    assert shop.split(cancels, "cancel") == (cancels, [])
    assert len(shop.split(shop.records(1), "order")[1]) == 1


def test_a_limit_per_operation_counts_each_operation_over_all_clients() -> None:
    shop = Shop(_limit(per="operation", burst=2))
    assert len(shop.split([*shop.records(1, "/a"), *shop.records(1, "/b"), *shop.records(1, "/c")], "order")[1]) == 1
    assert len(shop.split(shop.records(2), "cancel")[0]) == 2


def test_a_limit_per_tenant_counts_a_record_that_names_none_with_the_realms() -> None:
    shop = Shop(_limit(per="tenant", burst=1), tenant="acme")
    shop.split(shop.records(1, tenantid="acme"))
    assert len(shop.split(shop.records(1, source="/other"))[1]) == 1


def test_several_limits_hold_at_once_and_one_that_is_reached_costs_no_place_in_the_others() -> None:
    shop = Shop(_limit(burst=10), _limit(per="operation", count=1, burst=2, on_limit="refuse"))
    first = shop.records(12)
    runnable, held = shop.split(first)
    assert runnable == first
    assert [record.refusal is None for record in first] == [True] * 2 + [False] * 10
    shop.clock.advance(100)
    shop.split(shop.records(1))
    others = shop.records(9)
    runnable, held = shop.split(others, "cancel")
    assert (len(held), [record.refusal is None for record in runnable]) == (0, [True] * 2 + [False] * 7)


def test_the_longest_of_several_waits_counts() -> None:
    shop = Shop(_limit(burst=1), _limit(per="operation", count=2, burst=1))
    _, held = shop.split(shop.records(2))
    assert held[0].seconds == pytest.approx(0.5)


def test_refused_records_go_on_marked_so_that_the_inbox_is_asked_first() -> None:
    shop = Shop(_limit(burst=1, on_limit="refuse"))
    records = shop.records(2)
    assert shop.split(records) == (records, [])
    assert records[0].refusal is None
    refusal = records[1].refusal
    assert isinstance(refusal, RateLimitedError)
    assert (refusal.code, refusal.retryable) == ("rate-limited", True)
    assert refusal.details == {"limit": "50/second", "burst": "1", "per": "client"}
    assert "more than 50 per second and client" in str(refusal)
    assert shop.limited() == {"wait": 0, "park": 0, "refuse": 1}


def test_a_refused_record_whose_outcome_could_not_be_stored_is_asked_again() -> None:
    shop = Shop(_limit(burst=1, on_limit="refuse"))
    first, second = shop.records(2)
    shop.split([first, second])
    shop.clock.advance(1)
    assert shop.split([second]) == ([second], [])
    assert second.refusal is None


def test_a_wait_beyond_the_bound_is_to_be_parked_and_takes_no_place() -> None:
    shop = Shop(_limit(count=1, burst=1), park_after_seconds=5.0)
    records = shop.records(9)
    _, held = shop.split(records)
    assert [one.seconds for one in held if not one.park] == pytest.approx([1, 2, 3, 4, 5])
    parked = [one for one in held if one.park]
    assert [one.seconds for one in parked] == pytest.approx([6, 7, 8]), "they come back one after another"
    assert not any(one.record.admitted for one in parked)
    shop.clock.advance(6)
    assert shop.split([parked[0].record]) == ([parked[0].record], [])
    assert shop.limited() == {"wait": 5, "park": 3, "refuse": 0}


def test_a_key_with_a_long_queue_behind_it_is_to_be_parked_at_once() -> None:
    shop = Shop(_limit(count=1, burst=1), park_after_seconds=5.0)
    first, second = shop.records(2)
    shop.split([first])
    assert second.key is not None
    shop.work.busy[second.key] = deque(shop.records(5))
    _, (held,) = shop.split([second])
    assert held.park
    assert held.seconds == pytest.approx(1.0)


def test_only_so_many_wait_in_lanes_at_once() -> None:
    shop = Shop(_limit(burst=1), max_waiting=3)
    _, held = shop.split(shop.records(10))
    assert [one.park for one in held] == [False] * 3 + [True] * 6
    shop.clock.advance(1)
    shop.split(shop.records(1))
    _, held = shop.split(shop.records(1))
    assert not held[0].park, "the waits have ended"


def test_without_a_bound_nothing_is_parked() -> None:
    shop = Shop(_limit(count=1, seconds=86_400, burst=1), park_after_seconds=None, max_waiting=0)
    _, held = shop.split(shop.records(3))
    assert [one.seconds for one in held] == pytest.approx([86_400, 172_800])
    assert not any(one.park for one in held)


def test_a_long_source_is_a_client_like_any_other() -> None:
    shop = Shop(_limit(burst=1))
    shop.split(shop.records(1, source="/" + "x" * 2000 + "1"))
    assert shop.split(shop.records(1, source="/" + "x" * 2000 + "2"))[1] == []
    assert len(shop.split(shop.records(1, source="/" + "x" * 2000 + "1"))[1]) == 1


def test_an_operation_that_the_contract_lacks_is_limited_too() -> None:
    shop = Shop(_limit(burst=1))
    shop.split(shop.records(1), "unknown")
    assert len(shop.split(shop.records(1), "unknown")[1]) == 1


def test_without_a_limit_that_concerns_it_an_operation_passes() -> None:
    shop = Shop(_limit(burst=1, operation="cancel"))
    records = shop.records(500)
    assert shop.split(records) == (records, [])


@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from("abc"), st.floats(0, 0.3)), max_size=40))
def test_run_when_told_no_client_is_ever_beyond_its_limit_and_each_record_runs_once(
    arrivals: list[tuple[int, str, float]],
) -> None:
    """Plays a lane: what waits comes back after its seconds, what is parked asks again then."""
    shop = Shop(_limit(count=10, burst=3), park_after_seconds=1.0)
    due: list[tuple[float, Record]] = []
    ran: dict[str, list[float]] = {}
    seen: list[Record] = []

    def ask(records: list[Record]) -> None:
        runnable, held = shop.split(records)
        for record in runnable:
            ran.setdefault(record.envelope.source, []).append(shop.clock.monotonic())
            seen.append(record)
        due.extend((shop.clock.monotonic() + one.seconds, one.record) for one in held)

    def play_until(end: float) -> None:
        while due and min(due, key=lambda one: one[0])[0] <= end:
            due.sort(key=lambda one: one[0])
            at, record = due.pop(0)
            shop.clock.advance(max(0.0, at - shop.clock.monotonic()))
            ask([record])
        shop.clock.advance(max(0.0, end - shop.clock.monotonic()))

    total = 0
    for count, source, gap in arrivals:
        play_until(shop.clock.monotonic() + gap)
        ask(shop.records(count, source))
        total += count
    play_until(shop.clock.monotonic() + 10_000)
    assert len(seen) == len(set(map(id, seen))) == total
    for times in ran.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= (times[last] - times[first]) * 10 + 3 + 1e-3
