"""A small valid contract on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnibase_infra.shared.testing.contract_folder import ContractFolder

CONTRACT = """\
name: NodeOrderStoreEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Stores orders and answers with the stored row.
capabilities:
  - {name: order_persistence, description: Insert and price orders}
dependencies:
  - {name: postgres_pool, type: service, class_name: PostgresConnectionPool, required: true}
  - {name: protocol_event_bus, type: protocol, class_name: ProtocolEventBus}
event_bus:
  subscribe:
    - onex.cmd.order-store.requests.v1
    - onex.cmd.order-store.control.v1
    - {topic: onex.evt.shop.orders.v1, external: true}
  publish:
    - onex.evt.order-store.results.v1
  reply_topics: [onex.evt.billing.answers.v1]
  partitions: 6
io_operations:
  - name: insert_order
    kit: postgres.statement
    statement: statements/insert_order.sql
    batch: {max: 500, linger_ms: 5}
    timeout: 5s
    ordering: key
  - name: price_order
    kit: custom
    request: ModelPriceRequest
    response: ModelPriceResponse
  - name: note_order
    kit: custom
    request: ModelPriceRequest
    needs: [postgres]
    topic: onex.evt.shop.orders.v1
    on: onex.evt.shop.order-placed.v1
    answer: false
  - name: health_check
    kit: postgres.health
definitions:
  ModelPriceRequest:
    type: object
    required: [sku, quantity]
    properties:
      sku: {type: string, minLength: 1, maxLength: 64}
      quantity: {type: integer, minimum: 1}
      note: {type: [string, "null"]}
  ModelPriceResponse:
    type: object
    properties:
      lines: {type: array, items: {$ref: '#/definitions/ModelPriceLine'}}
  ModelPriceLine:
    type: object
    properties:
      amount: {type: string, format: decimal}
      currency: {enum: [EUR, USD]}
delivery:
  guarantee: effectively_once
  retry: {in_lane: 3, tiers: [5s, 1m, 10m], jitter: full}
  dlq: {limit: {consecutive: 100, ratio: 0.2, window: 1000}}
rate_limits: [{per: client, limit: 50/second, burst: 100, operation: insert_order}]
resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 512Mi}, replicas: {min: 1, max: 6}}
"""

STATEMENT = """\
-- name: insert_order :one
-- params: order_id, quantity
INSERT INTO orders.orders (order_id, quantity) VALUES ($1, $2) RETURNING order_id, quantity
"""


@pytest.fixture
def order_store(tmp_path: Path) -> ContractFolder:
    """A valid contract with its statement and migration."""
    folder = ContractFolder(tmp_path, "order_store")
    folder.write("statements/insert_order.sql", STATEMENT)
    folder.write("migrations/0001_orders.sql", "CREATE TABLE orders ();\n")
    folder.write("contract.yaml", CONTRACT)
    return folder
