"""Plans and their application, on a cluster in memory: what is created, altered, refused, resumed and left alone."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from omnibase_infra.shared.core.errors import ClusterRefusedError, DependencyUnavailableError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.worker_spec import TopicSettings, WorkerSpec
from omnibase_infra.shared.testing.in_memory_cluster import InMemoryCluster
from omnibase_infra.shared.testing.sample_fleet import billing, order_store
from omnibase_infra.topics.catalogue import Catalogue, derive
from omnibase_infra.topics.changes import Action, AddPartitions, AlterConfig, CommitFirstOffsets, CreateTopic, Plan
from omnibase_infra.topics.cluster import Partition
from omnibase_infra.topics.declarations import from_spec
from omnibase_infra.topics.planning import describe
from omnibase_infra.topics.provisioning import apply, check, plan_cluster, provision

REALM = Realm("test", "unit")
REQUESTS = "test-unit.onex.cmd.order-store.requests.v1"
CONTROL = "test-unit.onex.cmd.order-store.control.v1"
RESULTS = "test-unit.onex.evt.order-store.results.v1"
DEAD_LETTERS = "test-unit.onex.dlq.order-store.dead-letters.v1"
RESOLUTIONS = "test-unit.onex.dlq.order-store.resolutions.v1"
ACTIONS = "test-unit.onex.evt.order-store.dead-letter-actions.v1"
RETRY_REQUESTS = "test-unit.onex.retry.order-store.requests.v1"
RETRY_CONTROL = "test-unit.onex.retry.order-store.control.v1"
GROUP = "test-unit.omnibase-infra.order-store.consume.v1"
SHOP = "test-unit.onex.evt.shop.orders.v1"


def catalogue_of(*specs: WorkerSpec, replication: int = 1) -> Catalogue:
    return derive(map(from_spec, specs), replication)


ONE = catalogue_of(order_store())


@pytest.fixture
def cluster() -> InMemoryCluster:
    return InMemoryCluster()


@pytest.fixture
def ready(cluster: InMemoryCluster) -> InMemoryCluster:
    """A cluster to which the one worker's topics were applied."""
    assert provision(cluster, ONE, REALM).is_complete
    cluster.calls.clear()
    return cluster


def actions(plan: Plan, kind: type[Action]) -> dict[str, Action]:
    return {action.topic: action for action in plan.actions if isinstance(action, kind)}


def committed(cluster: InMemoryCluster, topic: str, group: str = GROUP) -> dict[int, int]:
    partitions = [Partition(topic, number) for number in range(cluster.topics(topic).get(topic, 0))]
    return {partition.number: offset for partition, offset in cluster.group(group, partitions).committed.items()}


class FailingCluster(InMemoryCluster):
    """Fails at the calls named, each with its error."""

    def __init__(self, failures: Mapping[str, Exception]) -> None:
        super().__init__()
        self.failures = dict(failures)

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        self._fail(f"create {topic}")
        return super().create(topic, partitions, replication, config)

    def alter(self, topic: str, config: Mapping[str, str]) -> None:
        self._fail(f"alter {topic}")
        super().alter(topic, config)

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        self._fail(f"commit {group}")
        super().commit(group, offsets)

    def _fail(self, call: str) -> None:
        if call in self.failures:
            raise self.failures[call]


def test_an_empty_cluster_gets_every_topic_then_offsets_then_retry_topics_and_theirs(cluster: InMemoryCluster) -> None:
    plan = plan_cluster(cluster, ONE, REALM)

    assert [(type(action), action.topic) for action in plan.actions] == [
        (CreateTopic, CONTROL),
        (CreateTopic, REQUESTS),
        (CreateTopic, ACTIONS),
        (CreateTopic, RESULTS),
        (CommitFirstOffsets, CONTROL),
        (CommitFirstOffsets, REQUESTS),
        (CreateTopic, RETRY_CONTROL),
        (CreateTopic, RETRY_REQUESTS),
        (CommitFirstOffsets, RETRY_CONTROL),
        (CommitFirstOffsets, RETRY_REQUESTS),
        (CreateTopic, DEAD_LETTERS),
        (CreateTopic, RESOLUTIONS),
    ]
    assert (plan.refusals, plan.unchanged) == ((), ())
    assert cluster.calls == []


def test_planning_changes_nothing_and_an_applied_plan_leaves_nothing(ready: InMemoryCluster) -> None:
    plan = plan_cluster(ready, ONE, REALM)

    assert plan.is_empty
    assert len(plan.unchanged) == len(ONE.entries)
    assert ready.calls == []


