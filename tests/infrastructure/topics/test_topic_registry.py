"""The registry's façade: names checked and prefixed, metadata looked up by topic, worker and kind."""

from __future__ import annotations

import pytest

from omnibase_infra.shared.core.errors import ContractError, InvalidNameError, TopicNotDeclaredError
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.topics.policy import TopicPolicy
from omnibase_infra.topics.topic_registry import TopicRegistry, replication_factor

REALM = Realm("prod", "acme")


@pytest.fixture
def registry(fleet: list[WorkerSpec]) -> TopicRegistry:
    return TopicRegistry.from_specs(fleet, REALM, replication=3)


def test_a_declared_topic_has_a_physical_name_and_metadata(registry: TopicRegistry) -> None:
    entry = registry.entry("onex.cmd.order-store.requests.v1")

    assert registry.physical(entry.topic) == "prod-acme.onex.cmd.order-store.requests.v1"
    assert (entry.owner, entry.kind, entry.partitions) == ("order-store", "cmd", 3)
    assert entry.config["min.insync.replicas"] == "2"


def test_a_physical_name_leads_back_to_the_logical_one_in_its_own_realm_only(registry: TopicRegistry) -> None:
    physical = "prod-acme.onex.cmd.order-store.requests.v1"

    assert registry.logical(physical) == TopicName.parse("onex.cmd.order-store.requests.v1")
    with pytest.raises(InvalidNameError, match="not in the realm 'prod-acme'"):
        registry.logical("prod.onex.cmd.order-store.requests.v1")


def test_malformed_and_undeclared_names_are_told_apart(registry: TopicRegistry) -> None:
    with pytest.raises(InvalidNameError, match="kind 'command'"):
        registry.entry("onex.command.order-store.requests.v1")
    with pytest.raises(TopicNotDeclaredError, match=r"did you mean onex\.cmd\.order-store\.requests\.v1"):
        registry.physical("onex.cmd.order-store.request.v1")
    with pytest.raises(TopicNotDeclaredError, match="add it to event_bus"):
        registry.entry(TopicName("snapshot", "z", "q", 9))


def test_topics_are_found_by_kind_owner_and_reader(registry: TopicRegistry) -> None:
    assert [str(entry.topic) for entry in registry.of_kind("dlq")] == [
        "onex.dlq.billing.dead-letters.v1",
        "onex.dlq.billing.resolutions.v1",
        "onex.dlq.order-store.dead-letters.v1",
        "onex.dlq.order-store.resolutions.v1",
    ]
    assert {entry.kind for entry in registry.owned_by("order-store")} == {"cmd", "evt", "retry", "dlq"}
    assert [str(entry.topic) for entry in registry.read_by("billing")] == [
        "onex.evt.order-store.results.v1",
        "onex.evt.shop.orders.v1",
        "onex.retry.billing.evt-order-store-results.v1",
        "onex.retry.billing.evt-shop-orders.v1",
    ]
    assert registry.workers() == ("billing", "order-store")
    assert registry.owned_by("shop") == ()


def test_groups_are_known_by_their_names(registry: TopicRegistry) -> None:
    assert {name: reader.worker for name, reader in registry.groups().items()} == {
        "prod-acme.omnibase-infra.billing.consume.v1": "billing",
        "prod-acme.omnibase-infra.order-store.consume.v1": "order-store",
    }


def test_the_registry_is_a_collection_of_entries(registry: TopicRegistry) -> None:
    assert len(registry) == len(list(registry)) == 15
    assert "onex.evt.shop.orders.v1" in registry
    assert TopicName.parse("onex.evt.shop.orders.v2") not in registry


def test_a_fleet_beyond_the_policy_has_no_registry() -> None:
    with pytest.raises(ContractError, match="at most 2 are allowed"):
        TopicRegistry.from_specs([order_store()], REALM, policy=TopicPolicy(max_partitions=2))


@pytest.mark.parametrize(
    ("environment", "stated", "copies"),
    [("prod", None, 3), ("staging", None, 3), ("dev", None, 1), ("local", None, 1), ("prod", 5, 5), ("test", 3, 3)],
)
def test_production_keeps_three_copies_unless_told_otherwise(environment: str, stated: int | None, copies: int) -> None:
    assert replication_factor(load_settings(env=environment, kafka_replication_factor=stated)) == copies
