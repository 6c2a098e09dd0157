"""All checks within one contract, in one list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from omnibase_infra.shared.contracts.draft import Draft
from omnibase_infra.shared.contracts.kit_checks import check_dependencies

Check = Callable[[Draft], None]

CHECKS: Final[tuple[Check, ...]] = (check_dependencies,)


def run_checks(draft: Draft) -> None:
    """Run every check; problems are added to the draft's source."""
    for check in CHECKS:
        check(draft)
