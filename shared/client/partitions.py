"""Partitions of a topic and the positions of their ends, asked of the brokers. Blocks: for threads that own a consumer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from omnibase_infra.shared.core.errors import ClientError, DependencyUnavailableError, TopicMissingError

REQUEST_SECONDS: Final = 10.0

# A partition without a leader has one again in a moment: just created, or its broker was just restarted.
_PASSING_ERRORS: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_RETRY_SECONDS: Final = 0.1
_TOPIC_ERRORS: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_FINAL_ERRORS: Final = _TOPIC_ERRORS | {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}


def partition_numbers(consumer: Consumer, topic: str) -> list[int]:
    """Return the partitions of a physical topic.

    Raises:
        TopicMissingError: it does not exist, or this client may not see it.
        DependencyUnavailableError: no broker answered in time.
    """
    try:
        found = consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
    except KafkaException as error:
        raise _unavailable(error.args[0], f"the partitions of {topic}") from error
    if found.error is not None and found.error.code() not in _TOPIC_ERRORS:
        raise _unavailable(found.error, f"the partitions of {topic}")
    if found.error is not None or not found.partitions:
        raise TopicMissingError(f"the topic {topic} does not exist", hint="run `omninode topics apply`")
    return sorted(found.partitions)


def end_positions(consumer: Consumer, topic: str, numbers: Sequence[int]) -> list[TopicPartition]:
    """Return the partitions, each with the offset that its next record will have.

    Raises:
        DependencyUnavailableError: no broker answered in time.
    """
    deadline = time.monotonic() + REQUEST_SECONDS
    while True:
        positions, failure = _ask_for_ends(consumer, topic, numbers)
        if failure is None:
            return positions
        if failure.code() not in _PASSING_ERRORS or time.monotonic() >= deadline:
            raise _unavailable(failure, f"the end offsets of {topic}")
        time.sleep(_RETRY_SECONDS)


def _ask_for_ends(
    consumer: Consumer, topic: str, numbers: Sequence[int]
) -> tuple[list[TopicPartition], KafkaError | None]:
    # Asked by time, the offsets of all partitions come in one request per broker.
    wanted = [TopicPartition(topic, number, OFFSET_END) for number in numbers]
    try:
        positions = consumer.offsets_for_times(wanted, timeout=REQUEST_SECONDS)
    except KafkaException as error:
        return [], error.args[0]
    return positions, next((one.error for one in positions if one.error is not None), None)


def ends_reading(error: KafkaError) -> bool:
    """Return whether an error that came instead of a record will not go away by waiting."""
    return error.fatal() or error.code() in _FINAL_ERRORS


def reading_failed(topic: str | None, error: KafkaError) -> ClientError:
    """Return the error for a topic that cannot be read on."""
    return ClientError(f"{topic or 'a topic'} cannot be read: {error.str()}")


def _unavailable(error: KafkaError, what: str) -> DependencyUnavailableError:
    return DependencyUnavailableError(
        f"no Kafka broker told {what} within {REQUEST_SECONDS:g} s: {error.str()}", dependency="kafka"
    )