def test_applying_again_does_nothing(ready: InMemoryCluster) -> None:
    report = provision(ready, ONE, REALM)

    assert (report.done, report.already, report.is_complete) == ((), (), True)
    assert ready.calls == []


def test_topics_are_created_as_the_catalogue_says(ready: InMemoryCluster) -> None:
    for entry in ONE.entries:
        state = ready.describe([entry.topic.physical(REALM)])[entry.topic.physical(REALM)]
        assert (state.partitions, state.replication) == (entry.partitions, 1)
        assert entry.config.items() <= state.config.items()


def test_a_group_that_never_existed_begins_at_the_beginning(ready: InMemoryCluster) -> None:
    for topic in (REQUESTS, CONTROL, RETRY_REQUESTS, RETRY_CONTROL):
        assert committed(ready, topic) == {0: 0, 1: 0, 2: 0}


def test_settings_that_differ_are_altered_and_others_left_alone(ready: InMemoryCluster) -> None:
    ready.alter(RESULTS, {"retention.ms": "1", "segment.bytes": "77"})

    plan = plan_cluster(ready, ONE, REALM)

    (alteration,) = plan.actions
    assert isinstance(alteration, AlterConfig)
    assert describe(alteration) == f"alter {RESULTS}: retention.ms 1 → 2592000000"
    provision(ready, ONE, REALM)
    assert ready.describe([RESULTS])[RESULTS].config["segment.bytes"] == "77"
    assert plan_cluster(ready, ONE, REALM).is_empty


def test_a_keyed_topic_grows_only_when_told_and_its_retry_topic_with_it(ready: InMemoryCluster) -> None:
    wider = catalogue_of(order_store(partitions=5))

    plan = plan_cluster(ready, wider, REALM)
    assert [refusal.subject for refusal in plan.refusals] == [REQUESTS, RESULTS]
    assert "keys would move" in plan.refusals[0].reason
    assert "--allow-repartition" in plan.refusals[0].hint
    assert {*actions(plan, AddPartitions)} == {CONTROL, RETRY_CONTROL}

    report = provision(ready, wider, REALM, allow_repartition=True)
    assert report.is_complete
    assert ready.topics("test-unit.onex.retry")[RETRY_REQUESTS] == 5
    assert plan_cluster(ready, wider, REALM).is_empty


def test_a_refused_growth_leaves_the_retry_topic_as_it_is_too(ready: InMemoryCluster) -> None:
    report = provision(ready, catalogue_of(order_store(partitions=5)), REALM)

    assert not report.is_complete
    assert ready.topics("test-unit.")[REQUESTS] == ready.topics("test-unit.")[RETRY_REQUESTS] == 3


def test_a_retry_topic_catches_up_with_its_source_untold(ready: InMemoryCluster) -> None:
    """As after an apply that died between the two: the partition numbers are the source's, so no key moves."""
    wider = catalogue_of(order_store(partitions=5))
    ready.add_partitions(REQUESTS, 5)
    ready.add_partitions(RESULTS, 5)

    assert provision(ready, wider, REALM).is_complete
    assert ready.topics("test-unit.")[RETRY_REQUESTS] == 5


def test_a_topic_never_shrinks(ready: InMemoryCluster) -> None:
    plan = plan_cluster(ready, catalogue_of(order_store(partitions=2)), REALM, allow_repartition=True)

    assert plan.actions == ()
    assert {refusal.subject for refusal in plan.refusals} == {REQUESTS, CONTROL, RESULTS}
    assert all("Kafka cannot take partitions away" in refusal.reason for refusal in plan.refusals)


def test_added_partitions_get_their_first_offset_at_their_beginning(ready: InMemoryCluster) -> None:
    wider = catalogue_of(order_store(partitions=5))
    ready.commit(GROUP, {Partition(REQUESTS, number): 0 for number in range(3)})
    ready.add_partitions(REQUESTS, 5)
    ready.write(REQUESTS, 4, 10)
    ready.expire(REQUESTS, 4, 6)

    provision(ready, wider, REALM, allow_repartition=True)

    assert committed(ready, REQUESTS) == {0: 0, 1: 0, 2: 0, 3: 0, 4: 6}


def test_a_late_starter_begins_at_the_end_but_reads_all_retries(cluster: InMemoryCluster) -> None:
    cluster.create(SHOP, 4, 1, {})
    cluster.write(SHOP, 2, 7)
    late = catalogue_of(order_store(), billing(start="latest"))

    provision(cluster, late, REALM)

    group = REALM.group("billing", 1)
    assert committed(cluster, SHOP, group) == {0: 0, 1: 0, 2: 7, 3: 0}
    retry = "test-unit.onex.retry.billing.evt-shop-orders.v1"
    assert committed(cluster, retry, group) == {0: 0, 1: 0, 2: 0, 3: 0}


