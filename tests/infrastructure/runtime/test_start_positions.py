"""Where partitions start: at their commits; at the beginning only where that skips nothing; else the worker stops."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OffsetMissingError, TopicMissingError
from omnibase_infra.shared.runtime.start_positions import start_positions
from omnibase_infra.shared.testing.scripted_consumer import ScriptedConsumer

TOPIC = "dev.onex.cmd.shop.requests.v1"


def positions(consumer: Any, *partitions: int) -> dict[int, int]:
    assigned = [TopicPartition(TOPIC, number) for number in partitions]
    return {one.partition: one.offset for one in start_positions(consumer, assigned, "dev.shop")}


def test_a_partition_starts_at_its_commit() -> None:
    consumer = ScriptedConsumer({TOPIC: 3})
    consumer.offsets |= {(TOPIC, 0): 7, (TOPIC, 2): 9}
    assert positions(consumer, 0, 2) == {0: 7, 2: 9}
    assert not consumer.commits


def test_a_group_without_any_commit_must_be_prepared_first() -> None:
    consumer = ScriptedConsumer({TOPIC: 3})
    consumer.offsets.clear()
    with pytest.raises(OffsetMissingError, match="omninode topics apply"):
        positions(consumer, 1)


def test_a_commit_missing_below_others_stops_the_worker() -> None:
    consumer = ScriptedConsumer({TOPIC: 3})
    del consumer.offsets[TOPIC, 1]
    with pytest.raises(OffsetMissingError, match=r"requests\.v1\[1\].*omninode offsets show"):
        positions(consumer, 1)


def test_added_partitions_start_at_their_beginning_and_all_of_them_are_committed_there_at_once() -> None:
    consumer = ScriptedConsumer({TOPIC: 2})
    consumer.partitions[TOPIC] = 5
    consumer.beginnings[TOPIC, 4] = 11
    assert positions(consumer, 4) == {4: 11}
    assert {n: consumer.offsets[TOPIC, n] for n in range(5)} == {0: 0, 1: 0, 2: 0, 3: 0, 4: 11}


def test_a_partition_whose_retry_topic_lacks_it_stops_the_worker() -> None:
    consumer = ScriptedConsumer({TOPIC: 2})
    with pytest.raises(TopicMissingError, match=r"no partition 4.*omninode topics apply"):
        positions(consumer, 4)


def test_added_partitions_that_got_no_record_before_the_next_start_are_known_then() -> None:
    consumer = ScriptedConsumer({TOPIC: 2})
    consumer.partitions[TOPIC] = 4
    assert positions(consumer, 3) == {3: 0}
    consumer.offsets[TOPIC, 3] = 20
    assert positions(consumer, 2, 3) == {2: 0, 3: 20}


class Overtaken(ScriptedConsumer):
    """Another member commits the added partitions between the first look and the second."""

    def committed(self, places: Any, timeout: float) -> Any:
        answer = super().committed(places, timeout)
        self.offsets |= {(TOPIC, 2): 5, (TOPIC, 3): 6}
        return answer


def test_an_added_partition_that_another_member_committed_meanwhile_is_no_lost_one() -> None:
    consumer = Overtaken({TOPIC: 2})
    consumer.partitions[TOPIC] = 4
    assert positions(consumer, 2) == {2: 5}
    assert not consumer.commits


@pytest.mark.parametrize("code", [KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION])
def test_the_next_rebalance_may_begin_before_a_beginning_is_committed(code: int) -> None:
    consumer = ScriptedConsumer({TOPIC: 2})
    consumer.partitions[TOPIC] = 3
    consumer.refuse_commits = KafkaError(code)
    assert positions(consumer, 2) == {2: 0}


def test_a_beginning_that_cannot_be_committed_otherwise_stops_the_worker() -> None:
    consumer = ScriptedConsumer({TOPIC: 2})
    consumer.partitions[TOPIC] = 3
    consumer.refuse_commits = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException):
        positions(consumer, 2)


def test_a_topic_that_went_away_is_named() -> None:
    consumer = ScriptedConsumer({TOPIC: 2})
    consumer.offsets.clear()
    del consumer.partitions[TOPIC]
    with pytest.raises(TopicMissingError, match=TOPIC):
        positions(consumer, 0)


class Silent(ScriptedConsumer):
    """The coordinator fails a number of times."""

    failures = 2

    def committed(self, places: Any, timeout: float) -> Any:
        self.failures -= 1
        if self.failures >= 0:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return super().committed(places, timeout)


def test_the_coordinator_is_asked_again() -> None:
    assert positions(Silent({TOPIC: 1}), 0) == {0: 0}


def test_a_coordinator_that_never_answers_stops_the_worker_by_its_name() -> None:
    consumer = Silent({TOPIC: 1})
    consumer.failures = 99
    with pytest.raises(DependencyUnavailableError, match="coordinator") as caught:
        positions(consumer, 0)
    assert caught.value.dependency == "kafka"
