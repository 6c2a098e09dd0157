"""The dead letters of a worker's major version and what was done about them, read from its topics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Self

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from omnibase_infra.shared.core.naming import TopicName, dead_letter_actions_topic, resolutions_topic
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.client_log import LogFunction
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
from omnibase_infra.shared.kafka.security_diagnosis import ask_for_topics
from omnibase_infra.shared.runtime.dead_letter_filter import DeadLetterFilter
from omnibase_infra.shared.runtime.dead_letter_reading import REQUEST_SECONDS, TopicReader, unavailable
from omnibase_infra.shared.runtime.dead_letter_resolutions import DeadLetterState, Resolution, Resolutions
from omnibase_infra.shared.runtime.dead_letter_view import DeadLetter, Place, parse_dead_letter

# Large requests: everything is read, by one reader, as fast as it comes.
_OPTIONS: Final = ConsumerOptions(
    statistics_seconds=0,
    fetched_records=10_000,
    fetched_kilobytes=8 * 1024,
    overrides={"fetch.message.max.bytes": 1024 * 1024, "fetch.wait.max.ms": 10},
)


class DeadLetterSnapshot(msgspec.Struct, frozen=True):
    """What was in the topics when they were read. Values are not kept, so that memory does not grow with their size."""

    letters: tuple[DeadLetter, ...]
    resolutions: Resolutions

    def __iter__(self) -> Iterator[tuple[DeadLetter, DeadLetterState]]:
        """Yield each dead letter and where it stands, in the order of the log."""
        return ((letter, self.resolutions.state(letter)) for letter in self.letters)

    def select(self, wanted: DeadLetterFilter) -> list[DeadLetter]:
        """Return the dead letters that are meant."""
        return [letter for letter, state in self if wanted.passes(letter, state)]

    def resolution(self, letter: DeadLetter) -> Resolution | None:
        """Return what was done about a dead letter, None when it is open."""
        return self.resolutions.of(letter)


class DeadLetterLog:
    """Reads the dead letters of one worker: `with DeadLetterLog(settings, spec, log=...) as log: log.read()`.

    Joins no consumer group and commits nothing. Every method blocks, within bounds, and raises
    DependencyUnavailableError when no broker answers and TopicMissingError when a topic does not exist; entering it raises
    KafkaAccessError when a broker does not let us in.

    Attributes:
        dead_letters / resolutions / actions: logical names of its topics.
    """

    def __init__(self, settings: Settings, spec: WorkerSpec, *, log: LogFunction) -> None:
        """Raises:
        SettingsError: no broker is set, or the settings do not fit together.
        """
        self._settings = settings
        self._realm = settings.realm
        self._reasons: list[KafkaError] = []
        self.dead_letters = spec.dead_letter_topic
        self.resolutions = resolutions_topic(spec.worker, spec.major)
        self.actions = dead_letter_actions_topic(spec.worker, spec.major)
        self._consumer = create_consumer(
            settings,
            group=self._realm.group(spec.worker, spec.major, "audit"),
            purpose="replay",
            client_id="omninode-dlq",
            log=log,
            on_error=self._reasons.append,
            options=_OPTIONS,
        )
        self._reader = TopicReader(self._consumer)

    def __enter__(self) -> Self:
        try:
            ask_for_topics(self._consumer, self._settings, self._reasons, REQUEST_SECONDS)
        except KafkaException as error:
            self._consumer.close()
            raise unavailable(error.args[0], self.dead_letters.physical(self._realm)) from error
        except BaseException:
            self._consumer.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read(self) -> DeadLetterSnapshot:
        """Return all dead letters and what was done about them.

        Raises:
            CorruptLogError: a topic cannot be read, or holds something that no `omninode dlq` wrote.
        """
        topic = self.dead_letters.physical(self._realm)
        letters = [letter_of(message) for messages in self._reader.read(topic) for message in messages]
        letters.sort(key=lambda letter: letter.place)
        # After the dead letters, so that what was done meanwhile is known.
        return DeadLetterSnapshot(tuple(letters), self.read_resolutions())

    def read_resolutions(self) -> Resolutions:
        """Return what was done about dead letters up to now."""
        topic = self.resolutions.physical(self._realm)
        found = Resolutions()
        for messages in self._reader.read(topic):
            for message in messages:
                where = f"{topic}[{message.partition()}]@{message.offset()}"
                found.take(message.key(), message.value(), where)
        found.settle()
        return found

    def fetch(self, places: Iterable[Place]) -> dict[Place, Message]:
        """Return the records of dead letters, whole; those that retention has removed are left out."""
        return self._reader.fetch(self.dead_letters.physical(self._realm), places)

    def fetch_one(self, place: Place) -> Message | None:
        """Return the record of one dead letter, None when there is none at this place."""
        topic = self.dead_letters.physical(self._realm)
        if place.partition not in self._reader.partitions(topic):
            return None
        return self._reader.fetch(topic, [place]).get(place)

    def first_kept(self) -> dict[int, int]:
        """Return the first offset that is left of each partition of the dead-letter topic."""
        topic = self.dead_letters.physical(self._realm)
        return {number: self._reader.bounds(topic, number)[0] for number in self._reader.partitions(topic)}

    def partition_counts(self, topics: Sequence[TopicName]) -> dict[TopicName, int]:
        """Return how many partitions each of these topics has."""
        return {topic: len(self._reader.partitions(topic.physical(self._realm))) for topic in topics}


def letter_of(message: Message) -> DeadLetter:
    """Return what a record of the dead-letter topic says about itself."""
    return parse_dead_letter(
        Place(message.partition() or 0, message.offset() or 0),
        message.timestamp()[1],
        message.key(),
        message.value(),
        message.headers() or [],  # type: ignore[arg-type]
    )
