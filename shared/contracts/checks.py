"""All checks within one contract, in one list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from omnibase_infra.shared.contracts.delivery_checks import (
    check_batches,
    check_capabilities,
    check_guarantee,
    check_journals,
    check_rate_limits,
    check_resources,
    check_retry,
)
from omnibase_infra.shared.contracts.draft import Draft
from omnibase_infra.shared.contracts.kit_checks import check_dependencies
from omnibase_infra.shared.contracts.payload_schema import check_definitions
from omnibase_infra.shared.contracts.topic_checks import (
    check_control_topic,
    check_identity,
    check_operations,
    check_topics,
)

Check = Callable[[Draft], None]

CHECKS: Final[tuple[Check, ...]] = (
    check_identity,
    check_topics,
    check_operations,
    check_control_topic,
    check_dependencies,
    check_guarantee,
    check_journals,
    check_retry,
    check_batches,
    check_rate_limits,
    check_capabilities,
    check_resources,
    check_definitions,
)


def run_checks(draft: Draft) -> None:
    """Run every check; problems are added to the draft's source."""
    for check in CHECKS:
        check(draft)
