"""Prices a basket. Yours to write: generated once, never overwritten."""

from __future__ import annotations

from collections.abc import Sequence

from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import BatchContext
from price_desk.v2_1_0.models import ModelBasket
from price_desk.v2_1_0.port import PriceBasketOutcome


class PriceBasketProcessor:
    """Prices a basket."""

    async def run(self, requests: Sequence[ModelBasket], _context: BatchContext) -> Sequence[PriceBasketOutcome]:
        """Return an outcome per request, in the same order: the response, or `OperationFailed` with a reason."""
        return [self._outcome(request) for request in requests]

    def _outcome(self, request: ModelBasket) -> PriceBasketOutcome:
        return OperationFailed(code="not-implemented", message="price_basket has not been written yet")
