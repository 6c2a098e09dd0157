"""What a worker may read and write follows from its spec."""

from __future__ import annotations

from typing import Any

import pytest

from omnibase_infra.shared.core.errors import GenerationDriftError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import RUNTIME_GENERATION, WorkerSpec, require_generation


def worker_spec(**changes: Any) -> WorkerSpec:
    values: dict[str, Any] = {
        "generation": RUNTIME_GENERATION,
        "node": "order_store",
        "worker": "order-store",
        "class_name": "NodeOrderStoreEffect",
        "version": "2.10.3",
        "contract_sha256": "0" * 64,
        "description": "Stores orders.",
        "node_type": "effect",
        "subscribe": ("onex.cmd.order-store.requests.v1", "onex.evt.shop.orders.v1"),
        "publish": ("onex.evt.order-store.results.v1",),
        "reply_topics": ("onex.evt.billing.answers.v1",),
    }
    return WorkerSpec(**(values | changes))


def test_the_major_version_is_a_number() -> None:
    assert worker_spec().major == 2


def test_each_source_has_a_retry_topic_and_the_worker_one_dead_letter_topic() -> None:
    spec = worker_spec()

    assert spec.retry_topics == {
        TopicName.parse("onex.cmd.order-store.requests.v1"): TopicName.parse("onex.retry.order-store.requests.v1"),
        TopicName.parse("onex.evt.shop.orders.v1"): TopicName.parse("onex.retry.order-store.evt-shop-orders.v1"),
    }
    assert str(spec.dead_letter_topic) == "onex.dlq.order-store.dead-letters.v2"


def test_a_worker_may_write_what_it_publishes_its_reply_topics_and_its_own_retries_and_dead_letters() -> None:
    assert worker_spec().writable_topics() == {
        "onex.evt.order-store.results.v1",
        "onex.evt.billing.answers.v1",
        "onex.retry.order-store.requests.v1",
        "onex.retry.order-store.evt-shop-orders.v1",
        "onex.dlq.order-store.dead-letters.v2",
    }


def test_code_of_another_generation_is_refused_with_the_command_that_repairs_it() -> None:
    require_generation(RUNTIME_GENERATION, "order_store")
    with pytest.raises(GenerationDriftError, match="run `omninode generate order_store`"):
        require_generation(RUNTIME_GENERATION + 1, "order_store")
