"""A group's committed offset as a bystander reads it: after every transaction that concerns it has ended."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaException, TopicPartition

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.client_log import LogFunction
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer

TIMEOUT_SECONDS: Final = 10.0


def committed_offset(
    settings: Settings, group: str, partition: TopicPartition, *, client_id: str, log: LogFunction
) -> TopicPartition:
    """Return the partition with its committed offset and metadata, by a client of its own that joins no group.

    Raises:
        DependencyUnavailableError: the coordinator did not say it in time.
    """
    options = ConsumerOptions(statistics_seconds=0)
    consumer = create_consumer(settings, group=group, purpose="answers", client_id=client_id, log=log, options=options)
    try:
        # The client reads committed records only, and asks for offsets that no open transaction may still change.
        (answer,) = consumer.committed([partition], timeout=TIMEOUT_SECONDS)
    except KafkaException as error:
        raise DependencyUnavailableError(
            f"the coordinator of {group} did not say its offsets: {error.args[0].str()}", dependency="kafka"
        ) from error
    finally:
        consumer.close()
    if answer.error is not None:
        raise DependencyUnavailableError(
            f"the coordinator of {group} did not say its offsets: {answer.error.str()}", dependency="kafka"
        )
    return answer
