"""Whoever owns a partition owns its retry partition, waits until that is known, and says that it is alive."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from confluent_kafka import KafkaError, TopicPartition

from omnibase_infra.shared.core.errors import OffsetMissingError, TopicMissingError
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.assignment import Assignment, RetryTopic
from omnibase_infra.shared.runtime.commits import Commits
from omnibase_infra.shared.runtime.parked_keys import PartitionParking
from omnibase_infra.shared.runtime.records import PartitionWork
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.shared.testing.scripted_consumer import ScriptedConsumer

REALM = Realm("dev")
SOURCE = TopicName.parse("onex.cmd.order-store.requests.v1")
RETRY = TopicName.parse("onex.retry.order-store.requests.v1")
EVENTS = TopicName.parse("onex.evt.order-store.results.v1")
S, R, E = (topic.physical(REALM) for topic in (SOURCE, RETRY, EVENTS))


class Opened(NamedTuple):
    """How a parking was opened."""

    partition: int
    start: int
    folded: bool


class Desk:
    """An assignment on a scripted consumer; `S` has a retry topic, `E` has none."""

    def __init__(self) -> None:
        self.consumer = ScriptedConsumer({S: 4, E: 4})
        self.opened: list[Opened] = []
        self.parkings: list[PartitionParking] = []
        metrics = WorkerMetrics(MetricsRegistry(process_metrics=False), order_store())
        self.commits = Commits(self.consumer, metrics, get_logger())  # type: ignore[arg-type]
        self.assignment = Assignment(
            self.consumer,  # type: ignore[arg-type]
            topics={S: SOURCE, E: EVENTS},
            retries={S: RetryTopic(RETRY, R)},
            group="group",
            commits=self.commits,
            open_parking=self.open,
        )

    def open(self, source: PartitionWork, retry: PartitionWork, *, start: int, folded: bool) -> PartitionParking:
        assert (source.partition, source.physical, retry.physical) == (retry.partition, S, R)
        self.opened.append(Opened(source.partition, start, folded))
        parking = PartitionParking(source, retry, None, start=start, epoch="e", folded=folded)  # type: ignore[arg-type]
        self.parkings.append(parking)
        return parking

    def take(self, *places: tuple[str, int]) -> dict[tuple[str, int], PartitionWork]:
        return self.assignment.take([TopicPartition(*place) for place in places])


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_retry_partition_of_the_same_number_is_owned_with_its_source(desk: Desk) -> None:
    desk.consumer.offsets |= {(S, 2): 7, (R, 2): 3}
    works = desk.take((S, 2))
    assert desk.consumer.assigned == {(S, 2): 7, (R, 2): 3}
    source, retry = works[S, 2], works[R, 2]
    assert (source.is_retry, retry.is_retry) == (False, True)
    assert (retry.topic, retry.source_topic) == (str(RETRY), str(SOURCE))
    assert source.parking is retry.parking is desk.parkings[0]


def test_a_topic_without_a_retry_topic_has_nothing_parked(desk: Desk) -> None:
    works = desk.take((E, 1))
    assert desk.consumer.assigned == {(E, 1): 0}
    assert works[E, 1].parking is None
    assert desk.opened == []


def test_an_empty_assignment_is_taken_too(desk: Desk) -> None:
    assert desk.take() == {}
    assert desk.consumer.commits == []


def test_a_retry_partition_that_holds_nothing_need_not_be_read_first(desk: Desk) -> None:
    desk.consumer.offsets |= {(R, 0): 5, (R, 1): 5}
    desk.consumer.ends |= {(R, 0): 5, (R, 1): 6}
    desk.take((S, 0), (S, 1))
    assert desk.opened == [Opened(0, 0, folded=True), Opened(1, 0, folded=False)]


def test_it_is_said_before_anything_runs_that_an_owner_is_at_work(desk: Desk) -> None:
    desk.consumer.metadata |= {(S, 0): "clean", (R, 0): "clean"}
    works = desk.take((S, 0))
    ((kind, offsets),) = desk.consumer.commits
    assert (kind, offsets) == ("synchronous", {(S, 0): 0, (R, 0): 0})
    assert desk.consumer.metadata[S, 0] != "clean"
    desk.commits.commit(works.values(), wait=True)
    assert len(desk.consumer.commits) == 1, "it is committed already"


def test_who_dies_right_after_it_took_a_partition_is_counted(desk: Desk) -> None:
    desk.consumer.metadata[S, 0] = "clean"
    desk.consumer.ends[S, 0] = 10
    assert desk.take((S, 0))[S, 0].crash.deaths == 0
    assert desk.take((S, 0))[S, 0].crash.deaths == 1
    assert desk.take((S, 0))[S, 0].crash.deaths == 2


def test_a_story_outlives_an_assignment_at_which_the_leader_did_not_say_where_the_partition_ends(desk: Desk) -> None:
    desk.consumer.metadata[S, 0] = '{"d":2,"u":10,"g":[4]}'
    desk.consumer.offsets_for_times = lambda places, timeout: []  # type: ignore[method-assign]
    assert desk.take((S, 0))[S, 0].crash.guilty == (4,)


def test_a_partition_left_clean_has_no_story(desk: Desk) -> None:
    desk.consumer.ends[S, 0] = 10
    works = desk.take((S, 0))
    desk.commits.commit(works.values(), wait=True, clean=True)
    assert desk.take((S, 0))[S, 0].crash.deaths == 0


def test_a_member_that_may_not_commit_yet_begins_all_the_same_and_says_it_with_its_next_commit(desk: Desk) -> None:
    desk.consumer.refuse_commits = KafkaError(KafkaError.REQUEST_TIMED_OUT)
    works = desk.take((S, 0))
    assert (S, 0) in desk.consumer.assigned
    desk.consumer.refuse_commits = None
    desk.commits.commit(works.values(), wait=True)
    assert desk.consumer.commits[-1][1] == {(S, 0): 0, (R, 0): 0}


def test_a_pause_from_an_earlier_time_is_undone(desk: Desk) -> None:
    desk.consumer.paused |= {(S, 0), (R, 0)}
    desk.take((S, 0))
    assert desk.consumer.paused == set()


def test_a_retry_topic_with_fewer_partitions_than_its_source_is_named(desk: Desk) -> None:
    del desk.consumer.offsets[R, 3]
    desk.consumer.partitions[R] = 3
    with pytest.raises(TopicMissingError, match=r"retry.*partition 3"):
        desk.take((S, 3))
    assert desk.consumer.assigned == {}


def test_a_retry_partition_whose_offset_is_lost_stops_the_worker(desk: Desk) -> None:
    del desk.consumer.offsets[R, 1]
    with pytest.raises(OffsetMissingError, match=r"retry"):
        desk.take((S, 1))
    assert desk.consumer.assigned == {}
