"""Whether a consumer's group metadata stands for a member, read from real metadata of the client library."""

from __future__ import annotations

import asyncio
import time

import pytest

from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.group_metadata import is_member
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, TopicCreator

TOPIC = "onex.evt.order-store.results.v1"


@pytest.mark.parametrize("instance", [None, "pod-1"])
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_only_who_is_in_the_group_is_a_member(
    protocol: str,
    instance: str | None,
    kafka_settings: Settings,
    kafka_topics_created: TopicCreator,
    kafka_consumer_factory: ConsumerFactory,
) -> None:
    (topic,) = kafka_topics_created(TOPIC)
    changes = {"kafka_group_protocol": protocol, "kafka_group_instance_id": instance}
    consumer = kafka_consumer_factory(settings=kafka_settings.model_copy(update=changes))

    def turn_until(member: bool) -> None:
        deadline = time.monotonic() + 30
        while is_member(consumer.consumer_group_metadata()) != member:
            assert time.monotonic() < deadline, consumer.consumer_group_metadata()
            consumer.poll(0.05)

    assert not is_member(consumer.consumer_group_metadata())
    consumer.subscribe([topic])
    await asyncio.to_thread(turn_until, True)
    consumer.unsubscribe()
    await asyncio.to_thread(turn_until, False)


def test_a_format_that_is_not_known_is_an_error_and_no_membership() -> None:
    with pytest.raises(ValueError, match="unknown format"):
        is_member(b"CGMDv3:\x01\x00\x00\x00g\x00m\x00\x01")
    with pytest.raises(ValueError, match="unknown format"):
        is_member(b"CGMDv2:\x01")
