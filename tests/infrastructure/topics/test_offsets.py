"""Where a consumer group stands, whether that fits its logs, and where a reset would move it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    GroupInUseError,
    TopicMissingError,
    TopicNotDeclaredError,
)
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.testing.in_memory_cluster import InMemoryCluster
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.topics.catalogue import Reader
from omnibase_infra.topics.cluster import Partition
from omnibase_infra.topics.offsets import Move, PartitionOffsets, parse_target, plan_reset, reset, show
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry

REALM = Realm("test", "unit")
REGISTRY = TopicRegistry.from_specs([order_store()], REALM)
READER = Reader("order-store", 1)
GROUP = READER.group(REALM)
LOGICAL = "onex.cmd.order-store.requests.v1"
REQUESTS = f"test-unit.{LOGICAL}"
RETRY = "test-unit.onex.retry.order-store.requests.v1"


@pytest.fixture
def cluster() -> InMemoryCluster:
    cluster = InMemoryCluster()
    assert provision(cluster, REGISTRY.catalogue, REALM).is_complete
    return cluster


def standing(cluster: InMemoryCluster, topic: str = REQUESTS) -> list[str]:
    return [item.standing for item in show(cluster, REGISTRY, READER).partitions if item.topic == topic]


def test_a_prepared_group_is_consistent(cluster: InMemoryCluster) -> None:
    found = show(cluster, REGISTRY, READER)

    assert (found.group, found.members, found.missing_topics) == (GROUP, 0, ())
    assert len(found.partitions) == 12
    assert found.is_consistent


def test_lag_is_what_is_still_to_be_read(cluster: InMemoryCluster) -> None:
    cluster.write(REQUESTS, 1, 10)
    cluster.commit(GROUP, {Partition(REQUESTS, 1): 4})
    cluster.expire(REQUESTS, 1, 2)

    (found,) = [item for item in show(cluster, REGISTRY, READER).partitions if item.lag]

    assert found == PartitionOffsets(REQUESTS, 1, 4, 2, 10, "ok")
    assert found.lag == 6


def test_a_commit_below_the_log_means_lost_records(cluster: InMemoryCluster) -> None:
    cluster.write(REQUESTS, 1, 10)
    cluster.expire(REQUESTS, 1, 3)

    assert standing(cluster) == ["ok", "below-log", "ok"]
    assert not show(cluster, REGISTRY, READER).is_consistent
    assert sum(item.lag for item in show(cluster, REGISTRY, READER).partitions) == 7


def test_a_commit_behind_the_end_means_a_log_that_was_replaced(cluster: InMemoryCluster) -> None:
    cluster.commit(GROUP, {Partition(REQUESTS, 2): 5})

    assert standing(cluster) == ["ok", "ok", "beyond-log"]
    assert not show(cluster, REGISTRY, READER).is_consistent


def test_missing_commits_are_told_apart_by_what_they_mean(cluster: InMemoryCluster) -> None:
    cluster.write(REQUESTS, 0)
    cluster.write(REQUESTS, 2)
    cluster.forget(GROUP, Partition(REQUESTS, 0), Partition(REQUESTS, 2))
    assert standing(cluster) == ["missing", "ok", "added"]

    cluster.forget(GROUP)
    assert standing(cluster) == ["missing", "unprepared", "missing"]
    assert standing(cluster, RETRY) == ["unused", "unused", "unused"]
    assert not show(cluster, REGISTRY, READER).is_consistent


def test_lost_commits_of_an_idle_retry_topic_do_not_keep_a_worker_from_starting(cluster: InMemoryCluster) -> None:
    cluster.forget(GROUP, *(Partition(RETRY, number) for number in range(3)))

    assert show(cluster, REGISTRY, READER).is_consistent


def test_topics_that_do_not_exist_are_named() -> None:
    found = show(InMemoryCluster(), REGISTRY, READER)

    assert REQUESTS in found.missing_topics
    assert not found.is_consistent


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("0", 0),
        ("4711", 4711),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_target_is_an_end_an_offset_or_a_time(text: str, target: object) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "-1", "tomorrow", "1.5", "2026-01-31", "2026-01-31T12:00:00", "٣", "9" * 5000])
def test_anything_else_is_no_target(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--to: .* is not earliest, latest, an offset or a time"):
        parse_target(text)


def moves(cluster: InMemoryCluster, text: str, *partitions: int) -> dict[int, tuple[int | None, int]]:
    planned = plan_reset(cluster, REGISTRY, READER, LOGICAL, parse_target(text), partitions)
    return {move.partition.number: (move.before, move.after) for move in planned}


def test_a_reset_is_planned_for_all_partitions_or_some(cluster: InMemoryCluster) -> None:
    cluster.write(REQUESTS, 0, 3, 1_000_000)
    cluster.write(REQUESTS, 0, 4, 3_000_000)
    cluster.expire(REQUESTS, 0, 1)
    cluster.forget(GROUP, Partition(REQUESTS, 2))

    assert moves(cluster, "earliest") == {0: (0, 1), 1: (0, 0), 2: (None, 0)}
    assert moves(cluster, "latest", 0, 2) == {0: (0, 7), 2: (None, 0)}
    assert moves(cluster, "5", 0) == {0: (0, 5)}
    assert moves(cluster, "1970-01-01T00:33:20Z") == {0: (0, 3), 1: (0, 0), 2: (None, 0)}


def test_a_planned_reset_is_carried_out(cluster: InMemoryCluster) -> None:
    cluster.write(REQUESTS, 1, 9)
    planned = plan_reset(cluster, REGISTRY, READER, LOGICAL, "latest")

    reset(cluster, REGISTRY, READER, planned)

    assert planned[1] == Move(Partition(REQUESTS, 1), 0, 9)
    assert [item.committed for item in show(cluster, REGISTRY, READER).partitions if item.topic == REQUESTS] == [
        0,
        9,
        0,
    ]


def test_a_live_group_is_left_alone(cluster: InMemoryCluster) -> None:
    planned = plan_reset(cluster, REGISTRY, READER, LOGICAL, "latest")
    cluster.join(GROUP, 2)

    with pytest.raises(GroupInUseError, match="has 2 live members"):
        plan_reset(cluster, REGISTRY, READER, LOGICAL, "latest")
    with pytest.raises(GroupInUseError):
        reset(cluster, REGISTRY, READER, planned)


def test_a_wrong_call_is_refused_with_what_would_be_right(cluster: InMemoryCluster) -> None:
    with pytest.raises(ConfigurationError, match=r"requests\.v1\[0\] holds offsets 0 to 0, not 5"):
        moves(cluster, "5")
    with pytest.raises(ConfigurationError, match="has partitions 0 to 2, not 3, 7"):
        moves(cluster, "earliest", 0, 7, 3)
    with pytest.raises(ConfigurationError, match="order-store does not read"):
        plan_reset(cluster, REGISTRY, READER, "onex.evt.order-store.results.v1", "latest")
    with pytest.raises(TopicNotDeclaredError, match="did you mean"):
        plan_reset(cluster, REGISTRY, READER, "onex.cmd.order-store.request.v1", "latest")
    with pytest.raises(TopicMissingError, match="omninode topics apply"):
        plan_reset(InMemoryCluster(), REGISTRY, READER, LOGICAL, "latest")