def test_an_early_starter_begins_at_what_is_left_of_the_log(cluster: InMemoryCluster) -> None:
    cluster.create(SHOP, 4, 1, {})
    cluster.write(SHOP, 2, 7)
    cluster.expire(SHOP, 2, 3)

    provision(cluster, catalogue_of(order_store(), billing()), REALM)

    assert committed(cluster, SHOP, REALM.group("billing", 1)) == {0: 0, 1: 0, 2: 3, 3: 0}


def test_offsets_that_a_known_group_lost_are_not_made_up(ready: InMemoryCluster) -> None:
    ready.write(REQUESTS, 1, 5)
    ready.forget(GROUP, Partition(REQUESTS, 1))

    report = provision(ready, ONE, REALM)

    (refusal,) = report.refusals
    assert refusal.subject == GROUP
    assert f"{REQUESTS}[1]" in refusal.reason
    assert "omninode offsets" in refusal.hint
    assert 1 not in committed(ready, REQUESTS)


def test_a_group_whose_offsets_all_expired_is_still_known(ready: InMemoryCluster) -> None:
    ready.write(REQUESTS, 0, 5)
    ready.write(REQUESTS, 2, 5)
    ready.forget(GROUP)

    report = provision(ready, ONE, REALM)

    (refusal,) = report.refusals
    assert f"{REQUESTS}[0, 2]" in refusal.reason
    assert committed(ready, REQUESTS) == {1: 0}, "in a partition never written to nothing can be skipped"


def test_a_new_subscription_of_a_known_group_begins_where_the_contract_says(ready: InMemoryCluster) -> None:
    ready.create(SHOP, 3, 1, {})
    ready.write(SHOP, 0, 9)
    more = catalogue_of(order_store(version="1.1.0", subscribe=(*order_store().subscribe, "onex.evt.shop.orders.v1")))

    report = provision(ready, more, REALM)

    assert report.is_complete
    assert committed(ready, SHOP) == {0: 0, 1: 0, 2: 0}


def test_a_live_group_s_new_subscription_waits_until_its_workers_are_stopped(ready: InMemoryCluster) -> None:
    ready.create(SHOP, 3, 1, {})
    ready.write(SHOP, 0, 9)
    ready.join(GROUP, 2)
    more = catalogue_of(order_store(version="1.1.0", subscribe=(*order_store().subscribe, "onex.evt.shop.orders.v1")))
    retry = "test-unit.onex.retry.order-store.evt-shop-orders.v1"

    report = provision(ready, more, REALM)
    (refusal,) = report.refusals
    assert "2 live members" in refusal.reason
    assert "stop its workers" in refusal.hint
    assert retry not in ready.topics("test-unit."), "it would say that the subscription had been prepared"

    ready.leave(GROUP)
    assert provision(ready, more, REALM).is_complete
    assert committed(ready, SHOP) == {0: 0, 1: 0, 2: 0}
    assert retry in ready.topics("test-unit.")


def test_a_live_group_starts_added_partitions_by_itself(ready: InMemoryCluster) -> None:
    ready.join(GROUP)

    report = provision(ready, catalogue_of(order_store(partitions=5)), REALM, allow_repartition=True)

    assert report.is_complete
    assert committed(ready, REQUESTS) == {0: 0, 1: 0, 2: 0}


def test_a_new_major_version_is_a_new_group_beside_the_old_one(ready: InMemoryCluster) -> None:
    ready.join(GROUP)
    second = order_store(version="2.0.0", subscribe=("onex.cmd.order-store.requests.v2",))

    report = provision(ready, catalogue_of(order_store(), second), REALM)

    assert report.is_complete
    topic = "test-unit.onex.cmd.order-store.requests.v2"
    assert committed(ready, topic, REALM.group("order-store", 2)) == {0: 0, 1: 0, 2: 0}


def test_a_missing_external_topic_is_created_and_an_existing_one_left_to_its_owner(cluster: InMemoryCluster) -> None:
    fleet = catalogue_of(order_store(), billing())
    assert SHOP in actions(plan_cluster(cluster, fleet, REALM), CreateTopic)

    cluster.create(SHOP, 9, 1, {"retention.ms": "1"})
    report = provision(cluster, fleet, REALM)

    assert report.is_complete
    assert f"create {SHOP}" not in cluster.calls[1:]
    assert cluster.topics("test-unit.")["test-unit.onex.retry.billing.evt-shop-orders.v1"] == 9


