"""The consumer thread commits what is finished and nothing else, pauses and resumes, and stops on what skips records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from omnibase_infra.shared.core.errors import (
    ClusterRefusedError,
    CorruptLogError,
    DependencyUnavailableError,
    OffsetMissingError,
    OffsetOutOfRangeError,
    TopicMissingError,
)
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime import consumer_thread, pauses
from omnibase_infra.shared.runtime.commits import Commits
from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread
from omnibase_infra.shared.runtime.flow_control import FlowControl
from omnibase_infra.shared.runtime.records import DONE, RUNNING, PartitionWork, Record
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.shared.testing.scripted_consumer import Place, ScriptedConsumer, ScriptedMessage

REALM = Realm("dev")
REQUESTS = "dev.onex.cmd.order-store.requests.v1"
CONTROL = "dev.onex.cmd.order-store.control.v1"


class LoopSide:
    """What the event loop is told; each batch is kept for the test to finish."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.parked: list[Record] = []
        self.read_to: dict[Place, int] = {}
        self.ends: list[tuple[str, int, int]] = []
        self.drained: list[list[Place]] = []
        self.lost: list[list[Place]] = []
        self.errors: list[BaseException] = []
        self.changes = 0
        self.on_drain: Callable[[Sequence[PartitionWork]], None] = lambda works: None

    def received(self, records: list[Record], read_to: Sequence[tuple[PartitionWork, int]]) -> None:
        self.records += records
        self.read_to = {(work.physical, work.partition): offset for work, offset in read_to}

    def received_parked(self, records: list[Record]) -> None:
        self.parked += records

    def reached_end(self, work: PartitionWork, offset: int) -> None:
        self.ends.append((work.physical, work.partition, offset))

    def drain(self, works: Sequence[PartitionWork]) -> None:
        self.drained.append(places(works))
        self.on_drain(works)

    def lose(self, works: Sequence[PartitionWork]) -> None:
        self.lost.append(places(works))

    def assignment_changed(self, new: Sequence[PartitionWork]) -> None:
        self.changes += 1

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


class Member:
    """A consumer thread on a scripted consumer."""

    def __init__(self) -> None:
        self.loop = LoopSide()
        self.flow = FlowControl(10, 10_000)
        self.consumer = ScriptedConsumer({REQUESTS: 3, CONTROL: 1})
        spec = order_store()
        self.metrics = WorkerMetrics(MetricsRegistry(process_metrics=False), spec)
        self.thread = ConsumerThread(
            self.consumer,  # type: ignore[arg-type]  # the part of it that the thread uses
            topics={topic.physical(REALM): topic for topic in map(TopicName.parse, spec.subscribe)},
            group="dev.shop",
            loop=self.loop,
            flow=self.flow,
            metrics=self.metrics,
            log=get_logger(),
        )
        self.consumer.on_commit = self.thread.on_commit

    def received(self, count: int) -> list[Record]:
        """Wait for records; they count as running from then on."""
        until(lambda: len(self.loop.records) >= count, f"{count} records")
        for record in self.loop.records:
            if record.stage < RUNNING:
                record.stage = RUNNING
        return self.loop.records

    def happened(self) -> None:
        """Wait until the thread has done everything the script says so far."""
        done = threading.Event()
        self.consumer.then(done.set)
        assert done.wait(5)

    def stop(self) -> None:
        self.thread.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Iterator[Member]:
    monkeypatch.setattr(Commits, "seconds", 0.0)
    monkeypatch.setattr(consumer_thread, "POLL_SECONDS", 0.005)
    started = Member()
    started.thread.start()
    yield started
    started.stop()


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def places(works: Sequence[PartitionWork]) -> list[Place]:
    return sorted((work.physical, work.partition) for work in works)


def message(offset: int, partition: int = 0, topic: str = REQUESTS, code: int | None = None) -> ScriptedMessage:
    error = None if code is None else KafkaError(code)
    return ScriptedMessage(topic, partition, offset, error=error)


def test_records_are_handed_over_with_the_partition_they_came_from(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0), (CONTROL, 0))
    member.consumer.then(message(0), message(0, topic=CONTROL), message(1))
    records = member.received(3)
    assert [(record.work.physical, record.offset) for record in records] == [(REQUESTS, 0), (CONTROL, 0), (REQUESTS, 1)]
    assert (member.flow.records, member.flow.bytes) == (3, 6)


