"""A consumer of the simulated cluster with the part of `confluent_kafka.Consumer` that the runtime uses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from omnibase_infra.shared.testing.simulated_kafka import Commit, Place, SimulatedCoordinator, StoredRecord
from omnibase_infra.shared.testing.virtual_loop import ProcessKilled

_AT_ONCE: Final = 4
# Chance that a partition has nothing fetched yet though there are records.
_NOT_FETCHED: Final = 0.15
_REJOIN_SECONDS: Final = 0.3


class SimulatedMessage:
    """A consumed record, or an error in place of one."""

    __slots__ = ("_error", "_place", "_record")

    def __init__(self, place: Place, record: StoredRecord | None, error: KafkaError | None = None) -> None:
        self._place, self._record, self._error = place, record, error

    def topic(self) -> str:
        """Return the physical topic."""
        return self._place[0]

    def partition(self) -> int:
        """Return the partition."""
        return self._place[1]

    def offset(self) -> int | None:
        """Return the offset."""
        return None if self._record is None else self._record.offset

    def timestamp(self) -> tuple[int, int]:
        """Return type and milliseconds of the time stamp."""
        return 1, 0 if self._record is None else self._record.timestamp_ms

    def key(self) -> bytes | None:
        """Return the key."""
        return None if self._record is None else self._record.key

    def value(self) -> bytes | None:
        """Return the value."""
        return None if self._record is None else self._record.value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        """Return the headers, None when there are none."""
        return None if self._record is None or not self._record.headers else list(self._record.headers)

    def error(self) -> KafkaError | None:
        """Return the error this stands for."""
        return self._error


class SimulatedConsumer:
    """One member. Everything happens in `poll` and `consume`, as in the client; nothing waits.

    Attributes:
        news: callbacks the coordinator has for it.
        fenced: its session ended; what it commits is refused.
        cut_off: it does not hear the coordinator, so a lost assignment goes on being worked on.
        killed: every call unwinds the caller.
        on_commit: told of asynchronous commits, in a poll.
        commit_failures: chance that a commit fails; half of those are applied all the same.
    """

    def __init__(
        self,
        coordinator: SimulatedCoordinator,
        name: str,
        *,
        wake: Callable[[], None],
        on_commit: Callable[..., None] | None = None,
        partition_eof: bool = False,
    ) -> None:
        self.name = name
        self.fenced = False
        self.cut_off = False
        self.killed = False
        self.closed = False
        self.news: deque[tuple[str, list[Place]]] = deque()
        self.wake = wake
        self.on_commit = on_commit
        self.commit_failures = 0.0
        self.positions: dict[Place, int] = {}
        self.paused: set[Place] = set()
        self._coordinator = coordinator
        self._cluster = coordinator.cluster
        self._chance = coordinator.cluster.scheduler.random
        self._partition_eof = partition_eof
        self._ended: dict[Place, int] = {}
        self._group_places: set[Place] = set()
        self._callbacks: dict[str, Callable[..., None]] = {}
        self._commits: deque[tuple[dict[Place, Commit], list[TopicPartition]]] = deque()
        self._answers: deque[Callable[[], None]] = deque()

    # -- membership -------------------------------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str], **callbacks: Callable[..., None]) -> None:
        """Join the group."""
        self._alive()
        assert set(topics) == set(self._coordinator.topics)
        self._callbacks = callbacks
        self._coordinator.join(self)

    def _hear(self) -> bool:
        """Run one callback of the coordinator if there is one and no other member is in one."""
        coordinator = self._coordinator
        if not self.news or self.cut_off or self._cluster.away or coordinator.busy is not None:
            return False
        what, places = self.news.popleft()
        coordinator.busy = self
        try:
            self._tell(what, places)
        finally:
            coordinator.busy = None
        return True

    def _tell(self, what: str, places: list[Place]) -> None:
        if what == "lost":
            if self._group_places:
                self._call("on_lost", sorted(self._group_places))
            # It joins again by itself, in the background; until then its commits are refused.
            self._cluster.loop.call_later(self._chance.uniform(0.0, _REJOIN_SECONDS), self._join_again)
        elif what == "revoke":
            self._call("on_revoke", places)
            if not self.fenced:  # expelled while it drained: they are another's already
                self._coordinator.released(self, places)
        else:
            self._group_places |= set(places)
            self._call("on_assign", places)

    def _join_again(self) -> None:
        if not self.killed and not self.closed:
            self._coordinator.join(self)

    def _call(self, callback: str, places: Sequence[Place]) -> None:
        self._callbacks[callback](self, [TopicPartition(*place) for place in places])
        self._alive()
        if callback != "on_assign":
            self._group_places -= set(places)

    def close(self) -> None:
        """Give everything back and leave, as the client does."""
        self._alive()
        if self.closed:
            return
        if self.fenced and self._group_places:
            self._call("on_lost", sorted(self._group_places))
        elif self._group_places:
            self._call("on_revoke", sorted(self._group_places))
        self._send_commits()
        self.closed = True
        self.positions.clear()
        if not self.fenced:
            self._coordinator.leave(self)

    # -- records ----------------------------------------------------------------------------------------------------

    def has_something(self) -> bool:
        """Return whether a poll would do or return something."""
        if self._answers or self._commits or (self.news and not self.cut_off):
            return True
        return any(self._available(place) for place in self.positions)

    def poll(self, timeout: float = 0.0) -> SimulatedMessage | None:  # noqa: ARG002 - time passes outside
        """Run callbacks, or return a record."""
        self._alive()
        if self._commits:
            self._send_commits()
        if self._answers:
            self._answers.popleft()()
        if self._hear():
            return None
        found = self._fetch(1)
        return found[0] if found else None

    def consume(self, number: int, timeout: float) -> list[SimulatedMessage]:  # noqa: ARG002 - likewise
        """Return some more records."""
        self._alive()
        return self._fetch(min(number, self._chance.randint(0, 12)))

    def _available(self, place: Place) -> bool:
        if place in self.paused:
            return False
        log, position = self._cluster.logs[place], self.positions[place]
        return position < log.end or (self._partition_eof and self._ended.get(place) != log.end)

    def _fetch(self, number: int) -> list[SimulatedMessage]:
        if self._cluster.away:
            return []
        messages: list[SimulatedMessage] = []
        chance = self._chance
        places = [place for place in self.positions if self._available(place) and chance.random() >= _NOT_FETCHED]
        while places and len(messages) < number:
            place = chance.choice(places)
            messages += self._from(place, min(number - len(messages), chance.randint(1, _AT_ONCE)))
            places.remove(place)
        return messages

    def _from(self, place: Place, number: int) -> list[SimulatedMessage]:
        log, position = self._cluster.logs[place], self.positions[place]
        first = log.index(position)
        records = log.records[first : first + number]
        if records:
            self.positions[place] = records[-1].offset + 1
            return [SimulatedMessage(place, record) for record in records]
        self.positions[place] = log.end
        if self._partition_eof and self._ended.get(place) != log.end:
            self._ended[place] = log.end
            return [SimulatedMessage(place, None, KafkaError(KafkaError._PARTITION_EOF))]
        return []

    # -- assignment -------------------------------------------------------------------------------------------------

    def incremental_assign(self, places: Sequence[TopicPartition]) -> None:
        """Read more partitions, of the group or others; a pause from an earlier time still holds."""
        self._alive()
        for one in places:
            place = (one.topic, one.partition)
            if place in self.positions:
                raise KafkaException(KafkaError(KafkaError._CONFLICT))
            self._seek(one)

    def incremental_unassign(self, places: Sequence[TopicPartition]) -> None:
        """Read them no more."""
        self._alive()
        for one in places:
            if self.positions.pop((one.topic, one.partition), None) is None:
                raise KafkaException(KafkaError(KafkaError._INVALID_ARG))

    def seek(self, one: TopicPartition) -> None:
        """Read a partition from elsewhere; now and then its fetcher is not ready for that."""
        self._alive()
        self._must_read([one])
        if self._chance.random() < _NOT_FETCHED:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self._seek(one)

    def _seek(self, one: TopicPartition) -> None:
        place = (one.topic, one.partition)
        log = self._cluster.logs[place]
        if one.offset == OFFSET_BEGINNING:
            offset = 0
        elif one.offset == OFFSET_END:
            offset = log.end
        else:
            assert one.offset >= 0, f"{place} is started from {one.offset}: this client never resets"
            offset = one.offset
        self.positions[place] = offset
        self._ended.pop(place, None)

    def pause(self, places: Sequence[TopicPartition]) -> None:
        """Return no records of them."""
        self._alive()
        self._must_read(places)
        self.paused |= {(one.topic, one.partition) for one in places}

    def resume(self, places: Sequence[TopicPartition]) -> None:
        """Return their records again."""
        self._alive()
        self._must_read(places)
        self.paused -= {(one.topic, one.partition) for one in places}

    def position(self, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Return where each partition is read next."""
        return [TopicPartition(one.topic, one.partition, self.positions[one.topic, one.partition]) for one in places]

    def assignment(self) -> list[TopicPartition]:
        """Return what is read."""
        return [TopicPartition(*place) for place in self.positions]

    def _must_read(self, places: Sequence[TopicPartition]) -> None:
        for one in places:
            if (one.topic, one.partition) not in self.positions:
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))

    # -- offsets ----------------------------------------------------------------------------------------------------

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> list[TopicPartition] | None:
        """Commit now, or at the next poll; commits of one member arrive in order."""
        self._alive()
        wanted = {(one.topic, one.partition): Commit(one.offset, one.metadata or "") for one in offsets}
        if asynchronous:
            self._commits.append((wanted, list(offsets)))
            return None
        self._send_commits()
        if (error := self._commit_now(wanted)) is not None:
            raise KafkaException(error)
        return list(offsets)

    def _send_commits(self) -> None:
        while self._commits:
            wanted, offsets = self._commits.popleft()
            error = self._commit_now(wanted)
            if self.on_commit is not None:
                self._answers.append(lambda error=error, offsets=offsets: self.on_commit(error, offsets))  # type: ignore[misc]

    def _commit_now(self, wanted: Mapping[Place, Commit]) -> KafkaError | None:
        if self.fenced:
            return KafkaError(KafkaError.UNKNOWN_MEMBER_ID)
        if self._cluster.away:
            return KafkaError(KafkaError._TRANSPORT)
        failure = self._chance.random()
        if failure < self.commit_failures / 2:
            return KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
        self._cluster.commit(self._coordinator.group, wanted, self.name)
        return KafkaError(KafkaError._TIMED_OUT) if failure < self.commit_failures else None

    def committed(self, places: Sequence[TopicPartition], timeout: float = 0.0) -> list[TopicPartition]:  # noqa: ARG002 - likewise
        """Return committed offsets with their metadata."""
        self._alive()
        if self._cluster.away:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        committed = self._cluster.committed.get(self._coordinator.group, {})
        answer = []
        for one in places:
            commit = committed.get((one.topic, one.partition))
            if commit is None:
                answer.append(TopicPartition(one.topic, one.partition, OFFSET_INVALID))
            elif commit.metadata:
                answer.append(TopicPartition(one.topic, one.partition, commit.offset, commit.metadata))
            else:
                answer.append(TopicPartition(one.topic, one.partition, commit.offset))
        return answer

    def get_watermark_offsets(
        self,
        one: TopicPartition,
        timeout: float = 0.0,  # noqa: ARG002 - likewise
        cached: bool = False,  # noqa: ARG002 - the client's
    ) -> tuple[int, int]:
        """Return beginning and end."""
        self._alive()
        return 0, self._cluster.logs[one.topic, one.partition].end

    def offsets_for_times(self, places: Sequence[TopicPartition], timeout: float = 0.0) -> list[TopicPartition]:  # noqa: ARG002 - likewise
        """Return the first offsets at or after the times given in place of offsets; of `OFFSET_END` the end."""
        self._alive()
        if self._cluster.away:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        found = []
        for one in places:
            if one.offset == OFFSET_END:
                found.append(TopicPartition(one.topic, one.partition, self._cluster.logs[one.topic, one.partition].end))
                continue
            records = self._cluster.logs[one.topic, one.partition].records
            later = (record.offset for record in records if record.timestamp_ms >= one.offset)
            found.append(TopicPartition(one.topic, one.partition, next(later, OFFSET_END)))
        return found

    def list_topics(self, topic: str | None = None, timeout: float = 0.0) -> Any:  # noqa: ARG002 - likewise
        """Return metadata of a topic, or of all."""
        self._alive()
        names = self._cluster.counts if topic is None else (topic,)
        return _Metadata({name: _Topic(self._cluster.counts.get(name)) for name in names})

    def _alive(self) -> None:
        if self.killed:
            raise ProcessKilled


class _Topic:
    def __init__(self, partitions: int | None) -> None:
        self.partitions = dict.fromkeys(range(partitions or 0))
        self.error = None if partitions is not None else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)


class _Metadata:
    def __init__(self, topics: dict[str, _Topic]) -> None:
        self.topics = topics
