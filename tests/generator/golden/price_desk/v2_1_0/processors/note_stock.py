"""Notes what the stock ledger stored. Yours to write: generated once, never overwritten."""

from __future__ import annotations

from collections.abc import Sequence

from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import BatchContext
from price_desk.v2_1_0.models import ModelStockNote
from price_desk.v2_1_0.port import NoteStockOutcome


class NoteStockProcessor:
    """Notes what the stock ledger stored."""

    async def run(self, requests: Sequence[ModelStockNote], _context: BatchContext) -> Sequence[NoteStockOutcome]:
        """Return an outcome per request, in the same order: the response, or `OperationFailed` with a reason."""
        return [self._outcome(request) for request in requests]

    def _outcome(self, request: ModelStockNote) -> NoteStockOutcome:
        return OperationFailed(code="not-implemented", message="note_stock has not been written yet")
