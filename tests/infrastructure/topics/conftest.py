"""A small fleet, and a contract with settings of its own for topics."""

from __future__ import annotations

import pytest

from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.testing.sample_fleet import billing, order_store

AUDIT_CONTRACT = """\
name: NodeAuditEffect
version: {major: 2, minor: 1, patch: 0}
node_type: effect
description: Keeps a trace of orders.
event_bus:
  subscribe:
    - {topic: onex.evt.shop.orders.v1, external: true, partitions: 12}
    - onex.cmd.audit.requests.v1
  publish:
    - {topic: onex.evt.audit.results.v1, retention: 3d}
  partitions: 4
  start: latest
capabilities:
  - {name: audit, description: Keep a trace}
dependencies:
  - {name: protocol_event_bus, type: protocol, class_name: ProtocolEventBus}
io_operations:
  - {name: note_order, kit: custom, topic: onex.evt.shop.orders.v1, on: onex.evt.shop.order-placed.v1,
     request: ModelNote, answer: false, ordering: none}
  - {name: find_trace, kit: custom, request: ModelNote, response: ModelNote}
definitions:
  ModelNote:
    type: object
    properties:
      text: {type: string}
delivery:
  guarantee: at_least_once
idempotency: A trace is a set.
limits: {max_record_bytes: 65536}
"""


@pytest.fixture
def fleet() -> list[WorkerSpec]:
    return [order_store(), billing()]


@pytest.fixture
def audit_contract() -> str:
    return AUDIT_CONTRACT
