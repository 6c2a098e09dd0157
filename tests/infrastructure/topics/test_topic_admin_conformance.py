"""One suite over every implementation of the `TopicAdmin` port: the cluster in memory and a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, Producer

from omnibase_infra.shared.core.errors import ClusterRefusedError, GroupInUseError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.testing.in_memory_cluster import InMemoryCluster
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog
from omnibase_infra.topics.cluster import Partition, TopicAdmin, Watermarks

Write = Callable[[str, int, int, int], None]
Join = Callable[[str, str], Callable[[], None]]


class Subject:
    """An implementation, and how a test moves the world around it."""

    def __init__(self, admin: TopicAdmin, write: Write, join: Join) -> None:
        self.admin = admin
        self.write = write
        self.join = join


def in_memory() -> Subject:
    cluster = InMemoryCluster()

    def write(topic: str, partition: int, count: int, unix_milliseconds: int) -> None:
        cluster.write(topic, partition, count, unix_milliseconds)

    def join(group: str, topic: str) -> Callable[[], None]:
        cluster.join(group)
        return lambda: cluster.leave(group)

    return Subject(cluster, write, join)


def real(settings: Settings, consumers: ConsumerFactory) -> Subject:
    def write(topic: str, partition: int, count: int, unix_milliseconds: int) -> None:
        producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers or "", "acks": "all"})
        for _ in range(count):
            producer.produce(topic, b"{}", partition=partition, timestamp=unix_milliseconds)
        assert producer.flush(30) == 0

    def join(group: str, topic: str) -> Callable[[], None]:
        consumer: Consumer = consumers(group=group)
        consumer.subscribe([topic])
        for _ in range(300):
            consumer.poll(0.1)
            if consumer.assignment():
                return lambda: consumers.close(consumer)
        raise AssertionError("the consumer got no partitions within 30 s")

    return Subject(KafkaTopicAdmin(settings, log=RecordedLog()), write, join)


@pytest.fixture(params=["in-memory", "real"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "in-memory":
        yield in_memory()
    else:
        yield real(request.getfixturevalue("kafka_settings"), request.getfixturevalue("kafka_consumer_factory"))


@pytest.fixture
def topic(realm: Realm) -> str:
    return f"{realm}.onex.cmd.order-store.requests.v1"


@pytest.fixture
def group(realm: Realm) -> str:
    return realm.group("order-store", 1)


def test_a_created_topic_can_be_seen_and_used_at_once(subject: Subject, topic: str, realm: Realm) -> None:
    assert subject.admin.topics(f"{realm}.") == {}
    assert subject.admin.create(topic, 3, 1, {"retention.ms": "77000"})

    assert subject.admin.topics(f"{realm}.") == {topic: 3}
    state = subject.admin.describe([topic, f"{topic}0"])[topic]
    assert (state.partitions, state.replication, state.config["retention.ms"]) == (3, 1, "77000")
    assert subject.admin.watermarks([Partition(topic, 2)]) == {Partition(topic, 2): Watermarks(0, 0)}


def test_creating_again_is_no_mistake_and_changes_nothing(subject: Subject, topic: str) -> None:
    subject.admin.create(topic, 3, 1, {"retention.ms": "77000"})

    assert not subject.admin.create(topic, 5, 1, {"retention.ms": "88000"})
    state = subject.admin.describe([topic])[topic]
    assert (state.partitions, state.config["retention.ms"]) == (3, "77000")


def test_what_does_not_exist_is_left_out(subject: Subject, topic: str, group: str) -> None:
    assert subject.admin.describe([topic]) == {}
    state = subject.admin.group(group, [])
    assert (state.committed, state.members, state.state) == ({}, 0, "absent")


def test_partitions_are_added_once_and_never_taken_away(subject: Subject, topic: str) -> None:
    subject.admin.create(topic, 2, 1, {})

    assert subject.admin.add_partitions(topic, 4)
    assert not subject.admin.add_partitions(topic, 4)
    assert not subject.admin.add_partitions(topic, 3)
    assert subject.admin.topics(topic) == {topic: 4}
    assert subject.admin.watermarks([Partition(topic, 3)])[Partition(topic, 3)] == Watermarks(0, 0)


def test_settings_are_changed_one_by_one(subject: Subject, topic: str) -> None:
    subject.admin.create(topic, 1, 1, {"retention.ms": "77000", "max.message.bytes": "5000"})

    subject.admin.alter(topic, {"retention.ms": "88000"})

    config = subject.admin.describe([topic])[topic].config
    assert (config["retention.ms"], config["max.message.bytes"]) == ("88000", "5000")


def test_offsets_are_committed_for_a_group_without_members(subject: Subject, topic: str, group: str) -> None:
    subject.admin.create(topic, 3, 1, {})
    subject.admin.commit(group, {Partition(topic, 0): 0, Partition(topic, 2): 7})
    subject.admin.commit(group, {Partition(topic, 2): 5})

    partitions = [Partition(topic, number) for number in range(3)]
    assert subject.admin.group(group, partitions).committed == {Partition(topic, 0): 0, Partition(topic, 2): 5}
    assert subject.admin.group(group, partitions[:2]).committed == {Partition(topic, 0): 0}
    assert subject.admin.group(f"{group}0", partitions).committed == {}


def test_offsets_of_a_live_group_are_not_touched(subject: Subject, topic: str, group: str) -> None:
    subject.admin.create(topic, 1, 1, {})
    leave = subject.join(group, topic)

    joined = subject.admin.group(group, [])
    assert (joined.members, joined.state) == (1, "stable")
    with pytest.raises(GroupInUseError, match="live members"):
        subject.admin.commit(group, {Partition(topic, 0): 0})

    leave()
    subject.admin.commit(group, {Partition(topic, 0): 0})
    left = subject.admin.group(group, [])
    assert (left.members, left.state) == (0, "empty")


def test_watermarks_and_offsets_by_time_follow_the_log(subject: Subject, topic: str) -> None:
    subject.admin.create(topic, 2, 1, {"retention.ms": "-1"})
    first, second = Partition(topic, 0), Partition(topic, 1)
    subject.write(topic, 0, 3, 1_000_000)
    subject.write(topic, 0, 2, 2_000_000)

    assert subject.admin.watermarks([first, second]) == {first: Watermarks(0, 5), second: Watermarks(0, 0)}
    assert subject.admin.offsets_at([first, second], 1_500_000) == {first: 3, second: 0}
    assert subject.admin.offsets_at([first], 0) == {first: 0}
    assert subject.admin.offsets_at([first], 3_000_000) == {first: 5}


def test_what_the_cluster_refuses_is_one_kind_of_error(subject: Subject, topic: str, group: str) -> None:
    with pytest.raises(ClusterRefusedError):
        subject.admin.create(topic, 1, 7, {})
    with pytest.raises(ClusterRefusedError):
        subject.admin.add_partitions(topic, 3)
    with pytest.raises(ClusterRefusedError):
        subject.admin.alter(topic, {"retention.ms": "1"})
    with pytest.raises(ClusterRefusedError):
        subject.admin.commit(group, {Partition(topic, 0): 0})
    with pytest.raises(ClusterRefusedError):
        subject.admin.watermarks([Partition(topic, 0)])


def test_nothing_asked_is_nothing_answered(subject: Subject) -> None:
    assert subject.admin.describe([]) == {}
    assert subject.admin.watermarks([]) == {}
    assert subject.admin.offsets_at([], 0) == {}
