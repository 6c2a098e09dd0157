"""Commands without waiting for their answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omnibase_infra.shared.client.errors import ClientClosedError
from omnibase_infra.shared.client.fleet_client import Command, FleetClient
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import InvalidPayloadError, TopicMissingError
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory


def note(text: str) -> dict[str, str]:
    return {"text": text}


async def test_a_published_command_is_in_the_log_when_the_call_returns(
    client: FleetClient, quoter_topics: list[str], kafka_consumer_factory: ConsumerFactory
) -> None:
    sent = await client.publish("price_quoter", "take_note", note("a"))
    (message,) = await asyncio.to_thread(kafka_consumer_factory.read, quoter_topics[0])
    assert envelopes.decode(message.value(), message.headers()) == sent  # type: ignore[arg-type]
    assert dict(message.headers() or []) == {"content-type": b"application/cloudevents+json"}


@pytest.mark.parametrize(
    ("attributes", "key"),
    [({"key": "k"}, b"k"), ({"subject": "s"}, b"s"), ({"key": "k", "subject": "s"}, b"k"), ({"key": ""}, b"")],
)
async def test_the_record_key_is_the_key_or_the_subject(
    client: FleetClient,
    quoter_topics: list[str],
    kafka_consumer_factory: ConsumerFactory,
    attributes: dict[str, Any],
    key: bytes,
) -> None:
    await client.publish("price_quoter", "take_note", note("a"), **attributes)
    (message,) = await asyncio.to_thread(kafka_consumer_factory.read, quoter_topics[0])
    assert message.key() == key


async def test_without_a_key_commands_are_spread_by_their_ids(
    client: FleetClient, quoter_topics: list[str], kafka_consumer_factory: ConsumerFactory
) -> None:
    sent = await client.publish_many("price_quoter", "take_note", [Command(payload=note("a")) for _ in range(60)])
    messages = await asyncio.to_thread(kafka_consumer_factory.read, quoter_topics[0])
    assert {message.key() for message in messages} == {one.id.encode() for one in sent}
    assert {message.partition() for message in messages} == {0, 1, 2}


async def test_commands_of_one_key_stay_in_order_over_calls(
    client: FleetClient, quoter_topics: list[str], kafka_consumer_factory: ConsumerFactory
) -> None:
    sent: list[str] = []
    for start in range(0, 1500, 500):
        batch = [Command(payload=note(str(start + number)), key=str(number % 5)) for number in range(500)]
        sent += [one.id for one in await client.publish_many("price_quoter", "take_note", batch)]
    by_key: dict[Any, list[str]] = {}
    for message in await asyncio.to_thread(kafka_consumer_factory.read, quoter_topics[0]):
        by_key.setdefault(message.key(), []).append(envelopes.decode(message.value()).id)
    assert {key.decode(): ids for key, ids in by_key.items()} == {str(number): sent[number::5] for number in range(5)}


async def test_of_many_commands_one_bad_one_keeps_all_back_and_is_named(
    client: FleetClient, quoter_topics: list[str], kafka_consumer_factory: ConsumerFactory
) -> None:
    commands = [Command(payload=note("a")) for _ in range(10)]
    commands[7] = Command(payload={"text": 1})
    with pytest.raises(InvalidPayloadError, match=r"command 7: .*Expected `str`, got `int` - at `\$\.text`"):
        await client.publish_many("price_quoter", "take_note", commands)
    assert await asyncio.to_thread(kafka_consumer_factory.read, quoter_topics[0]) == []


async def test_publishing_nothing_is_fine(client: FleetClient, quoter_topics: list[str]) -> None:
    assert await client.publish_many("price_quoter", "take_note", []) == []


async def test_a_missing_topic_is_told_at_once(client: FleetClient) -> None:
    with pytest.raises(TopicMissingError, match=r"requests\.v1.*omninode topics apply"):
        async with asyncio.timeout(15):
            await client.publish("price_quoter", "take_note", note("a"))


async def test_a_closed_client_sends_nothing(client: FleetClient, quoter_topics: list[str]) -> None:
    await client.close()
    with pytest.raises(ClientClosedError):
        await client.publish("price_quoter", "take_note", note("a"))