def test_copies_that_are_missing_are_reported_and_writes_not_stopped(ready: InMemoryCluster) -> None:
    plan = plan_cluster(ready, catalogue_of(order_store(), replication=3), REALM)

    assert {refusal.subject for refusal in plan.refusals} == set(ready.topics("test-unit."))
    assert "1 copy of a partition" in plan.refusals[0].reason
    assert plan.actions == ()


def test_an_apply_that_dies_anywhere_is_finished_by_the_next(cluster: InMemoryCluster) -> None:
    steps = len(plan_cluster(cluster, ONE, REALM).actions)
    for position in range(steps):
        broken = InMemoryCluster()
        planned = plan_cluster(broken, ONE, REALM)
        apply(broken, Plan(planned.actions[:position]))

        assert provision(broken, ONE, REALM).is_complete
        assert plan_cluster(broken, ONE, REALM).is_empty
        assert committed(broken, REQUESTS) == {0: 0, 1: 0, 2: 0}


def test_an_apply_that_dies_after_commands_came_in_still_begins_at_the_first(cluster: InMemoryCluster) -> None:
    planned = plan_cluster(cluster, ONE, REALM)
    apply(cluster, Plan(planned.actions[:3]))
    cluster.write(REQUESTS, 1, 3)

    assert provision(cluster, ONE, REALM).is_complete
    assert committed(cluster, REQUESTS) == {0: 0, 1: 0, 2: 0}


def test_a_topic_that_appeared_meanwhile_is_fine_and_made_to_fit(cluster: InMemoryCluster) -> None:
    planned = plan_cluster(cluster, ONE, REALM)
    cluster.create(RESULTS, 3, 1, {"retention.ms": "1"})

    report = apply(cluster, planned)
    assert [action.topic for action in report.already] == [RESULTS]
    assert report.is_complete

    provision(cluster, ONE, REALM)
    assert plan_cluster(cluster, ONE, REALM).is_empty


def test_offsets_that_a_worker_committed_meanwhile_are_not_set_back(cluster: InMemoryCluster) -> None:
    planned = plan_cluster(cluster, ONE, REALM)
    provision(cluster, ONE, REALM)
    cluster.commit(GROUP, {Partition(REQUESTS, 1): 4711})

    report = apply(cluster, planned)

    assert report.is_complete
    assert report.done == ()
    assert committed(cluster, REQUESTS) == {0: 0, 1: 4711, 2: 0}


def test_retention_that_moved_on_since_the_plan_moves_the_beginning(cluster: InMemoryCluster) -> None:
    fleet = catalogue_of(order_store(), billing())
    cluster.create(SHOP, 4, 1, {})
    cluster.write(SHOP, 1, 9)
    planned = plan_cluster(cluster, fleet, REALM)
    cluster.expire(SHOP, 1, 5)

    apply(cluster, planned)

    assert committed(cluster, SHOP, REALM.group("billing", 1))[1] == 5


def test_what_the_cluster_refuses_is_reported_beside_what_was_done() -> None:
    cluster = FailingCluster({f"create {REQUESTS}": ClusterRefusedError("a policy of the cluster forbids it")})

    report = provision(cluster, ONE, REALM)

    assert [failure.action.topic for failure in report.failed] == [
        REQUESTS,
        REQUESTS,
        RETRY_REQUESTS,
        RETRY_REQUESTS,
        DEAD_LETTERS,
        RESOLUTIONS,
    ]
    assert report.failed[0].reason == "a policy of the cluster forbids it"
    assert "not tried" in report.failed[1].reason
    assert {action.topic for action in report.done} == {CONTROL, ACTIONS, RESULTS, RETRY_CONTROL}
    assert not report.is_complete

    cluster.failures.clear()
    assert provision(cluster, ONE, REALM).is_complete


def test_a_setting_that_is_refused_keeps_nothing_else_back() -> None:
    cluster = FailingCluster({f"alter {REQUESTS}": ClusterRefusedError("no")})
    cluster.create(REQUESTS, 3, 1, {"retention.ms": "1"})

    report = provision(cluster, ONE, REALM)

    assert [failure.action.topic for failure in report.failed] == [REQUESTS]
    assert committed(cluster, REQUESTS) == {0: 0, 1: 0, 2: 0}


