"""Every topic of the fleet, derived from what its workers declare. Pure; the order is always the same.

A topic belongs to the worker that its producer segment names. Topics of no worker of the fleet are external: they are
created when they are missing, so that a worker can start, and otherwise left to their owner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from omnibase_infra.shared.core.errors import TopicNotDeclaredError
from omnibase_infra.shared.core.naming import (
    Realm,
    TopicKind,
    TopicName,
    dead_letter_actions_topic,
    dead_letter_topic,
    resolutions_topic,
    retry_topic,
)
from omnibase_infra.topics.declarations import Declaration, MessageType

DAY: Final = 86_400.0
# Seconds by kind; None is compacted for ever.
RETENTION: Final[Mapping[TopicKind, float | None]] = {
    "cmd": 7 * DAY,
    "evt": 30 * DAY,
    "intent": 1 * DAY,
    "snapshot": None,
    "changelog": None,
    "retry": 7 * DAY,
    "dlq": 14 * DAY,
}
FOR_EVER: Final = "-1"
# Room for key, headers and batch framing beside a value of the largest size, and again for transport headers.
HEADROOM_BYTES: Final = 64 * 1024
# One partition keeps dead letters in the order in which they were given up on.
DEAD_LETTER_PARTITIONS: Final = 1
SAFE_REPLICATION: Final = 3


class Reader(msgspec.Struct, frozen=True, order=True):
    """The consumer group of a worker's major version."""

    worker: str
    major: int

    def group(self, realm: Realm) -> str:
        """Return the name of the consumer group."""
        return realm.group(self.worker, self.major)


class TopicEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One topic of the fleet.

    Attributes:
        owner: the worker its producer segment names.
        external: the fleet has no such worker.
        keyed: some reader relies on the order of records of one key, so partitions must not move keys.
        config: broker settings by their Kafka names.
        source: of a retry topic, the topic whose records it delivers again.
        readers / writers: who consumes it, and which workers of the fleet produce to it.
        late_readers: those of the readers that begin at the end when they have never existed.
        messages: types of messages that workers of the fleet handle or send on it.
    """

    topic: TopicName
    owner: str
    external: bool
    keyed: bool
    partitions: int
    config: Mapping[str, str]
    source: TopicName | None = None
    readers: tuple[Reader, ...] = ()
    late_readers: tuple[Reader, ...] = ()
    writers: tuple[str, ...] = ()
    messages: tuple[MessageType, ...] = ()

    @property
    def kind(self) -> TopicKind:
        """Return the topic's kind."""
        return self.topic.kind

    @property
    def retention_seconds(self) -> float | None:
        """Return how long records are kept; None is for ever."""
        milliseconds = self.config.get("retention.ms")
        return None if milliseconds in (None, FOR_EVER) else int(milliseconds) / 1000


class Catalogue(msgspec.Struct, frozen=True):
    """Every topic, sorted by name, and how many copies of each the cluster keeps."""

    entries: tuple[TopicEntry, ...]
    replication: int

    def find(self, topic: TopicName) -> TopicEntry:
        """Return the entry of a topic.

        Raises:
            TopicNotDeclaredError: no contract lists it.
        """
        for entry in self.entries:
            if entry.topic == topic:
                return entry
        raise TopicNotDeclaredError(f"no contract lists the topic {topic}", hint="see `omninode topics list`")

    def of_workers(self, workers: Collection[str]) -> Catalogue:
        """Return what these workers need: the topics they own, read or write, with only them as readers."""
        entries = []
        for entry in self.entries:
            readers = tuple(reader for reader in entry.readers if reader.worker in workers)
            if entry.owner in workers or readers or any(writer in workers for writer in entry.writers):
                entries.append(msgspec.structs.replace(entry, readers=readers))
        return Catalogue(tuple(entries), self.replication)

    def readers(self) -> Mapping[Reader, tuple[TopicEntry, ...]]:
        """Return every reader with the topics it reads, retry topics included."""
        found: dict[Reader, list[TopicEntry]] = {}
        for entry in self.entries:
            for reader in entry.readers:
                found.setdefault(reader, []).append(entry)
        return {reader: tuple(found[reader]) for reader in sorted(found)}


def derive(declarations: Iterable[Declaration], replication: int = 1) -> Catalogue:
    """Return the catalogue of a fleet.

    Args:
        declarations: every version of every worker; the newest speaks for a topic.
        replication: copies of each partition.
    """
    fleet = sorted(declarations, key=lambda item: (item.worker, item.version))
    sources = sorted({topic for item in fleet for topic in (*item.subscribe, *item.publish, *item.reply_topics)})
    builder = _Builder(fleet, replication)
    groups = sorted({Reader(item.worker, item.major) for item in fleet})
    entries = {topic: builder.source_entry(topic) for topic in sources}
    # Before the retry topics: a contract may read such events, too.
    for group in groups:
        actions = builder.actions_entry(group, entries.get(dead_letter_actions_topic(group.worker, group.major)))
        entries[actions.topic] = actions
    for item in fleet:
        for topic in item.subscribe:
            retry = builder.retry_entry(item, entries[topic])
            entries[retry.topic] = retry
    for group in groups:
        versions = [item for item in fleet if Reader(item.worker, item.major) == group]
        dead_letters = builder.dead_letter_entry(group, [entries[name] for item in versions for name in item.subscribe])
        resolutions = builder.resolutions_entry(group)
        entries |= {dead_letters.topic: dead_letters, resolutions.topic: resolutions}
    return Catalogue(tuple(entries[topic] for topic in sorted(entries)), replication)


