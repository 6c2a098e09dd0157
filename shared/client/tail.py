"""Follow topics record by record: positions fixed when it opens, bounded memory, one hand-over per batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from logging import WARNING
from typing import Final, Literal, Self, TypeAlias

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from omnibase_infra.shared.client.partitions import end_positions, ends_reading, partition_numbers, reading_failed
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import RecordRefusedError
from omnibase_infra.shared.core.limits import DecodeLimits
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.kafka.client_log import LogFunction

TailStream: TypeAlias = Literal["answers", "commands", "dead-letters"]

POLL_SECONDS: Final = 0.2
BATCH_RECORDS: Final = 500


class TailedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record of a followed topic.

    Attributes:
        topic: logical name.
        timestamp_ms: Unix milliseconds of the record; negative when it has none.
        key / value / headers: as they are in the log.
        envelope: the value decoded; None when it is no envelope, as in some dead letters.
        problem: why there is no envelope; empty otherwise.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    envelope: Envelope | None = None
    problem: str = ""


class TailFilter(msgspec.Struct, frozen=True):
    """Which records are wanted. Records without an envelope pass only an empty filter.

    Attributes:
        types: CloudEvents types, whole or their event part (`execute-statement-failed`), with `*` and `?`; empty: all.
        correlationid: of the conversation; None: all.
    """

    types: tuple[str, ...] = ()
    correlationid: str | None = None

    def passes(self, envelope: Envelope | None) -> bool:
        """Return whether a record is wanted."""
        if not self.types and self.correlationid is None:
            return True
        if envelope is None or self.correlationid not in (None, envelope.conversation):
            return False
        return not self.types or any(_fits(envelope.type, wanted) for wanted in self.types)


def _fits(event_type: str, wanted: str) -> bool:
    if "." in wanted:
        return fnmatchcase(event_type, wanted)
    segments = event_type.split(".")
    return len(segments) == 5 and fnmatchcase(segments[3], wanted)


class Tail:
    """Yields records of topics: `async with client.tail(...) as records: async for record in records: ...`.

    Records of a partition come in order, partitions interleave. Belongs to one task at a time. What is not asked for
    is not read ahead beyond the consumer's bounded queue.
    """

    def __init__(  # noqa: PLR0913 - made by the client only
        self,
        make_consumer: Callable[[], Consumer],
        topics: Collection[TopicName],
        realm: Realm,
        *,
        wanted: TailFilter,
        limits: DecodeLimits,
        log: LogFunction,
        prepare: Callable[[Sequence[str]], Awaitable[None]],
        from_beginning: bool = False,
        until_end: bool = False,
    ) -> None:
        self._make_consumer = make_consumer
        self._topics = {topic.physical(realm): str(topic) for topic in topics}
        self._wanted = wanted
        self._limits = limits
        self._log = log
        self._prepare = prepare
        self._from_beginning = from_beginning
        self._until_end = until_end
        # All calls of the consumer, one after the other: closing waits for the poll under way.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-tail")
        self._consumer: Consumer | None = None
        self._unfinished: dict[tuple[str, int], int] = {}
        self._ready: deque[TailedRecord] = deque()
        self._fetching: asyncio.Future[list[TailedRecord]] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    @property
    def topics(self) -> list[str]:
        """Return the physical names of the topics."""
        return list(self._topics)

    @property
    def closed(self) -> bool:
        """Return whether it was closed."""
        return self._closed

    async def open(self) -> None:
        """Fix the positions: records written after it returns are seen. Iterating opens by itself.

        Raises:
            TopicMissingError: a topic does not exist.
            DependencyUnavailableError: no broker answered in time.
        """
        if self._consumer is None and not self._closed:
            await self._prepare(list(self._topics))
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def __anext__(self) -> TailedRecord:
        """Return the next wanted record; ends at the end where that was asked for. Cancelling it loses nothing."""
        await self.open()
        while not self._ready:
            if self._closed or (self._until_end and not self._unfinished and self._fetching is None):
                raise StopAsyncIteration
            if self._fetching is None:
                self._fetching = asyncio.get_running_loop().run_in_executor(self._thread, self._fetch)
            try:
                # Shielded and kept: a fetch that is under way has taken its records from the consumer.
                records = await asyncio.shield(self._fetching)
            except Exception:
                self._fetching = None
                raise
            self._fetching = None
            self._ready.extend(records)
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Close the consumer; takes at most about the poll under way. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        if self._fetching is not None:
            # Nobody asks for it any more; an error in it is not to be reported as overlooked.
            self._fetching.add_done_callback(lambda fetched: fetched.cancelled() or fetched.exception())
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        finally:
            self._thread.shutdown(wait=False)

    # From here on: the thread.

    def _open(self) -> None:
        if self._consumer is not None:
            return
        consumer = self._make_consumer()
        try:
            starts: list[TopicPartition] = []
            for topic in self._topics:
                ends = end_positions(consumer, topic, partition_numbers(consumer, topic))
                if self._until_end:
                    self._unfinished |= {
                        (topic, one.partition): one.offset for one in ends if one.offset > 0 and self._from_beginning
                    }
                starts += [
                    TopicPartition(topic, one.partition, OFFSET_BEGINNING if self._from_beginning else one.offset)
                    for one in ends
                ]
            consumer.assign(starts)
        except BaseException:
            consumer.close()
            raise
        self._consumer = consumer

    def _fetch(self) -> list[TailedRecord]:
        assert self._consumer is not None
        first = self._consumer.poll(POLL_SECONDS)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(BATCH_RECORDS - 1, 0)]
        records = [self._record(message) for message in messages if self._is_record(message)]
        return [record for record in records if self._wanted.passes(record.envelope)]

    def _is_record(self, message: Message) -> bool:
        place = (message.topic() or "", message.partition() or 0)
        error = message.error()
        if error is None:
            end = self._unfinished.get(place)
            if end is not None and (message.offset() or 0) + 1 >= end:
                del self._unfinished[place]
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self._unfinished.pop(place, None)
        elif ends_reading(error):
            raise reading_failed(message.topic(), error)
        else:
            self._log(WARNING, "kafka_tail_error", topic=message.topic(), error=error.str())
        return False

    def _record(self, message: Message) -> TailedRecord:
        value, headers = message.value(), message.headers() or []
        envelope, problem = None, ""
        try:
            envelope = envelopes.decode(value, headers, self._limits)  # type: ignore[arg-type]
        except RecordRefusedError as error:
            problem = error.message
        return TailedRecord(
            topic=self._topics[message.topic() or ""],
            partition=message.partition() or 0,
            offset=message.offset() or 0,
            timestamp_ms=message.timestamp()[1],
            key=message.key(),
            value=value,
            headers=tuple(headers),  # type: ignore[arg-type]
            envelope=envelope,
            problem=problem,
        )

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
