"""What a contract says about single topics reaches the generated spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnibase_infra.shared.contracts.loader import load_contract
from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import TopicSettings
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.topics.declarations import from_contract, from_spec, topic_settings


@pytest.fixture
def contract(tmp_path: Path, audit_contract: str) -> Contract:
    path = tmp_path / "audit" / "v2_1_0" / "contract.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(audit_contract, encoding="utf-8")
    return load_contract(path)


def test_only_topics_that_differ_from_the_defaults_have_settings(contract: Contract) -> None:
    assert topic_settings(contract) == (
        TopicSettings(topic="onex.evt.audit.results.v1", retention_seconds=3 * 86_400),
        TopicSettings(topic="onex.evt.shop.orders.v1", partitions=12, external=True),
    )


def test_a_contract_declares_topics_messages_and_order(contract: Contract) -> None:
    declaration = from_contract(contract)

    assert (declaration.worker, declaration.version, declaration.major) == ("audit", (2, 1, 0), 2)
    assert (declaration.partitions, declaration.start, declaration.max_record_bytes) == (4, "latest", 65536)
    assert declaration.contract == "workers/audit/v2_1_0/contract.yaml"
    assert declaration.unordered == {TopicName.parse("onex.evt.shop.orders.v1")}
    assert [(str(topic), item.event_type) for topic, item in declaration.messages] == [
        ("onex.evt.shop.orders.v1", "onex.evt.shop.order-placed.v1"),
        ("onex.cmd.audit.requests.v1", "onex.cmd.audit.find-trace.v2"),
        ("onex.evt.audit.results.v1", "onex.evt.audit.find-trace-completed.v2"),
        ("onex.evt.audit.results.v1", "onex.evt.audit.find-trace-failed.v2"),
    ]


def test_a_spec_declares_the_same_kind_of_thing() -> None:
    declaration = from_spec(order_store(version="1.12.3"))

    assert declaration.version == (1, 12, 3)
    assert declaration.unordered == {TopicName.parse("onex.cmd.order-store.control.v1")}
    assert declaration.settings_of(TopicName.parse("onex.evt.order-store.results.v1")) == TopicSettings(
        topic="onex.evt.order-store.results.v1"
    )
