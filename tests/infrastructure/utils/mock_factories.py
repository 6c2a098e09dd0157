"""The mock factories, at the place that the plan names; they ship with the product."""

from __future__ import annotations

from omnibase_infra.shared.testing.mock_factories import (
    create_mock_circuit_breaker,
    create_mock_kafka_producer,
    create_mock_postgres_pool,
    create_mock_tracer,
)

__all__ = [
    "create_mock_circuit_breaker",
    "create_mock_kafka_producer",
    "create_mock_postgres_pool",
    "create_mock_tracer",
]
