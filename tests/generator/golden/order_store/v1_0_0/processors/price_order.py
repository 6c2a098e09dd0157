"""Says what an order costs. Yours to write: generated once, never overwritten."""

from __future__ import annotations

from collections.abc import Sequence

from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import BatchContext
from order_store.v1_0_0.models import ModelPriceRequest
from order_store.v1_0_0.port import PriceOrderOutcome


class PriceOrderProcessor:
    """Says what an order costs."""

    async def run(self, requests: Sequence[ModelPriceRequest], _context: BatchContext) -> Sequence[PriceOrderOutcome]:
        """Return an outcome per request, in the same order: the response, or `OperationFailed` with a reason."""
        return [self._outcome(request) for request in requests]

    def _outcome(self, request: ModelPriceRequest) -> PriceOrderOutcome:
        return OperationFailed(code="not-implemented", message="price_order has not been written yet")
