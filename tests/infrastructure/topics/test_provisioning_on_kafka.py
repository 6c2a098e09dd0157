"""Provisioning on a real broker: repeated, killed, raced, drifted, and beside another realm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest
from confluent_kafka import Producer

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.local_services import KafkaService
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, KafkaServer, RecordedLog
from omnibase_infra.shared.testing.sample_fleet import billing, order_store
from omnibase_infra.topics.catalogue import Catalogue, derive
from omnibase_infra.topics.changes import Action, CreateTopic
from omnibase_infra.topics.cluster import Partition
from omnibase_infra.topics.declarations import from_spec
from omnibase_infra.topics.provisioning import ApplyReport, Outcome, apply, check, plan_cluster, provision

FLEET = derive(map(from_spec, (order_store(), billing())))
PROCESS_SECONDS = 60


def catalogue_of(*specs: WorkerSpec) -> Catalogue:
    return derive(map(from_spec, specs))


@pytest.fixture
def admin(kafka_settings: Settings) -> KafkaTopicAdmin:
    return KafkaTopicAdmin(kafka_settings, log=RecordedLog())


@pytest.fixture
def requests(realm: Realm) -> str:
    return f"{realm}.onex.cmd.order-store.requests.v1"


@pytest.fixture
def group(realm: Realm) -> str:
    return realm.group("order-store", 1)


def provisioned(admin: KafkaTopicAdmin, catalogue: Catalogue, realm: Realm) -> None:
    report = provision(admin, catalogue, realm)
    assert (report.failed, report.skipped, report.refusals) == ((), (), ())


def write(settings: Settings, topic: str, partition: int, count: int = 1) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers or "", "acks": "all"})
    for _ in range(count):
        producer.produce(topic, b"{}", partition=partition)
    assert producer.flush(30) == 0


def committed(admin: KafkaTopicAdmin, group: str, topic: str) -> dict[int, int]:
    partitions = [Partition(topic, number) for number in range(admin.topics(topic)[topic])]
    return {place.number: offset for place, offset in admin.group(group, partitions).committed.items()}


def test_a_fleet_is_planned_applied_and_then_there_is_nothing_to_do(admin: KafkaTopicAdmin, realm: Realm) -> None:
    planned = plan_cluster(admin, FLEET, realm)
    creations = [action for action in planned.actions if isinstance(action, CreateTopic)]
    assert len(creations) == len(FLEET.entries)
    assert admin.topics(f"{realm}.") == {}

    report = apply(admin, planned)

    assert report.is_complete
    assert report.done == planned.actions
    assert plan_cluster(admin, FLEET, realm).is_empty
    assert not check(admin, FLEET, realm).has_drift
    assert provision(admin, FLEET, realm) == ApplyReport()


def test_every_group_begins_at_the_first_record_of_every_topic_it_reads(admin: KafkaTopicAdmin, realm: Realm) -> None:
    provisioned(admin, FLEET, realm)

    for reader, entries in FLEET.readers().items():
        for entry in entries:
            offsets = committed(admin, reader.group(realm), entry.topic.physical(realm))
            assert offsets == dict.fromkeys(range(entry.partitions), 0)


def test_what_lies_in_a_topic_before_its_reader_exists_is_read_or_skipped_as_the_contract_says(
    admin: KafkaTopicAdmin, kafka_settings: Settings, realm: Realm
) -> None:
    shop = f"{realm}.onex.evt.shop.orders.v1"
    admin.create(shop, 4, 1, {})
    write(kafka_settings, shop, 1, 5)

    provision(admin, catalogue_of(order_store(), billing(start="latest")), realm)
    provision(admin, catalogue_of(order_store(), billing(version="2.0.0", start="earliest")), realm)

    assert committed(admin, realm.group("billing", 1), shop) == {0: 0, 1: 5, 2: 0, 3: 0}
    assert committed(admin, realm.group("billing", 2), shop) == {0: 0, 1: 0, 2: 0, 3: 0}


def test_a_keyed_topic_grows_only_when_told(admin: KafkaTopicAdmin, realm: Realm, requests: str, group: str) -> None:
    provisioned(admin, FLEET, realm)
    wider = catalogue_of(order_store(partitions=5), billing())

    refused = provision(admin, wider, realm)
    assert requests in {refusal.subject for refusal in refused.refusals}
    assert admin.topics(f"{realm}.")[requests] == 3

    assert provision(admin, wider, realm, allow_repartition=True).is_complete
    assert admin.topics(f"{realm}.")[requests] == 5
    assert committed(admin, group, requests) == dict.fromkeys(range(5), 0)

    shrunk = plan_cluster(admin, FLEET, realm, allow_repartition=True)
    assert shrunk.actions == ()
    assert requests in {refusal.subject for refusal in shrunk.refusals}


def test_drift_and_stray_topics_are_found_and_repaired_or_left(
    admin: KafkaTopicAdmin, realm: Realm, requests: str
) -> None:
    provisioned(admin, FLEET, realm)
    admin.alter(requests, {"retention.ms": "1000", "segment.bytes": "1048576"})
    admin.create(f"{realm}.onex.evt.order-store.forgotten.v1", 1, 1, {})

    drift = check(admin, FLEET, realm)
    assert [action.topic for action in drift.plan.actions] == [requests]
    assert drift.stray == (f"{realm}.onex.evt.order-store.forgotten.v1",)

    provisioned(admin, FLEET, realm)
    config = admin.describe([requests])[requests].config
    assert (config["retention.ms"], config["segment.bytes"]) == ("604800000", "1048576")
    assert check(admin, FLEET, realm).stray == drift.stray


def test_two_realms_on_one_cluster_do_not_see_each_other(
    admin: KafkaTopicAdmin, kafka_container: KafkaServer, realm: Realm
) -> None:
    # One realm's name is the beginning of the other's.
    neighbour = Realm(realm.environment, f"{realm.tenant}-2")
    other = KafkaTopicAdmin(kafka_container.settings(neighbour), log=RecordedLog())
    provisioned(admin, FLEET, realm)

    assert len(plan_cluster(other, FLEET, neighbour).actions) > len(FLEET.entries)
    assert check(other, FLEET, neighbour).stray == ()
    provision(other, catalogue_of(order_store()), neighbour)

    assert not check(admin, FLEET, realm).has_drift
    assert not check(other, catalogue_of(order_store()), neighbour).has_drift
    assert all(name.startswith(f"{neighbour}.") for name in other.topics(f"{neighbour}."))


def test_offsets_that_a_known_group_lost_are_reported_and_not_made_up(
    admin: KafkaTopicAdmin, kafka_settings: Settings, realm: Realm, requests: str, group: str
) -> None:
    provisioned(admin, FLEET, realm)
    write(kafka_settings, requests, 1, 3)
    deletion = admin._client.delete_consumer_groups([group], request_timeout=30)
    deletion[group].result(30)

    report = provision(admin, FLEET, realm)

    (refusal,) = report.refusals
    assert refusal.subject == group
    assert f"{requests}[1]" in refusal.reason
    assert committed(admin, group, requests) == {0: 0, 2: 0}


def test_a_live_group_keeps_its_offsets_and_learns_nothing_new(
    admin: KafkaTopicAdmin,
    kafka_consumer_factory: ConsumerFactory,
    kafka_settings: Settings,
    realm: Realm,
    requests: str,
    group: str,
) -> None:
    provision(admin, catalogue_of(order_store()), realm)
    shop = f"{realm}.onex.evt.shop.orders.v1"
    admin.create(shop, 3, 1, {})
    write(kafka_settings, shop, 0)
    member = kafka_consumer_factory(group=group)
    member.subscribe([requests])
    for _ in range(300):
        member.poll(0.1)
        if member.assignment():
            break
    more = catalogue_of(order_store(version="1.1.0", subscribe=(*order_store().subscribe, "onex.evt.shop.orders.v1")))

    report = provision(admin, more, realm)
    assert [refusal.subject for refusal in report.refusals] == [group]
    assert "1 live member" in report.refusals[0].reason

    kafka_consumer_factory.close(member)
    assert provision(admin, more, realm).is_complete
    assert committed(admin, group, shop) == {0: 0, 1: 0, 2: 0}


def environment(server: KafkaServer, realm: Realm) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
    return inherited | {
        "OMNIBASE_ENV": realm.environment,
        "OMNIBASE_TENANT": realm.tenant,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": server.bootstrap_servers,
        "OMNIBASE_STATE_DIR": str(server.env_file.parent),
    }


def start_apply(server: KafkaServer, realm: Realm, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "omnibase_infra.shared.cli.main", "topics", "apply", *options]
    return subprocess.Popen(
        command, env=environment(server, realm), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=PROCESS_SECONDS)
    return process.returncode, output, errors


@pytest.mark.parametrize("steps", [1, 4, 6, 9])
def test_an_apply_that_is_killed_in_the_middle_is_finished_by_the_next(
    kafka_container: KafkaServer, admin: KafkaTopicAdmin, realm: Realm, steps: int
) -> None:
    process = start_apply(kafka_container, realm)
    assert process.stdout is not None
    for _ in range(steps):
        assert process.stdout.readline().startswith("done")
    process.kill()
    finish(process)
    before = admin.topics(f"{realm}.")
    assert before

    code, output, errors = finish(start_apply(kafka_container, realm, "--json"))

    assert (code, errors) == (0, "")
    report = json.loads(output)
    assert not report["failed"]
    assert not report["refusals"]
    assert before.keys() <= admin.topics(f"{realm}.").keys()
    assert finish(start_apply(kafka_container, realm))[:2] == (
        0,
        "0 changes made, the cluster is as the contracts say\n",
    )


def test_two_people_may_apply_at_the_same_time(
    kafka_container: KafkaServer, admin: KafkaTopicAdmin, realm: Realm
) -> None:
    processes = [start_apply(kafka_container, realm, "--json") for _ in range(2)]

    results = [finish(process) for process in processes]

    assert [(code, errors) for code, _, errors in results] == [(0, ""), (0, "")]
    reports = [json.loads(output) for _, output, _ in results]
    assert all(not report["failed"] and not report["skipped"] and not report["refusals"] for report in reports)
    made = [action["topic"] for report in reports for action in report["done"] if action["action"] == "create-topic"]
    assert sorted(made) == sorted(set(made)) == sorted(admin.topics(f"{realm}."))


def test_many_threads_that_apply_the_same_plan_end_in_the_same_cluster(
    admin: KafkaTopicAdmin, kafka_settings: Settings, realm: Realm
) -> None:
    planned = plan_cluster(admin, FLEET, realm)
    reports: list[ApplyReport] = []
    threads = [
        threading.Thread(
            target=lambda: reports.append(apply(KafkaTopicAdmin(kafka_settings, log=RecordedLog()), planned))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PROCESS_SECONDS)

    assert len(reports) == 4
    assert all(report.is_complete for report in reports)
    creations = [action for report in reports for action in report.done if isinstance(action, CreateTopic)]
    assert len(creations) == len({action.topic for action in creations}) == len(FLEET.entries)
    assert plan_cluster(admin, FLEET, realm).is_empty


def test_a_broker_that_goes_away_ends_the_apply_with_what_is_left(
    kafka_own_broker: tuple[KafkaService, Settings],
) -> None:
    service, settings = kafka_own_broker
    admin = KafkaTopicAdmin(settings, log=RecordedLog(), timeout_seconds=2)
    planned = plan_cluster(admin, FLEET, settings.realm)

    def kill_after_the_first(_: Action, outcome: Outcome) -> None:
        if outcome == "done":
            service.kill()

    report = apply(admin, planned, kill_after_the_first)

    assert len(report.done) == 1
    assert len(report.failed) == 1
    assert settings.kafka_bootstrap_servers is not None
    assert settings.kafka_bootstrap_servers in report.failed[0].reason
    assert len(report.skipped) == len(planned.actions) - 2
    with pytest.raises(DependencyUnavailableError, match="no Kafka broker at"):
        plan_cluster(admin, FLEET, settings.realm)

    service.start()
    assert provision(KafkaTopicAdmin(settings, log=RecordedLog()), FLEET, settings.realm).is_complete


def test_a_cluster_s_own_refusal_is_reported_by_topic(admin: KafkaTopicAdmin, realm: Realm) -> None:
    report = provision(admin, derive(map(from_spec, (order_store(),)), replication=3), realm)

    assert not report.is_complete
    assert all(failure.action.topic.startswith(f"{realm}.") for failure in report.failed)
    assert "INVALID_REPLICATION_FACTOR" in report.failed[0].reason
    assert admin.topics(f"{realm}.") == {}
