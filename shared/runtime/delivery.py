"""Delivery: outputs are sent until the broker has them; an output is never dropped to keep going."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.ports import OutboundRecord, RecordProducer
from omnibase_infra.shared.resilience.retry_policy import RetryPolicy
from omnibase_infra.shared.runtime.records import Record

# An output, with the record that gave it.
Owned = tuple[Record, OutboundRecord]


class OutputDelivery(Protocol):
    """Where the outputs of records go. When it returns, the records count as finished."""

    async def deliver_owned(self, outputs: Sequence[Owned], markers: Sequence[Owned] = ()) -> None:
        """Deliver outputs, and markers that say that their records have ended: never those without the outputs.

        Raises:
            TopicNotDeclaredError: the contract does not list a topic.
        """
        ...


class Delivery:
    """Sends the outputs of a batch and returns only when all are confirmed.

    A failed send is repeated for the records that were not confirmed. They may be in the log all the same; their
    ids are derived, so consumers drop the repeat. While it repeats, its caller's records stay in flight, which
    is what bounds memory when the brokers are away.
    """

    def __init__(
        self, producer: RecordProducer, policy: RetryPolicy, on_failure: Callable[[DeliveryError], None]
    ) -> None:
        self._producer = producer
        self._policy = policy
        self._on_failure = on_failure

    async def deliver_owned(self, outputs: Sequence[Owned], markers: Sequence[Owned] = ()) -> None:
        """Send outputs until confirmed, and only then the markers; see `OutputDelivery`."""
        if outputs:
            await self.deliver([output for _, output in outputs])
        if markers:
            await self.deliver([marker for _, marker in markers])

    async def deliver(self, records: Sequence[OutboundRecord]) -> None:
        """Send until confirmed. Only cancellation ends it early.

        Raises:
            TopicNotDeclaredError: the contract does not list the topic; nothing was sent.
        """
        attempt = 0
        while records:
            try:
                await self._producer.send(records)
            except DeliveryError as error:
                self._on_failure(error)
                if error.errors:
                    records = [record for index, record in enumerate(records) if index in error.errors]
                attempt += 1
                await asyncio.sleep(self._policy.delay(attempt))
            else:
                return