def test_refused_first_offsets_keep_the_retry_topic_back() -> None:
    cluster = FailingCluster({f"commit {GROUP}": ClusterRefusedError("not authorised")})

    report = provision(cluster, ONE, REALM)

    assert RETRY_REQUESTS not in cluster.topics("test-unit.")
    assert not report.is_complete
    cluster.failures.clear()
    cluster.write(REQUESTS, 0, 3)
    assert provision(cluster, ONE, REALM).is_complete
    assert committed(cluster, REQUESTS) == {0: 0, 1: 0, 2: 0}


def test_a_cluster_that_goes_away_stops_the_apply_and_says_what_is_left() -> None:
    cluster = FailingCluster({f"create {RESULTS}": DependencyUnavailableError("gone", dependency="kafka")})
    seen: list[tuple[str, str]] = []

    planned = plan_cluster(cluster, ONE, REALM)
    report = apply(cluster, planned, lambda action, outcome: seen.append((action.topic, outcome)))

    assert [action.topic for action in report.done] == [CONTROL, REQUESTS, ACTIONS]
    assert [failure.reason for failure in report.failed] == ["gone"]
    assert len(report.skipped) == len(planned.actions) - 4
    assert [outcome for _, outcome in seen] == ["done", "done", "done", "failed", *["skipped"] * len(report.skipped)]


def test_check_finds_drift_and_stray_topics(ready: InMemoryCluster) -> None:
    assert not check(ready, ONE, REALM).has_drift

    ready.create("test-unit.onex.evt.order-store.forgotten.v1", 1, 1, {})
    ready.create("test-unit.anything", 1, 1, {})
    ready.create("test-other.onex.evt.order-store.forgotten.v1", 1, 1, {})
    ready.alter(RESULTS, {"cleanup.policy": "compact"})

    drift = check(ready, ONE, REALM)

    assert drift.stray == ("test-unit.anything", "test-unit.onex.evt.order-store.forgotten.v1")
    assert [action.topic for action in drift.plan.actions] == [RESULTS]


def test_a_part_of_the_fleet_is_checked_without_calling_the_rest_stray(cluster: InMemoryCluster) -> None:
    fleet = catalogue_of(order_store(), billing())
    provision(cluster, fleet, REALM)

    drift = check(cluster, fleet.of_workers({"billing"}), REALM, fleet)

    assert not drift.has_drift


def test_a_part_of_the_fleet_is_applied_without_touching_other_groups(cluster: InMemoryCluster) -> None:
    fleet = catalogue_of(order_store(), billing())

    provision(cluster, fleet.of_workers({"billing"}), REALM)

    assert committed(cluster, RESULTS, REALM.group("billing", 1)) == {0: 0, 1: 0, 2: 0}
    assert committed(cluster, RESULTS) == committed(cluster, REQUESTS) == {}
    assert provision(cluster, fleet, REALM).is_complete


def test_two_realms_on_one_cluster_do_not_see_each_other(ready: InMemoryCluster) -> None:
    other = Realm("test", "unit2")
    before = dict(ready.topics(""))

    assert len(plan_cluster(ready, ONE, other).actions) == 12
    provision(ready, ONE, other)

    assert ready.topics("test-unit.") == before
    assert plan_cluster(ready, ONE, REALM).is_empty
    assert check(ready, ONE, REALM).stray == ()


def test_plans_can_be_read_by_scripts(ready: InMemoryCluster) -> None:
    plan = plan_cluster(ready, catalogue_of(order_store(partitions=5)), REALM)

    content = msgspec.json.encode(plan)

    assert msgspec.json.decode(content, type=Plan) == plan
    assert msgspec.json.decode(content)["actions"][0]["action"] == "add-partitions"


def test_every_action_is_one_line_for_people(cluster: InMemoryCluster) -> None:
    lines = [describe(action) for action in plan_cluster(cluster, ONE, REALM).actions]

    assert lines[1] == (
        f"create {REQUESTS}: 3 partitions, 1 copy, cleanup.policy=delete, max.message.bytes=1114112, "
        "min.insync.replicas=1, retention.ms=604800000"
    )
    assert lines[4] == f"commit first offsets of {GROUP} on {CONTROL}[0-2] at 0"
    assert describe(AddPartitions(RESULTS, 3, 5)) == f"add partitions to {RESULTS}: 3 → 5"
    assert not any("\n" in line for line in lines)


def test_topic_settings_reach_the_cluster(cluster: InMemoryCluster) -> None:
    spec = order_store(topic_settings=(TopicSettings(topic="onex.cmd.order-store.control.v1", partitions=1),))

    provision(cluster, catalogue_of(spec), REALM)

    assert cluster.topics("test-unit.")[CONTROL] == cluster.topics("test-unit.")[RETRY_CONTROL] == 1
