"""One batch on its way to the broker: counts confirmations in the poll thread, tells the event loop once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import KafkaError, Message

from omnibase_infra.shared.core.ports import OutboundRecord


class DeliveryBatch:
    """The delivery callback shared by all records of a batch.

    Calling it is the poll thread's; everything else is the event loop's. A callback per record would say which
    record it belongs to, but costs more than the rest of a produce call: failed records are found by their content.
    """

    __slots__ = ("_expected", "_failed", "_hand_over", "_refused", "_reported", "confirmation", "records", "topics")

    def __init__(
        self,
        records: Sequence[OutboundRecord],
        topics: Sequence[str],
        hand_over: Callable[[DeliveryBatch], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Prepare a batch; nothing is sent by it.

        Args:
            records: in the order they are to be produced.
            topics: physical name for each record.
            hand_over: called by the poll thread, once, when the last record was reported.
            loop: the running event loop.
        """
        self.records = records
        self.topics = topics
        # Reasons by index, empty when all is confirmed. A result and never an exception: nobody may be left to see it.
        self.confirmation: asyncio.Future[Mapping[int, str]] = loop.create_future()
        self._hand_over = hand_over
        self._refused: dict[int, str] = {}
        self._failed: list[tuple[KafkaError, Message]] = []
        self._reported = 0
        self._expected = -1

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """Take the delivery report of one record, in the poll thread."""
        if error is not None:
            self._failed.append((error, message))
        self._reported += 1
        # `seal` writes one and reads the other of these two, in the opposite order: at least one side sees the end.
        if self._reported == self._expected:
            self._hand_over(self)

    def refuse(self, index: int, reason: str) -> None:
        """Note that the client did not accept a record; it will not be reported."""
        self._refused[index] = reason

    def seal(self) -> None:
        """Say that every record was either produced or refused."""
        self._expected = len(self.records) - len(self._refused)
        if self._reported == self._expected:
            self.settle()

    @property
    def outstanding(self) -> int:
        """Return the number of records without a report."""
        return len(self.records) - len(self._refused) - self._reported

    def settle(self) -> None:
        """Complete the confirmation when all is reported; harmless when repeated, or when nobody waits any more."""
        if not self.confirmation.done():
            self.confirmation.set_result(self._refused | self._failures() if self._failed else self._refused)

    def give_up(self, reason: str) -> int:
        """Complete the confirmation with the records that have no report as failed; return how many."""
        if self.confirmation.done():
            return 0
        # Which records were confirmed is not known one by one: the batch as a whole counts as unconfirmed.
        unconfirmed = dict.fromkeys(range(len(self.records)), reason)
        self.confirmation.set_result(unconfirmed | self._failures() | self._refused)
        return self.outstanding

    def _failures(self) -> dict[int, str]:
        """Return the reasons by index, matching reports and records by topic, key and value.

        Records equal in all of these stand for one another; reports of one partition come in the order of sending.
        """
        waiting: defaultdict[tuple[str, bytes, bytes], list[int]] = defaultdict(list)
        for index, (topic, record) in enumerate(zip(self.topics, self.records, strict=True)):
            if index not in self._refused:
                waiting[topic, record.key or b"", record.value or b""].append(index)
        reasons: dict[int, str] = {}
        for error, message in self._failed:
            candidates = waiting[message.topic() or "", message.key() or b"", message.value() or b""]
            if not candidates:
                # Not to be told from here which one it was, so none of the batch may count as confirmed.
                return dict.fromkeys(range(len(self.records)), error.str())
            index = next(
                (item for item in candidates if self.records[item].partition in (None, message.partition())),
                candidates[0],
            )
            candidates.remove(index)
            reasons[index] = error.str()
        return reasons
