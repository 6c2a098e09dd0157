"""Where an assigned partition starts: at its commit, or, only where that is certain to skip nothing, at its beginning.

No committed offset means loss or a mistake for a group that is known, so it stops the worker. `topics apply`
commits the first offsets of a new group; a partition added later has none and starts at its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OffsetMissingError, TopicMissingError

_TIMEOUT_SECONDS: Final = 10.0
_TRIES: Final = 3


def start_positions(consumer: Consumer, assigned: Sequence[TopicPartition], group: str) -> list[TopicPartition]:
    """Return the partitions with the offsets to start from. Consumer thread, inside the assign callback.

    Raises:
        OffsetMissingError: a partition of a known group has no commit, or the group was never prepared.
        DependencyUnavailableError: the coordinator did not answer.
    """
    committed = _committed(consumer, assigned)
    missing = [partition for partition in committed if partition.offset == OFFSET_INVALID]
    started = [partition for partition in committed if partition.offset != OFFSET_INVALID]
    for topic in sorted({partition.topic for partition in missing}):
        highest = _highest_committed(consumer, topic)
        for partition in (one for one in missing if one.topic == topic):
            if highest is None or partition.partition < highest:
                raise OffsetMissingError(
                    f"group {group} has no committed offset for {topic}[{partition.partition}]",
                    hint=(
                        "run `omninode topics apply`, which commits the first offsets of a new group"
                        if highest is None
                        else "records may have been skipped or offsets expired: look with `omninode offsets show`, "
                        "then decide with `omninode offsets reset`"
                    ),
                )
            low, _ = consumer.get_watermark_offsets(partition, timeout=_TIMEOUT_SECONDS)
            started.append(TopicPartition(topic, partition.partition, low))
    return started


def _highest_committed(consumer: Consumer, topic: str) -> int | None:
    """Return the highest partition of the topic for which the group has a commit."""
    metadata = consumer.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics[topic]
    if metadata.error is not None:
        raise TopicMissingError(f"{topic}: {metadata.error.str()}", hint="run `omninode topics apply`")
    committed = _committed(consumer, [TopicPartition(topic, number) for number in metadata.partitions])
    return max((one.partition for one in committed if one.offset != OFFSET_INVALID), default=None)


def _committed(consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
    for attempt in range(1, _TRIES + 1):
        try:
            answered = consumer.committed(list(partitions), timeout=_TIMEOUT_SECONDS)
            reasons = [one.error.str() for one in answered if one.error is not None]
            if not reasons:
                return answered
            reason = reasons[0]
        except KafkaException as error:
            reason = error.args[0].str()
        if attempt == _TRIES:
            break
    raise DependencyUnavailableError(
        f"the group coordinator did not say the committed offsets within {_TRIES * _TIMEOUT_SECONDS:g} s: {reason}",
        dependency="kafka",
    )
