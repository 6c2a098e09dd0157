"""The process's producers behind `core.ports.RecordProducer`: logical topics in, the broker's confirmation out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Self
from zlib import crc32

from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.client_log import LogFunction
from omnibase_infra.shared.kafka.outbound_topics import OutboundTopics
from omnibase_infra.shared.kafka.pooled_producer import PURGE_SECONDS, PooledProducer
from omnibase_infra.shared.kafka.producer_config import DEFAULT_OPTIONS, ProducerOptions, producer_config
from omnibase_infra.shared.kafka.producer_counters import ProducerCounters, ProducerHealth
from omnibase_infra.shared.kafka.producer_watch import ProducerWatch
from omnibase_infra.shared.kafka.sasl_login import SaslLogin
from omnibase_infra.shared.kafka.security import GRANT_HINT
from omnibase_infra.shared.kafka.statistics import ClientStatistics
from omnibase_infra.shared.kafka.topic_check import brokers_answer

CLOSE_SECONDS: Final = 10.0
_JOIN_SECONDS: Final = PURGE_SECONDS + 3.0
_REASONS_SHOWN: Final = 3
# What brokers say of a topic that this user may not write.
_UNAUTHORISED: Final = "authorization failed"


class ProducerPool:
    """Implements `core.ports.RecordProducer`. Belongs to one event loop: use it as `async with`.

    Records of one topic always go through the same producer, so that records of one key stay in the order of the
    calls. A full queue makes senders wait and never drops anything. A producer that failed fatally is replaced, and so
    is one that found no way back to brokers that answer others; its senders get a `DeliveryError`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client_id: str,
        log: LogFunction,
        allowed: Collection[str] | None = None,
        contract: str = "",
        options: ProducerOptions = DEFAULT_OPTIONS,
        on_statistics: Callable[[ClientStatistics], None] | None = None,
        login: SaslLogin | None = None,
    ) -> None:
        """Prepare the pool; producers are created by `start` or by the first `send`.

        Args:
            settings: brokers, security and realm of the process.
            client_id: shown in the brokers' logs, quotas and metrics, with the producer's number behind it.
            log: where librdkafka's own lines and errors go, rate-limited.
            allowed: logical topics the contract lists; None lets every topic pass, for clients and tools.
            contract: its path, named in the error about a topic that it does not list.
            options: size, queue bounds, time-outs.
            on_statistics: called with each report, on the producer's own thread.
            login: followed, so that a password may change while it runs; None keeps the one of the settings.

        Raises:
            SettingsError: no broker is set, or the security settings do not fit together.
        """
        if options.size < 1:
            raise ValueError(f"a pool has at least one producer, not {options.size}")
        self._configs = [
            producer_config(settings, client_id=f"{client_id}-{number}", options=options)
            for number in range(options.size)
        ]
        self._topics = OutboundTopics(settings.realm, allowed, contract)
        self._settings = settings
        self._login = login
        self._watch = ProducerWatch(self._brokers_answer, cut_off_seconds=options.cut_off_seconds)
        self._watching: asyncio.Task[None] | None = None
        self._log = log
        self._on_statistics = on_statistics
        self._counters = ProducerCounters()
        self._producers: list[PooledProducer] = []
        self._retired: list[PooledProducer] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Create the producers on the running loop; no connection is awaited. Harmless when repeated.

        Raises:
            SettingsError: the client library refuses a property.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("a ProducerPool belongs to the event loop it was started on")
        while len(self._producers) < len(self._configs):
            self._producers.append(self._new_producer(len(self._producers)))
        if self._watching is None or self._watching.done():
            self._watching = loop.create_task(self._watch.run(lambda: self._producers), name="producer-watch")

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        """Return when the broker has confirmed every record; see `core.ports.RecordProducer`.

        Waits for room while the queue is full. Cancelling the wait recalls nothing that was handed over, and hands
        over no more.

        Raises:
            TopicNotDeclaredError: a topic the contract does not list; nothing was sent.
            InvalidNameError: a topic is not a logical name; nothing was sent.
            DeliveryError: some records were not confirmed, by index; they may or may not be in the log.
        """
        if not records:
            return
        topics = self._topics.of(records)
        if self._closed:
            reasons = dict.fromkeys(range(len(records)), "not sent, the producer pool is closed")
            raise _delivery_error(reasons, records)
        self.start()
        if len(self._producers) == 1:
            failures = await self._producer(0).send(records, topics)
        else:
            failures = await self._send_by_producer(records, topics)
        if failures:
            raise _delivery_error(failures, records)

    def health(self) -> ProducerHealth:
        """Return the state of the pool; cheap, never waits."""
        producers = self._producers
        known = [item.connected_brokers for item in producers if item.connected_brokers is not None]
        return self._counters.health(
            queued=sum(item.queued for item in producers),
            capacity=sum(item.capacity for item in producers),
            waiting_sends=sum(item.waiting for item in producers),
            connected_brokers=max(known, default=None),
        )

    async def flush(self, timeout_seconds: float) -> int:
        """Wait until everything handed over is confirmed, or the time is up; return the records that are not."""
        await asyncio.gather(*(producer.drain(timeout_seconds) for producer in self._producers))
        return sum(producer.queued for producer in self._producers)

    async def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Flush for at most so long, give up the rest, and end the threads. Harmless when repeated.

        Senders that still wait then get a `DeliveryError`. Takes at most five seconds more than the time-out.
        """
        self._closed = True
        try:
            await self.flush(timeout_seconds)
        finally:
            if self._watching is not None:
                self._watching.cancel()
            producers = [*self._producers, *self._retired]
            for producer in producers:
                producer.stop()
            await asyncio.gather(*(producer.join(_JOIN_SECONDS) for producer in producers))

    def _producer(self, number: int) -> PooledProducer:
        """Return a producer that works, replacing one that failed fatally."""
        producer = self._producers[number]
        if producer.fatal_error is not None:
            self._retired = [item for item in (*self._retired, producer) if not item.has_ended]
            producer = self._producers[number] = self._new_producer(number)
        return producer

    def _new_producer(self, number: int) -> PooledProducer:
        return PooledProducer(
            self._configs[number] | (self._login.properties() if self._login else {}),
            log=self._log,
            counters=self._counters,
            on_statistics=self._on_statistics,
            login=self._login,
        )

    async def _brokers_answer(self) -> bool:
        return await brokers_answer(self._login.settings if self._login else self._settings, log=self._log)

    async def _send_by_producer(self, records: Sequence[OutboundRecord], topics: Sequence[str]) -> dict[int, str]:
        """Send each record through its topic's producer, all at once; return the failures by index."""
        shares: dict[int, list[int]] = {}
        for index, topic in enumerate(topics):
            shares.setdefault(crc32(topic.encode()) % len(self._producers), []).append(index)
        results = await asyncio.gather(
            *(
                self._producer(number).send([records[item] for item in share], [topics[item] for item in share])
                for number, share in shares.items()
            )
        )
        return {
            share[position]: reason
            for share, failures in zip(shares.values(), results, strict=True)
            for position, reason in failures.items()
        }


def _delivery_error(failures: Mapping[int, str], records: Sequence[OutboundRecord]) -> DeliveryError:
    ordered = dict(sorted(failures.items()))
    reasons = list(dict.fromkeys(f"{records[index].topic}: {reason}" for index, reason in ordered.items()))
    shown = "; ".join(reasons[:_REASONS_SHOWN]) + ("; …" if len(reasons) > _REASONS_SHOWN else "")
    return DeliveryError(
        f"{len(failures)} of {len(records)} records were not confirmed: {shown}",
        errors=ordered,
        hint=GRANT_HINT if any(_UNAUTHORISED in reason for reason in reasons) else "",
    )
