"""All scenarios, family by family."""

from __future__ import annotations

from typing import Final

from tests.faults import bad_records, crashes, databases, handlers, membership, outages, positions, transactions
from tests.faults.scenario import Scenario

SCENARIOS: Final[tuple[Scenario, ...]] = (
    *crashes.SCENARIOS,
    *membership.SCENARIOS,
    *outages.SCENARIOS,
    *databases.SCENARIOS,
    *handlers.SCENARIOS,
    *bad_records.SCENARIOS,
    *positions.SCENARIOS,
    *transactions.SCENARIOS,
)
