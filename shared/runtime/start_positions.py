"""Where an assigned partition starts: at its commit, or, only where that is certain to skip nothing, at its beginning.

No committed offset means loss or a mistake for a group that is known, so it stops the worker. `topics apply`
commits the first offsets of a new group; a partition added later has none and starts at its beginning, which is
committed at once: otherwise one that got no record by the next start would look like one whose offset was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import OFFSET_END, OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OffsetMissingError, TopicMissingError

_TIMEOUT_SECONDS: Final = 10.0
_TRIES: Final = 3
_REBALANCE_ERRORS: Final = frozenset(
    {KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID}
)


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
        wanted = {partition.partition for partition in missing if partition.topic == topic}
        added = _added_partitions(consumer, topic, wanted, group)
        started += [partition for partition in added if partition.partition in wanted]
        if gone := wanted.difference(partition.partition for partition in added):
            raise TopicMissingError(
                f"{topic} has no partition {min(gone)}, which its source topic has", hint="run `omninode topics apply`"
            )
    return started


def end_offsets(consumer: Consumer, partitions: Sequence[TopicPartition]) -> dict[tuple[str, int], int]:
    """Return the ends of those partitions whose leader says it; one request per leader. Consumer thread."""
    if not partitions:
        return {}
    asked = [TopicPartition(one.topic, one.partition, OFFSET_END) for one in partitions]
    try:
        answered = consumer.offsets_for_times(asked, timeout=_TIMEOUT_SECONDS)
    except KafkaException:
        return {}  # they are found by reading to them
    return {(one.topic, one.partition): one.offset for one in answered if one.error is None and one.offset >= 0}


def _added_partitions(consumer: Consumer, topic: str, wanted: set[int], group: str) -> list[TopicPartition]:
    """Return the partitions above the highest that has a commit, at their beginnings, which are committed now.

    All of them, not only the wanted ones: another member, to which the others were assigned at the same time, must
    not find a commit above its own.
    """
    everything = _committed(consumer, _partitions(consumer, topic))
    known = [one for one in everything if one.offset != OFFSET_INVALID]
    highest = max((one.partition for one in known), default=None)
    for number in sorted(wanted):
        # Another member may have committed it since it was looked at.
        if highest is None or (number < highest and all(one.partition != number for one in known)):
            raise _offset_missing(group, topic, number, new_group=highest is None)
    added = [one for one in everything if highest is not None and one.partition > highest]
    for one in added:
        one.offset, _ = consumer.get_watermark_offsets(one, timeout=_TIMEOUT_SECONDS)
    if added:
        commit_positions(consumer, added)
    return [*known, *added]


def commit_positions(consumer: Consumer, positions: list[TopicPartition]) -> None:
    """Commit from inside the assign callback.

    Raises:
        KafkaException: but not where the next rebalance is under way already.
    """
    try:
        for one in consumer.commit(offsets=positions, asynchronous=False) or ():
            if one.error is not None:
                raise KafkaException(one.error)
    except KafkaException as error:
        # The next rebalance is under way; whoever is assigned them then looks and commits again.
        if error.args[0].code() not in _REBALANCE_ERRORS:
            raise


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    metadata = consumer.list_topics(topic, timeout=_TIMEOUT_SECONDS).topics[topic]
    if metadata.error is not None:
        raise TopicMissingError(f"{topic}: {metadata.error.str()}", hint="run `omninode topics apply`")
    return [TopicPartition(topic, number) for number in sorted(metadata.partitions)]


def _offset_missing(group: str, topic: str, partition: int, *, new_group: bool) -> OffsetMissingError:
    prepare = (
        "run `omninode topics apply`, which commits the first offsets of a new group; where a topic was made anew, say "
        "with `omninode offsets reset` where to begin"
    )
    look = (
        "records may have been skipped or offsets expired: look with `omninode offsets show`, then decide with "
        "`omninode offsets reset`"
    )
    return OffsetMissingError(
        f"group {group} has no committed offset for {topic}[{partition}]", hint=prepare if new_group else look
    )


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
