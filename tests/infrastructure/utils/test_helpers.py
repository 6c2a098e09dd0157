"""The assertions and waits, at the place that the plan names; they ship with the product. There is no test in here."""

from __future__ import annotations

from omnibase_infra.shared.testing.assertions import (
    assert_event_published,
    assert_health_check_valid,
    assert_metrics_collected,
)
from omnibase_infra.shared.testing.external_service import mock_external_service
from omnibase_infra.shared.testing.waiting import wait_for_condition

__all__ = [
    "assert_event_published",
    "assert_health_check_valid",
    "assert_metrics_collected",
    "mock_external_service",
    "wait_for_condition",
]
