"""Specs of two workers that exist nowhere else: for tests that need a fleet, with any field changed by keyword."""

from __future__ import annotations

from typing import Any

from omnibase_infra.shared.core.worker_spec import RUNTIME_GENERATION, OperationSpec, TopicSettings, WorkerSpec


def order_store(**changes: Any) -> WorkerSpec:
    """Return the spec of a worker with two command topics, one answer topic and an unordered operation."""
    values: dict[str, Any] = {
        "generation": RUNTIME_GENERATION,
        "node": "order_store",
        "worker": "order-store",
        "class_name": "NodeOrderStoreEffect",
        "version": "1.0.0",
        "contract_sha256": "0" * 64,
        "description": "Stores orders.",
        "node_type": "effect",
        "subscribe": ("onex.cmd.order-store.requests.v1", "onex.cmd.order-store.control.v1"),
        "publish": ("onex.evt.order-store.results.v1",),
        "partitions": 3,
        "operations": (
            OperationSpec(
                name="insert_order",
                topic="onex.cmd.order-store.requests.v1",
                event_type="onex.cmd.order-store.insert-order.v1",
                completed_type="onex.evt.order-store.insert-order-completed.v1",
                failed_type="onex.evt.order-store.insert-order-failed.v1",
                request_schema="urn:omnibase:order-store:ModelInsertOrderParameters:1.0.0",
                completed_schema="urn:omnibase:order-store:ModelInsertOrderResponse:1.0.0",
                failed_schema="urn:omnibase:order-store:ModelErrorResponse:1.0.0",
                answer_topic="onex.evt.order-store.results.v1",
            ),
            OperationSpec(
                name="health_check",
                topic="onex.cmd.order-store.control.v1",
                event_type="onex.cmd.order-store.health-check.v1",
                ordering="none",
            ),
        ),
    }
    return WorkerSpec(**(values | changes))


def billing(**changes: Any) -> WorkerSpec:
    """Return the spec of a worker that reads the other one's answers and events from outside the fleet."""
    values: dict[str, Any] = {
        "node": "billing",
        "worker": "billing",
        "class_name": "NodeBillingEffect",
        "subscribe": ("onex.evt.order-store.results.v1", "onex.evt.shop.orders.v1"),
        "publish": (),
        "reply_topics": ("onex.evt.billing.answers.v1",),
        "partitions": 2,
        "topic_settings": (TopicSettings(topic="onex.evt.shop.orders.v1", partitions=4, external=True),),
        "operations": (),
    }
    return order_store(**(values | changes))
