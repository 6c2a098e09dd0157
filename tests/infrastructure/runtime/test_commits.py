"""Commits say each finished position once, with the partition's story, and again after a failure."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.commits import RENEW_SECONDS, Commits
from omnibase_infra.shared.runtime.crash_record import CLEAN, CrashRecord
from omnibase_infra.shared.runtime.records import DONE, PartitionWork, Record
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.shared.testing.scripted_consumer import Place, ScriptedConsumer

REQUESTS = Realm("dev")
SOURCE = TopicName.parse("onex.cmd.order-store.requests.v1")
PHYSICAL = SOURCE.physical(REQUESTS)


class Desk:
    """Commits on a scripted consumer that owns two partitions."""

    def __init__(self) -> None:
        self.time = 0.0
        self.consumer = ScriptedConsumer({PHYSICAL: 2})
        metrics = WorkerMetrics(MetricsRegistry(process_metrics=False), order_store())
        self.commits = Commits(self.consumer, metrics, get_logger(), lambda: self.time)  # type: ignore[arg-type]
        self.consumer.on_commit = self.commits.answered
        self.works = [PartitionWork(SOURCE, PHYSICAL, number, start=10) for number in (0, 1)]
        for work in self.works:
            self.commits.began(work, 10, work.crash.metadata(10))

    def finish(self, partition: int, *offsets: int) -> None:
        made = [Record(self.works[partition], offset, 0, None, b"{}", None) for offset in offsets]
        self.works[partition].enter(made)
        for record in made:
            record.stage = DONE

    def commit(self, *, wait: bool = True, clean: bool = False) -> bool:
        return self.commits.commit(self.works, wait=wait, clean=clean)

    def answer(self) -> None:
        """Let the coordinator's answers arrive."""
        for _ in range(5):
            self.consumer.poll(0.0)

    @property
    def said(self) -> list[dict[Place, int]]:
        return [offsets for _, offsets in self.consumer.commits]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("wait", [True, False])
def test_what_is_committed_already_is_not_committed_again(desk: Desk, wait: bool) -> None:
    assert desk.commit(wait=wait)
    assert desk.said == []
    desk.finish(0, 10, 11)
    assert desk.commit(wait=wait)
    assert desk.commit(wait=wait)
    desk.answer()
    assert desk.commit(wait=wait)
    assert desk.said == [{(PHYSICAL, 0): 12}]


def test_a_position_whose_story_changed_is_committed_again(desk: Desk) -> None:
    desk.works[1].crash = CrashRecord(deaths=1, until=50).naming((10,))
    desk.commit()
    assert desk.said == [{(PHYSICAL, 1): 10}]
    assert '"r":[10]' in desk.consumer.metadata[PHYSICAL, 1]
    desk.works[1].crash = desk.works[1].crash.cleared((10,))
    desk.commit()
    assert len(desk.said) == 2
    assert '"r"' not in desk.consumer.metadata[PHYSICAL, 1]


@pytest.mark.parametrize("wait", [True, False])
def test_a_failed_commit_is_repeated_with_the_next_one(desk: Desk, wait: bool) -> None:
    desk.finish(0, 10)
    desk.consumer.refuse_commits = KafkaError(KafkaError.REQUEST_TIMED_OUT)
    assert desk.commit(wait=wait) is not wait
    desk.answer()
    desk.consumer.refuse_commits = None
    assert desk.commit(wait=wait)
    desk.answer()
    assert desk.consumer.offsets[PHYSICAL, 0] == 11
    assert desk.said == [{(PHYSICAL, 0): 11}] * 2


def test_a_clean_end_is_committed_though_the_position_is_the_same(desk: Desk) -> None:
    desk.commit(clean=True)
    assert desk.said == [{(PHYSICAL, 0): 10, (PHYSICAL, 1): 10}]
    assert {desk.consumer.metadata[PHYSICAL, number] for number in (0, 1)} == {CLEAN}


def test_an_unfinished_record_holds_the_commit_and_one_before_it_does_not(desk: Desk) -> None:
    first, second, third = (Record(desk.works[0], offset, 0, None, b"{}", None) for offset in (10, 11, 12))
    desk.works[0].enter([first, second, third])
    first.stage = third.stage = DONE
    desk.commit()
    assert desk.said == [{(PHYSICAL, 0): 11}]


def test_offsets_that_kafka_would_forget_are_renewed_though_nothing_changed(desk: Desk) -> None:
    desk.time = RENEW_SECONDS - 1
    desk.commit()
    assert desk.said == []
    desk.time = RENEW_SECONDS + 1
    desk.commit()
    desk.commit()
    assert desk.said == [{(PHYSICAL, 0): 10, (PHYSICAL, 1): 10}]


def test_a_partition_assigned_again_is_committed_anew(desk: Desk) -> None:
    desk.commits.forget((PHYSICAL, 0))
    desk.commit()
    assert desk.said == [{(PHYSICAL, 0): 10}]


def test_a_partition_without_a_position_is_not_committed(desk: Desk) -> None:
    assert desk.commits.commit([PartitionWork(SOURCE, PHYSICAL, 0)], wait=True)
    assert desk.said == []


def test_while_the_topic_may_be_another_one_nothing_is_committed(desk: Desk) -> None:
    desk.finish(0, 10)
    desk.commits.held = True
    assert not desk.commit()
    assert desk.said == []
    desk.commits.held = False
    assert desk.commit()
    assert desk.said == [{(PHYSICAL, 0): 11}]
