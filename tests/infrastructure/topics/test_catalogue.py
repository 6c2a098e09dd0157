"""The catalogue: every topic of the fleet follows from what the workers declare."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.contracts.loader import load_contract
from omnibase_infra.shared.core.errors import TopicNotDeclaredError
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.worker_spec import DeadLetterSpec, TopicSettings, WorkerSpec
from omnibase_infra.shared.registry.nodes import load_spec, node_versions
from omnibase_infra.shared.testing.sample_fleet import billing, order_store
from omnibase_infra.topics.catalogue import DAY, HEADROOM_BYTES, Catalogue, Reader, TopicEntry, derive
from omnibase_infra.topics.declarations import from_contract, from_spec

KIB = 1024


def catalogue_of(*specs: WorkerSpec, replication: int = 1) -> Catalogue:
    return derive(map(from_spec, specs), replication)


def entry(catalogue: Catalogue, topic: str) -> TopicEntry:
    return catalogue.find(TopicName.parse(topic))


def test_a_retry_topic_whose_worker_holds_keys_keeps_its_records_until_a_person_has_decided() -> None:
    holding = msgspec.structs.replace(order_store(), dead_letters=DeadLetterSpec(then="hold"))
    retry = entry(catalogue_of(holding), "onex.retry.order-store.requests.v1")
    assert retry.config["retention.ms"] == "-1"
    assert retry.retention_seconds is None
    assert entry(catalogue_of(order_store()), "onex.retry.order-store.requests.v1").retention_seconds == 7 * DAY


def test_a_fleet_has_source_retry_and_dead_letter_topics_in_the_order_of_their_names(fleet: list[WorkerSpec]) -> None:
    assert [str(item.topic) for item in catalogue_of(*fleet).entries] == [
        "onex.cmd.order-store.control.v1",
        "onex.cmd.order-store.requests.v1",
        "onex.dlq.billing.dead-letters.v1",
        "onex.dlq.billing.resolutions.v1",
        "onex.dlq.order-store.dead-letters.v1",
        "onex.dlq.order-store.resolutions.v1",
        "onex.evt.billing.answers.v1",
        "onex.evt.billing.dead-letter-actions.v1",
        "onex.evt.order-store.dead-letter-actions.v1",
        "onex.evt.order-store.results.v1",
        "onex.evt.shop.orders.v1",
        "onex.retry.billing.evt-order-store-results.v1",
        "onex.retry.billing.evt-shop-orders.v1",
        "onex.retry.order-store.control.v1",
        "onex.retry.order-store.requests.v1",
    ]


def test_the_order_in_which_workers_are_given_does_not_matter(fleet: list[WorkerSpec]) -> None:
    versions = [*fleet, order_store(version="1.1.0", partitions=5), order_store(version="2.0.0")]

    assert len({msgspec.json.encode(catalogue_of(*order)) for order in itertools.permutations(versions)}) == 1


@pytest.mark.parametrize(
    ("topic", "policy", "days"),
    [
        ("onex.cmd.order-store.requests.v1", "delete", 7),
        ("onex.evt.order-store.results.v1", "delete", 30),
        ("onex.retry.order-store.requests.v1", "delete", 7),
        ("onex.dlq.order-store.dead-letters.v1", "delete", 14),
    ],
)
def test_each_kind_has_the_wire_page_s_retention(fleet: list[WorkerSpec], topic: str, policy: str, days: int) -> None:
    found = entry(catalogue_of(*fleet), topic)

    assert found.config["cleanup.policy"] == policy
    assert found.retention_seconds == days * DAY
    assert found.config["retention.ms"] == str(days * 86_400_000)


def test_intents_are_short_lived_and_snapshots_compacted() -> None:
    catalogue = catalogue_of(
        order_store(publish=("onex.intent.order-store.wishes.v1", "onex.snapshot.order-store.state.v1"))
    )

    assert entry(catalogue, "onex.intent.order-store.wishes.v1").retention_seconds == DAY
    snapshot = entry(catalogue, "onex.snapshot.order-store.state.v1")
    assert snapshot.config["cleanup.policy"] == "compact"
    assert "retention.ms" not in snapshot.config


def test_a_contract_may_override_partitions_and_retention_of_a_topic() -> None:
    catalogue = catalogue_of(
        order_store(
            topic_settings=(
                TopicSettings(topic="onex.cmd.order-store.control.v1", partitions=1),
                TopicSettings(topic="onex.evt.order-store.results.v1", retention_seconds=2 * DAY),
                TopicSettings(topic="onex.snapshot.order-store.state.v1", retention_seconds=DAY),
            ),
            publish=("onex.evt.order-store.results.v1", "onex.snapshot.order-store.state.v1"),
        )
    )

    assert entry(catalogue, "onex.cmd.order-store.control.v1").partitions == 1
    assert entry(catalogue, "onex.retry.order-store.control.v1").partitions == 1
    assert entry(catalogue, "onex.cmd.order-store.requests.v1").partitions == 3
    assert entry(catalogue, "onex.evt.order-store.results.v1").config["retention.ms"] == "172800000"
    assert entry(catalogue, "onex.snapshot.order-store.state.v1").config["cleanup.policy"] == "compact,delete"


def test_a_retry_topic_is_partitioned_like_its_source_whoever_owns_that(fleet: list[WorkerSpec]) -> None:
    catalogue = catalogue_of(*fleet)

    for retry in (item for item in catalogue.entries if item.kind == "retry"):
        assert retry.source is not None
        assert retry.partitions == catalogue.find(retry.source).partitions
        assert retry.keyed == catalogue.find(retry.source).keyed


def test_marks_on_dead_letters_are_kept_for_as_long_as_somebody_may_read_them() -> None:
    """One that went before its dead letter would put that back to work twice."""
    found = entry(catalogue_of(order_store(version="2.1.0")), "onex.dlq.order-store.resolutions.v2")

    assert found.config["cleanup.policy"] == "compact"
    assert found.retention_seconds is None
    assert (found.owner, found.partitions, found.writers) == ("order-store", 1, ("order-store",))


def test_a_contract_may_read_what_people_did_to_dead_letters_of_another_worker() -> None:
    actions = "onex.evt.order-store.dead-letter-actions.v1"
    catalogue = catalogue_of(order_store(), billing(subscribe=(actions,), topic_settings=()))
    found = entry(catalogue, actions)

    assert entry(catalogue, "onex.retry.billing.evt-order-store-dead-letter-actions.v1").partitions == 1
    assert (found.owner, found.external, found.partitions) == ("order-store", False, 1)
    assert (found.readers, found.writers) == ((Reader("billing", 1),), ("order-store",))


def test_records_that_fit_a_source_fit_its_retry_and_dead_letter_topics_with_their_headers() -> None:
    catalogue = catalogue_of(order_store(max_record_bytes=256 * KIB))

    def limit(topic: str) -> int:
        return int(entry(catalogue, topic).config["max.message.bytes"])

    source = limit("onex.cmd.order-store.requests.v1")
    assert source == 256 * KIB + HEADROOM_BYTES
    assert limit("onex.retry.order-store.requests.v1") == source + 64 * KIB
    assert limit("onex.dlq.order-store.dead-letters.v1") == source + 64 * KIB


@pytest.mark.parametrize(("replication", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_two_copies_must_be_in_sync_where_three_are_kept(replication: int, in_sync: str) -> None:
    catalogue = catalogue_of(order_store(), replication=replication)

    assert {item.config["min.insync.replicas"] for item in catalogue.entries} == {in_sync}
    assert catalogue.replication == replication


def test_the_producer_segment_names_the_owner_and_others_are_external(fleet: list[WorkerSpec]) -> None:
    catalogue = catalogue_of(*fleet)

    assert {item.owner for item in catalogue.entries if item.external} == {"shop"}
    external = entry(catalogue, "onex.evt.shop.orders.v1")
    assert (external.partitions, external.readers, external.writers) == (4, (Reader("billing", 1),), ())
    answers = entry(catalogue, "onex.evt.billing.answers.v1")
    assert (answers.owner, answers.external, answers.writers) == ("billing", False, ("billing",))


def test_an_external_topic_without_stated_partitions_has_its_readers() -> None:
    catalogue = catalogue_of(billing(topic_settings=()), order_store())

    assert entry(catalogue, "onex.evt.shop.orders.v1").partitions == 2


def test_readers_are_consumer_groups_and_every_one_is_known(fleet: list[WorkerSpec]) -> None:
    catalogue = catalogue_of(*fleet)

    groups = {reader.group(Realm("dev")): entries for reader, entries in catalogue.readers().items()}
    assert {name: [str(item.topic) for item in entries] for name, entries in groups.items()} == {
        "dev.omnibase-infra.billing.consume.v1": [
            "onex.evt.order-store.results.v1",
            "onex.evt.shop.orders.v1",
            "onex.retry.billing.evt-order-store-results.v1",
            "onex.retry.billing.evt-shop-orders.v1",
        ],
        "dev.omnibase-infra.order-store.consume.v1": [
            "onex.cmd.order-store.control.v1",
            "onex.cmd.order-store.requests.v1",
            "onex.retry.order-store.control.v1",
            "onex.retry.order-store.requests.v1",
        ],
    }


def test_keys_matter_unless_every_operation_on_a_topic_says_otherwise(fleet: list[WorkerSpec]) -> None:
    keyed = {str(item.topic): item.keyed for item in catalogue_of(*fleet).entries}

    assert {topic for topic, matters in keyed.items() if not matters} == {
        "onex.cmd.order-store.control.v1",
        "onex.retry.order-store.control.v1",
        "onex.dlq.billing.dead-letters.v1",
        "onex.dlq.order-store.dead-letters.v1",
        "onex.evt.billing.dead-letter-actions.v1",
        "onex.evt.order-store.dead-letter-actions.v1",
    }


def test_messages_are_known_by_type_and_model(fleet: list[WorkerSpec]) -> None:
    messages = entry(catalogue_of(*fleet), "onex.evt.order-store.results.v1").messages

    assert [(item.event_type, item.model) for item in messages] == [
        ("onex.evt.order-store.insert-order-completed.v1", "ModelInsertOrderResponse"),
        ("onex.evt.order-store.insert-order-failed.v1", "ModelErrorResponse"),
    ]


def test_the_newest_version_speaks_for_a_topic_and_each_major_has_a_group() -> None:
    catalogue = catalogue_of(
        order_store(version="1.0.0", partitions=3),
        order_store(version="1.1.0", partitions=6, start="latest"),
        order_store(version="2.0.0", partitions=6, subscribe=("onex.cmd.order-store.requests.v2",)),
    )

    first = entry(catalogue, "onex.cmd.order-store.requests.v1")
    assert (first.partitions, first.readers, first.late_readers) == (6, (Reader("order-store", 1),), first.readers)
    second = entry(catalogue, "onex.cmd.order-store.requests.v2")
    assert (second.readers, second.late_readers) == ((Reader("order-store", 2),), ())
    assert entry(catalogue, "onex.retry.order-store.requests.v1").late_readers == ()


def test_a_part_of_the_fleet_has_what_it_owns_reads_and_writes(fleet: list[WorkerSpec]) -> None:
    part = catalogue_of(*fleet).of_workers({"billing"})

    assert [str(item.topic) for item in part.entries] == [
        "onex.dlq.billing.dead-letters.v1",
        "onex.dlq.billing.resolutions.v1",
        "onex.evt.billing.answers.v1",
        "onex.evt.billing.dead-letter-actions.v1",
        "onex.evt.order-store.results.v1",
        "onex.evt.shop.orders.v1",
        "onex.retry.billing.evt-order-store-results.v1",
        "onex.retry.billing.evt-shop-orders.v1",
    ]
    assert {reader.worker for reader in part.readers()} == {"billing"}


def test_an_undeclared_topic_is_not_found(fleet: list[WorkerSpec]) -> None:
    with pytest.raises(TopicNotDeclaredError, match="no contract lists the topic"):
        entry(catalogue_of(*fleet), "onex.evt.order-store.other.v1")


def without_models(catalogue: Catalogue) -> Any:
    """Models that kits derive are known to the generator only, so a contract's catalogue leaves them out."""
    content = msgspec.to_builtins(catalogue)
    for item in content["entries"]:
        for message in item["messages"]:
            del message["model"]
    return content


def test_contracts_and_generated_specs_give_the_same_catalogue() -> None:
    import omnibase_infra.workers as workers

    versions = node_versions()
    root = Path(str(workers.__file__)).parent
    paths = [root / item.node / f"v{'_'.join(map(str, item.version))}" / "contract.yaml" for item in versions]
    specs = [load_spec(item.node, ".".join(map(str, item.version))) for item in versions]

    from_contracts = derive(from_contract(load_contract(path)) for path in paths)

    assert specs
    assert without_models(derive(map(from_spec, specs))) == without_models(from_contracts)
