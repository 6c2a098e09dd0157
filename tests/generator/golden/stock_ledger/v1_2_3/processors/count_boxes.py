"""Counts boxes by hand. Yours to write: generated once, never overwritten."""

from __future__ import annotations

from collections.abc import Sequence

from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import BatchContext
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from stock_ledger.v1_2_3.models import ModelCountBoxes
from stock_ledger.v1_2_3.port import CountBoxesOutcome


class CountBoxesProcessor:
    """Counts boxes by hand."""

    def __init__(self, postgres_pool: PostgresConnectionPool) -> None:
        self._postgres_pool = postgres_pool

    async def run(self, requests: Sequence[ModelCountBoxes], _context: BatchContext) -> Sequence[CountBoxesOutcome]:
        """Return an outcome per request, in the same order: the response, or `OperationFailed` with a reason."""
        return [self._outcome(request) for request in requests]

    def _outcome(self, request: ModelCountBoxes) -> CountBoxesOutcome:
        return OperationFailed(code="not-implemented", message="count_boxes has not been written yet")
