"""The fleet at a glance: what each worker has still to do, and everything that is wrong with it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.testing.in_memory_cluster import InMemoryCluster
from omnibase_infra.shared.testing.sample_fleet import billing, order_store
from omnibase_infra.topics.cluster import GroupState, Partition
from omnibase_infra.topics.fleet_status import TopicStatus, WorkerStatus, fleet_status
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry

REALM = Realm("test", "unit")
REGISTRY = TopicRegistry.from_specs([order_store(), billing()], REALM)
REQUESTS = "onex.cmd.order-store.requests.v1"
RETRY = "onex.retry.order-store.requests.v1"
DEAD = "onex.dlq.order-store.dead-letters.v1"
GROUP = REALM.group("order-store", 1)


class Cluster(InMemoryCluster):
    """One whose answers about groups may be held back."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = threading.Event()
        self.answering.set()

    def group(self, group: str, partitions: Collection[Partition]) -> GroupState:
        assert self.answering.wait(10)
        return super().group(group, partitions)


def physical(topic: str) -> str:
    return f"{REALM}.{topic}"


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    assert provision(cluster, REGISTRY.catalogue, REALM).is_complete
    return cluster


def order_store_of(cluster: Cluster, **options: Mapping[str, object]) -> WorkerStatus:
    (found,) = fleet_status(cluster, REGISTRY, workers={"order-store"}, **options)  # type: ignore[arg-type]
    return found


def test_every_worker_of_the_fleet_is_listed_with_what_it_reads(cluster: Cluster) -> None:
    cluster.join(GROUP, 2)

    billed, stored = fleet_status(cluster, REGISTRY)

    assert (billed.worker, billed.state, billed.members) == ("billing", "empty", 0)
    assert (stored.worker, stored.major, stored.group, stored.state, stored.members) == (
        "order-store", 1, GROUP, "stable", 2,
    )  # fmt: skip
    assert [(topic.topic, topic.kind, topic.partitions) for topic in stored.topics] == [
        ("onex.cmd.order-store.control.v1", "source", 3),
        (REQUESTS, "source", 3),
        ("onex.retry.order-store.control.v1", "retry", 3),
        (RETRY, "retry", 3),
    ]
    assert (billed.problems, stored.problems) == ((), ())


def test_lag_is_summed_over_partitions_and_retries_are_counted_apart(cluster: Cluster) -> None:
    cluster.join(GROUP)
    cluster.write(physical(REQUESTS), 0, 4)
    cluster.write(physical(REQUESTS), 2, 3)
    cluster.write(physical(RETRY), 1, 2)

    found = order_store_of(cluster)

    assert (found.lag, found.retry_lag) == (7, 2)
    assert TopicStatus(REQUESTS, "source", 3, 7) in found.topics


def test_records_that_nobody_works_on_are_a_problem_and_an_idle_worker_that_is_stopped_is_none(
    cluster: Cluster,
) -> None:
    assert order_store_of(cluster).problems == ()
    cluster.write(physical(REQUESTS), 0, 4)
    assert order_store_of(cluster).problems == ("4 records wait and no process runs; start it with `omninode run`",)
    cluster.join(GROUP)
    assert order_store_of(cluster).problems == ()


def test_topics_that_are_missing_are_named_whether_they_are_read_or_written() -> None:
    found = order_store_of(Cluster())

    assert found.state == "absent"
    assert {REQUESTS, RETRY, DEAD, "onex.evt.order-store.results.v1"} <= set(found.missing_topics)
    assert f"the topic {DEAD} does not exist; run `omninode topics apply`" in found.problems


def test_offsets_that_do_not_fit_their_log_are_a_problem(cluster: Cluster) -> None:
    cluster.write(physical(REQUESTS), 1, 10)
    cluster.expire(physical(REQUESTS), 1, 5)
    cluster.join(GROUP)

    found = order_store_of(cluster)

    assert found.problems == (f"{REQUESTS}: 1 of 3 partitions below-log; see `omninode offsets show`",)


def test_open_dead_letters_are_a_problem_and_settled_ones_are_none(cluster: Cluster) -> None:
    cluster.write(physical(DEAD), 0, 5)
    (found,) = fleet_status(cluster, REGISTRY, lambda reader, kept: kept - 2, workers={"order-store"})
    assert (found.dead_letters, found.open_dead_letters) == (5, 3)
    assert found.problems == ("3 open dead letters; see `omninode dlq group`",)
    (found,) = fleet_status(cluster, REGISTRY, lambda reader, kept: 0, workers={"order-store"})
    assert found.problems == ()
    (found,) = fleet_status(cluster, REGISTRY, lambda reader, kept: None, workers={"order-store"})
    assert found.problems == ("up to 5 open dead letters; see `omninode dlq group`",)


def test_without_dead_letters_nobody_counts_them(cluster: Cluster) -> None:
    def count(*_: object) -> int:
        raise AssertionError("there are none")

    assert [worker.open_dead_letters for worker in fleet_status(cluster, REGISTRY, count)] == [0, 0]


def test_a_cluster_that_does_not_answer_in_time_is_reported_with_whom_it_was_asked_about(cluster: Cluster) -> None:
    cluster.answering.clear()
    try:
        with pytest.raises(DependencyUnavailableError, match=r"within 0\.05 s how these are: billing, order-store"):
            fleet_status(cluster, REGISTRY, timeout_seconds=0.05)
    finally:
        cluster.answering.set()


def test_an_error_of_the_cluster_is_raised_as_it_is(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> GroupState:
        raise DependencyUnavailableError("away", dependency="kafka")

    monkeypatch.setattr(cluster, "group", away)
    with pytest.raises(DependencyUnavailableError, match="away"):
        fleet_status(cluster, REGISTRY)