class _Builder:
    """Makes entries out of declarations that are sorted by worker and version."""

    def __init__(self, fleet: Sequence[Declaration], replication: int) -> None:
        self._fleet = fleet
        # With three copies a write survives the loss of one; with fewer, demanding two would stop at a restart.
        self._in_sync = 2 if replication >= SAFE_REPLICATION else 1

    def source_entry(self, topic: TopicName) -> TopicEntry:
        """Return the entry of a topic that contracts list."""
        users = [item for item in self._fleet if topic in (*item.subscribe, *item.publish, *item.reply_topics)]
        readers = [item for item in users if topic in item.subscribe]
        owners = [item for item in self._fleet if item.worker == topic.producer]
        speaker = owners[-1] if owners else None
        messages = {message for item in users for name, message in item.messages if name == topic}
        return TopicEntry(
            topic=topic,
            owner=topic.producer,
            external=speaker is None,
            keyed=not readers or any(topic not in item.unordered for item in readers),
            partitions=_partitions(topic, speaker, users),
            config=self._config(topic, _retention(topic, speaker, users), _largest(speaker, users) + HEADROOM_BYTES),
            readers=_readers(readers),
            late_readers=_late_readers(readers),
            writers=tuple(sorted({item.worker for item in users if topic in (*item.publish, *item.reply_topics)})),
            messages=tuple(sorted(messages)),
        )

    def retry_entry(self, item: Declaration, source: TopicEntry) -> TopicEntry:
        """Return the entry of a worker's retry topic: co-partitioned with its source."""
        versions = [other for other in self._fleet if other.worker == item.worker and source.topic in other.subscribe]
        topic = retry_topic(item.worker, source.topic)
        limit = int(source.config["max.message.bytes"]) + HEADROOM_BYTES
        config = self._config(topic, RETENTION["retry"], limit)
        if any(other.holds for other in versions):
            config["retention.ms"] = FOR_EVER  # a held key waits for a person
        return TopicEntry(
            topic=topic,
            owner=item.worker,
            external=False,
            keyed=source.keyed,
            partitions=source.partitions,
            config=config,
            source=source.topic,
            # Whatever lies in a retry topic is unfinished work, so no reader of it begins late.
            readers=_readers(versions),
            writers=(item.worker,),
        )

    def dead_letter_entry(self, group: Reader, sources: Sequence[TopicEntry]) -> TopicEntry:
        """Return the entry of the one dead-letter topic of a worker's major version."""
        topic = dead_letter_topic(group.worker, group.major)
        limit = max((int(source.config["max.message.bytes"]) for source in sources), default=0)
        return TopicEntry(
            topic=topic,
            owner=group.worker,
            external=False,
            keyed=False,
            partitions=DEAD_LETTER_PARTITIONS,
            config=self._config(topic, RETENTION["dlq"], limit + HEADROOM_BYTES),
            writers=(group.worker,),
        )

    def resolutions_entry(self, group: Reader) -> TopicEntry:
        """Return the entry of the topic in which dead letters are marked as redriven or discarded.

        Compacted without a time limit: a mark that went before its dead letter would put that back to work twice.
        """
        topic = resolutions_topic(group.worker, group.major)
        config = self._config(topic, None, HEADROOM_BYTES) | {"cleanup.policy": "compact"}
        return TopicEntry(
            topic=topic,
            owner=group.worker,
            external=False,
            keyed=True,
            partitions=DEAD_LETTER_PARTITIONS,
            config=config,
            writers=(group.worker,),
        )

    def actions_entry(self, group: Reader, listed: TopicEntry | None) -> TopicEntry:
        """Return the entry of the events about what people did to dead letters.

        Args:
            group: whose dead letters.
            listed: the entry made for contracts that read these events.
        """
        topic = dead_letter_actions_topic(group.worker, group.major)
        return TopicEntry(
            topic=topic,
            owner=group.worker,
            external=False,
            keyed=False,
            partitions=DEAD_LETTER_PARTITIONS,
            config=self._config(topic, RETENTION["evt"], HEADROOM_BYTES),
            readers=listed.readers if listed else (),
            late_readers=listed.late_readers if listed else (),
            writers=(group.worker,),
        )

    def _config(self, topic: TopicName, retention: float | None, max_message_bytes: int) -> dict[str, str]:
        compacted = RETENTION[topic.kind] is None
        config = {
            "cleanup.policy": "delete" if not compacted else "compact" if retention is None else "compact,delete",
            "max.message.bytes": str(max_message_bytes),
            "min.insync.replicas": str(self._in_sync),
        }
        if retention is not None:
            config["retention.ms"] = str(round(retention * 1000))
        return config


def _partitions(topic: TopicName, speaker: Declaration | None, users: Sequence[Declaration]) -> int:
    if speaker is not None:
        return speaker.settings_of(topic).partitions or speaker.partitions
    stated = [item.settings_of(topic).partitions for item in users]
    return max((count for count in stated if count is not None), default=max(item.partitions for item in users))


def _retention(topic: TopicName, speaker: Declaration | None, users: Sequence[Declaration]) -> float | None:
    speakers = users if speaker is None else [speaker]
    stated = [item.settings_of(topic).retention_seconds for item in speakers]
    return max((seconds for seconds in stated if seconds is not None), default=RETENTION[topic.kind])


def _largest(speaker: Declaration | None, users: Sequence[Declaration]) -> int:
    return speaker.max_record_bytes if speaker is not None else max(item.max_record_bytes for item in users)


def _readers(declarations: Iterable[Declaration]) -> tuple[Reader, ...]:
    """One reader per worker and major version."""
    return tuple(sorted({Reader(item.worker, item.major) for item in declarations}))


def _late_readers(declarations: Iterable[Declaration]) -> tuple[Reader, ...]:
    """The newest version of a major says where its group begins."""
    starts = {Reader(item.worker, item.major): item.start for item in declarations}
    return tuple(sorted(reader for reader, start in starts.items() if start == "latest"))
