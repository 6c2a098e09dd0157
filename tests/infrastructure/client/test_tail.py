"""Following a worker's topics."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from omnibase_infra.shared.client.fleet_client import Command, FleetClient
from omnibase_infra.shared.client.tail import TailedRecord, TailFilter
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import TopicMissingError


def command(correlationid: str | None = None) -> Envelope:
    return envelopes.original(
        source="/test",
        event_type="onex.cmd.price-quoter.quote-price.v1",
        data=envelopes.encode_data({}),
        correlationid=correlationid,
    )


async def read(client: FleetClient, **options: Any) -> list[TailedRecord]:
    async with client.tail("price_quoter", from_beginning=True, until_end=True, **options) as records:
        return [record async for record in records]


async def test_from_the_beginning_everything_in_the_log_is_seen(
    client: FleetClient, quoter: Any, answers: SimpleNamespace
) -> None:
    written = [answers.completed(command(), number) for number in range(1200)]
    quoter.emit(*written)
    seen = await read(client)
    assert {record.envelope.id for record in seen if record.envelope} == {answer.id for answer in written}
    assert len(seen) == 1200
    first = seen[0]
    assert (first.topic, first.problem) == ("onex.evt.price-quoter.results.v1", "")
    assert first.timestamp_ms > 1_700_000_000_000


async def test_otherwise_only_what_comes_after_opening_is_seen(
    client: FleetClient, quoter: Any, answers: SimpleNamespace
) -> None:
    quoter.emit(answers.completed(command(), 1))
    async with client.tail("price_quoter") as records:
        later = answers.completed(command(), 2)
        quoter.emit(later)
        async with asyncio.timeout(10):
            assert (await anext(records)).envelope == later


async def test_it_can_be_iterated_without_being_entered(
    client: FleetClient, quoter: Any, answers: SimpleNamespace
) -> None:
    quoter.emit(answers.completed(command(), 1))
    async for record in client.tail("price_quoter", from_beginning=True):
        assert record.envelope is not None
        break


async def test_records_are_chosen_by_type_and_conversation(
    client: FleetClient, quoter: Any, answers: SimpleNamespace
) -> None:
    good, bad = command("c"), command("d")
    quoter.emit(answers.completed(good, 1), answers.failed(bad, "no", "no"), answers.failed(good, "no", "no"))
    assert len(await read(client, types=["*-failed"])) == 2
    assert len(await read(client, correlationid="c")) == 2
    (both,) = await read(client, types=["quote-price-failed"], correlationid="c")
    assert both.envelope is not None
    assert both.envelope.causationid == good.id


async def test_commands_and_dead_letters_have_tails_of_their_own(
    client: FleetClient, quoter: Any, quoter_topics: list[str]
) -> None:
    await client.publish_many(
        "price_quoter", "take_note", [Command(payload={"text": "a"}, key="k"), Command(payload={"text": "b"})]
    )
    assert {record.key for record in await read(client, stream="commands")} > {b"k"}
    quoter.write(b"\xff\x00", [("onex-error-code", b"undecodable")], topic=quoter_topics[2])
    (dead,) = await read(client, stream="dead-letters")
    assert dead.envelope is None
    assert "not JSON" in dead.problem
    assert (dead.value, dead.headers) == (b"\xff\x00", (("onex-error-code", b"undecodable"),))


async def test_a_step_that_is_cancelled_loses_nothing(
    client: FleetClient, quoter: Any, answers: SimpleNamespace
) -> None:
    async with client.tail("price_quoter") as records:
        seen = []
        written = [answers.completed(command(), number) for number in range(30)]
        for answer in written:
            quoter.emit(answer)
            try:
                async with asyncio.timeout(0.003):
                    seen.append((await anext(records)).envelope)
            except TimeoutError:
                continue
        async with asyncio.timeout(20):
            while len(seen) < 30:
                seen.append((await anext(records)).envelope)
    assert {one.id for one in seen if one} == {one.id for one in written}


async def test_an_empty_log_ends_at_once(client: FleetClient, quoter_topics: list[str]) -> None:
    assert await read(client) == []


async def test_a_missing_topic_is_named_with_what_to_do(client: FleetClient) -> None:
    with pytest.raises(TopicMissingError, match="omninode topics apply"):
        await read(client)


async def test_closing_the_client_ends_its_tails(client: FleetClient, quoter_topics: list[str]) -> None:
    records = client.tail("price_quoter")
    await records.open()
    await client.close()
    assert records.closed
    with pytest.raises(StopAsyncIteration):
        await anext(records)


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (("onex.cmd.price-quoter.quote-price.v1",), True),
        (("quote-price",), True),
        (("quote-*",), True),
        (("*",), True),
        (("onex.evt.*",), False),
        (("price",), False),
        (("other", "quote-price"), True),
    ],
)
def test_types_are_named_whole_or_by_their_event(wanted: tuple[str, ...], passes: bool) -> None:
    assert TailFilter(wanted).passes(command()) is passes


def test_what_is_no_envelope_passes_only_when_nothing_is_asked_for() -> None:
    assert TailFilter().passes(None)
    assert not TailFilter(("*",)).passes(None)
    assert not TailFilter(correlationid="c").passes(None)