def test_only_what_is_finished_without_a_gap_is_committed(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.then(message(5), message(6), message(9))
    first, second, third = member.received(3)
    second.stage = third.stage = DONE
    member.happened()
    assert member.consumer.offsets[REQUESTS, 0] == 0
    first.stage = DONE
    until(lambda: member.consumer.offsets[REQUESTS, 0] == 10, "all three are committed")


def test_the_end_of_a_log_is_committed_where_nothing_before_it_is_unfinished(member: Member) -> None:
    """A transaction's marker takes an offset and is no record: without it the group would never seem to be through."""
    member.consumer.assign((REQUESTS, 0))
    member.consumer.then(message(0), ScriptedMessage(REQUESTS, 0, 3, error=KafkaError(KafkaError._PARTITION_EOF)))
    (record,) = member.received(1)
    member.happened()
    assert member.consumer.offsets[REQUESTS, 0] == 0
    record.stage = DONE
    until(lambda: member.consumer.offsets[REQUESTS, 0] == 3, "the marker counts as finished with the record")


def test_a_position_is_committed_once_and_again_when_that_failed(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.refuse_commits = KafkaError(KafkaError._TIMED_OUT)
    member.consumer.then(message(0))
    (record,) = member.received(1)
    record.stage = DONE
    until(lambda: len(member.consumer.commits) >= 3, "the failed commit is repeated")
    member.consumer.refuse_commits = None
    until(lambda: member.consumer.offsets[REQUESTS, 0] == 1, "it is committed at last")
    member.happened()
    commits = len(member.consumer.commits)
    for _ in range(3):
        member.happened()
    assert len(member.consumer.commits) == commits


def test_a_full_worker_pauses_all_partitions_goes_on_polling_and_resumes(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0), (CONTROL, 0))
    member.happened()
    member.flow.entered(10, 10)
    until(lambda: member.consumer.paused == {(REQUESTS, 0), (CONTROL, 0)}, "both are paused")
    member.happened()
    member.flow.left(10, 10)
    until(lambda: not member.consumer.paused, "both are resumed")


def test_only_topics_whose_dependency_is_away_are_paused(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0), (REQUESTS, 1), (CONTROL, 0))
    member.flow.blocked_topics = frozenset({"onex.cmd.order-store.requests.v1"})
    until(lambda: member.consumer.paused == {(REQUESTS, 0), (REQUESTS, 1)}, "the topic's partitions are paused")
    member.consumer.assign((REQUESTS, 2))
    until(lambda: (REQUESTS, 2) in member.consumer.paused, "so is one that comes later")
    member.flow.blocked_topics = frozenset()
    until(lambda: not member.consumer.paused, "all are resumed")


@pytest.mark.parametrize("how", ["revoke", "lose"])
def test_a_partition_that_goes_while_paused_and_comes_back_flows(member: Member, how: str) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.flow.blocked_topics = frozenset({"onex.cmd.order-store.requests.v1"})
    until(lambda: member.consumer.paused, "it is paused")
    getattr(member.consumer, how)((REQUESTS, 0))
    member.consumer.then(lambda: setattr(member.flow, "blocked_topics", frozenset()))
    member.consumer.assign((REQUESTS, 0))
    member.happened()
    assert not member.consumer.paused


def test_a_partition_whose_first_record_stays_unfinished_waits_before_memory_grows_without_bound(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "LEDGER_RECORDS", 3)
    member.consumer.assign((REQUESTS, 0), (REQUESTS, 1))
    member.consumer.then(*(message(offset) for offset in range(4)))
    stuck, *rest = member.received(4)
    for record in rest:
        record.stage = DONE
    until(lambda: member.consumer.paused == {(REQUESTS, 0)}, "it waits, and the other one does not")
    stuck.stage = DONE
    until(lambda: not member.consumer.paused, "it flows again")
    until(lambda: member.consumer.offsets[REQUESTS, 0] == 4, "and is committed")


def test_a_revoked_partition_is_drained_then_committed_then_let_go(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0), (REQUESTS, 1))
    member.consumer.then(message(0), message(0, partition=1), message(1))
    records = member.received(3)

    def finish_one(works: Sequence[PartitionWork]) -> None:
        assert (REQUESTS, 0) in member.consumer.assigned
        records[0].stage = DONE

    member.loop.on_drain = finish_one
    member.consumer.revoke((REQUESTS, 0))
    member.happened()
    assert member.loop.drained == [[(REQUESTS, 0)]]
    assert member.consumer.commits[-1][1][REQUESTS, 0] == 1
    assert member.consumer.metadata[REQUESTS, 0] == "clean"
    assert member.consumer.assigned.keys() == {(REQUESTS, 1)}
    assert member.thread.works.keys() == {(REQUESTS, 1)}


