"""What a process's producers have done so far, kept apart from them since producers are replaced."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec


class ProducerHealth(msgspec.Struct, frozen=True):
    """The producers of a process at one moment, all together.

    Attributes:
        queued / capacity: records in the clients' queues, and how many fit.
        waiting_sends: senders that wait for room in a full queue.
        connected_brokers: usable connections as of the last statistics; None before the first.
        confirmed / failed: records since the start.
        errors: of deliveries and of the connection since the start; one that many records share counts once.
        last_error / last_error_age_seconds: of deliveries and of the connection; empty and None when there was none.
        last_confirmed_age_seconds: since the broker last confirmed a batch; None when it never did.
        confirmed_by_topic / failed_by_topic: the same records by physical topic.
    """

    queued: int
    capacity: int
    waiting_sends: int
    connected_brokers: int | None
    confirmed: int
    failed: int
    errors: int
    last_error: str
    last_error_age_seconds: float | None
    last_confirmed_age_seconds: float | None
    confirmed_by_topic: Mapping[str, int]
    failed_by_topic: Mapping[str, int]


class ProducerCounters:
    """Totals of a process. `note_error` may be called from any thread, `count` from one."""

    def __init__(self) -> None:
        self.confirmed = 0
        self.failed = 0
        self._errors = 0
        self._confirmed_by_topic: Counter[str] = Counter()
        self._failed_by_topic: Counter[str] = Counter()
        self._last_confirmed: float | None = None
        self._last_error: tuple[str, float | None] = ("", None)

    def count(self, topics: Sequence[str], failures: Mapping[int, str]) -> None:
        """Count a batch of records, by the topic of each, of which these failed."""
        if failures:
            self.failed += len(failures)
            self._failed_by_topic.update(topics[index] for index in failures)
            self.note_error(next(iter(failures.values())))
            topics = [topic for index, topic in enumerate(topics) if index not in failures]
        if topics:
            self.confirmed += len(topics)
            self._confirmed_by_topic.update(topics)
            self._last_confirmed = time.monotonic()

    def note_error(self, text: str) -> None:
        """Remember an error of a delivery or of the connection."""
        self._errors += 1
        self._last_error = (text, time.monotonic())

    def health(
        self, *, queued: int, capacity: int, waiting_sends: int, connected_brokers: int | None
    ) -> ProducerHealth:
        """Return the totals beside what the producers say of now."""
        now = time.monotonic()
        text, when = self._last_error
        return ProducerHealth(
            queued=queued,
            capacity=capacity,
            waiting_sends=waiting_sends,
            connected_brokers=connected_brokers,
            confirmed=self.confirmed,
            failed=self.failed,
            errors=self._errors,
            last_error=text,
            last_error_age_seconds=None if when is None else now - when,
            last_confirmed_age_seconds=None if self._last_confirmed is None else now - self._last_confirmed,
            confirmed_by_topic=dict(self._confirmed_by_topic),
            failed_by_topic=dict(self._failed_by_topic),
        )