def test_records_that_were_fetched_before_their_partition_went_are_dropped(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.revoke((REQUESTS, 0))
    member.consumer.then(message(0))
    member.happened()
    assert not member.loop.records
    assert member.flow.records == 0


def test_a_revoke_whose_commit_fails_lets_the_partition_go_all_the_same(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.then(message(0))
    (record,) = member.received(1)
    member.consumer.refuse_commits = KafkaError(KafkaError._TIMED_OUT)
    record.stage = DONE
    member.consumer.revoke((REQUESTS, 0))
    member.happened()
    member.consumer.refuse_commits = None
    assert not member.consumer.assigned
    assert member.thread.is_alive()


def test_of_a_lost_partition_nothing_is_committed_and_it_can_come_back(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.then(message(0))
    (record,) = member.received(1)
    member.consumer.lose((REQUESTS, 0))
    member.happened()
    assert member.loop.lost == [[(REQUESTS, 0)]]
    assert record.work.closed
    assert not member.thread.assigned
    record.stage = DONE  # a batch that was under way ends; its partition is another member's by now
    member.happened()
    member.consumer.assign((REQUESTS, 0))
    member.happened()
    assert member.thread.works[REQUESTS, 0] is not record.work
    assert not any(position for _, offsets in member.consumer.commits for position in offsets.values())


@pytest.mark.parametrize(
    ("code", "expected", "hint"),
    [
        (KafkaError._AUTO_OFFSET_RESET, OffsetOutOfRangeError, "omninode offsets"),
        (KafkaError.OFFSET_OUT_OF_RANGE, OffsetOutOfRangeError, "omninode offsets"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicMissingError, "omninode topics apply"),
        (KafkaError._BAD_MSG, CorruptLogError, "omninode offsets reset"),
        (KafkaError._BAD_COMPRESSION, CorruptLogError, "omninode offsets reset"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ClusterRefusedError, "omninode acls"),
    ],
)
def test_what_skips_records_or_needs_a_person_stops_the_worker(
    member: Member, code: int, expected: type[Exception], hint: str
) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.then(message(0, code=code))
    member.thread.join(5)
    (error,) = member.loop.errors
    assert type(error) is expected
    assert hint in str(error).lower()
    assert member.consumer.closed


def test_other_errors_are_the_clients_business(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.then(message(0, code=KafkaError._TRANSPORT), message(0))
    assert [record.offset for record in member.received(1)] == [0]
    assert not member.loop.errors


def test_an_error_that_the_client_raises_stops_the_worker_by_its_name(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.then(KafkaException(KafkaError(KafkaError._FATAL)))
    member.thread.join(5)
    (error,) = member.loop.errors
    assert isinstance(error, DependencyUnavailableError)
    assert error.dependency == "kafka"


def test_an_assignment_without_committed_offsets_stops_the_worker(member: Member) -> None:
    member.consumer.offsets.clear()
    member.consumer.assign((REQUESTS, 0))
    member.thread.join(5)
    (error,) = member.loop.errors
    assert isinstance(error, OffsetMissingError)
    assert member.consumer.closed


def test_a_stop_drains_commits_and_leaves_and_drains_only_once(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0), (CONTROL, 0))
    member.consumer.then(message(0))
    (record,) = member.received(1)
    member.loop.on_drain = lambda works: setattr(record, "stage", DONE)
    member.stop()
    assert member.loop.drained == [[(CONTROL, 0), (REQUESTS, 0)]]
    assert member.consumer.commits[-1][1][REQUESTS, 0] == 1
    assert member.consumer.metadata[REQUESTS, 0] == "clean"
    assert member.consumer.closed
    assert not member.consumer.assigned
    assert not member.loop.errors


def test_partitions_that_a_leaving_member_is_given_are_left_to_the_next(member: Member) -> None:
    member.consumer.assign((REQUESTS, 0))
    member.consumer.then(message(0))
    member.received(1)
    member.consumer.given_at_close = ((REQUESTS, 1), (REQUESTS, 2))
    member.stop()
    assert not member.loop.errors
    assert member.consumer.closed
    assert not member.consumer.assigned
    assert {place for _, commit in member.consumer.commits for place in commit} <= {(REQUESTS, 0)}


def test_a_consumer_that_cannot_be_closed_is_reported(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    def close() -> None:
        raise KafkaException(KafkaError(KafkaError._DESTROY))

    monkeypatch.setattr(member.consumer, "close", close)
    member.stop()
    (error,) = member.loop.errors
    assert isinstance(error, DependencyUnavailableError)
