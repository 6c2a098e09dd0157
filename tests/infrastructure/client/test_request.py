"""Requests and answers over a real broker."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from omnibase_infra.shared.client import answer_stream
from omnibase_infra.shared.client.errors import (
    AnsweredFailedError,
    AnswersLostError,
    ClientClosedError,
    InvalidAnswerError,
)
from omnibase_infra.shared.client.fleet_client import FleetClient
from omnibase_infra.shared.client.node_interface import NodeInterface
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    DependencyUnavailableError,
    InvalidPayloadError,
    RequestTimeoutError,
    TopicMissingError,
    UnknownNodeError,
    UnknownOperationError,
)
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog, TopicCreator


def quote(quantity: int) -> dict[str, Any]:
    return {"kind": "quote", "item": "nail", "quantity": quantity}


async def quoter_has(quoter: Any, count: int) -> None:
    """Wait until the worker has read so many commands."""
    async with asyncio.timeout(20):
        while len(quoter.commands) < count:
            await asyncio.sleep(0.01)


async def test_the_first_request_right_after_start_gets_its_answer(client: FleetClient, quoter: Any) -> None:
    answer = await client.request("price_quoter", "quote_price", quote(3))
    assert answer.payload.price == 30
    assert answer.envelope.causationid == answer.request.id
    assert answer.envelope.correlationid == answer.request.id
    assert 0 < answer.seconds < 30


async def test_the_command_on_the_wire_is_what_the_wire_page_says(
    client: FleetClient, quoter: Any, kafka_settings: Settings, interface: NodeInterface
) -> None:
    await client.request("price-quoter", "quote-price", quote(1), key="k", correlationid="c", expires_in=60)
    (command,) = quoter.commands
    spec = interface.operation("quote_price").spec
    assert command.source == f"/omnibase/{kafka_settings.realm}/client"
    assert (command.type, command.dataschema) == (spec.event_type, spec.request_schema)
    assert (command.partitionkey, command.correlationid, command.causationid) == ("k", "c", None)
    assert command.tenantid == kafka_settings.tenant
    assert command.expirytime > command.time


async def test_many_requests_at_once_each_get_their_own_answer(client: FleetClient, quoter: Any) -> None:
    asked = range(1, 301)
    answers = await asyncio.gather(
        *(client.request("price_quoter", "quote_price", quote(number), key=str(number % 7)) for number in asked)
    )
    assert [answer.payload.price for answer in answers] == [10 * number for number in asked]


async def test_more_requests_than_may_wait_take_turns(
    quoter: Any, kafka_settings: Settings, kafka_log: RecordedLog, interface: NodeInterface
) -> None:
    async with FleetClient(kafka_settings, log=kafka_log, nodes=lambda _: interface, max_waiting=3) as client:
        answers = await asyncio.gather(
            *(client.request("price_quoter", "quote_price", quote(number)) for number in range(1, 21))
        )
    assert len({answer.payload.price for answer in answers}) == 20


async def test_two_clients_at_once_do_not_steal_each_others_answers(
    quoter: Any, kafka_settings: Settings, kafka_log: RecordedLog, interface: NodeInterface
) -> None:
    async def ask(start: int) -> list[int]:
        async with FleetClient(kafka_settings, log=kafka_log, nodes=lambda _: interface) as client:
            asked = [client.request("price_quoter", "quote_price", quote(start + number)) for number in range(50)]
            return [answer.payload.price for answer in await asyncio.gather(*asked)]

    first, second = await asyncio.gather(ask(1), ask(1001))
    assert first == [10 * (1 + number) for number in range(50)]
    assert second == [10 * (1001 + number) for number in range(50)]


async def test_a_failed_answer_is_raised_with_what_the_worker_said(client: FleetClient, quoter: Any) -> None:
    with pytest.raises(AnsweredFailedError, match="not-found: there is no such quote") as caught:
        await client.request("price_quoter", "quote_price", {"kind": "cancel", "reason": "dear"})
    assert caught.value.response.code == "not-found"
    assert caught.value.response.details == {"item": "x"}
    assert caught.value.envelope.type.endswith("quote-price-failed.v1")


async def test_without_an_answer_the_time_out_names_topic_and_message(
    client: FleetClient, quoter: Any, kafka_settings: Settings
) -> None:
    await client.request("price_quoter", "quote_price", quote(1))
    quoter.answering = lambda _: []
    with pytest.raises(RequestTimeoutError, match=r"may still run.*is a worker of price-quoter running") as caught:
        await client.request("price_quoter", "quote_price", quote(2), timeout=1)
    _, command = quoter.commands
    assert command.id in caught.value.message
    assert f"{kafka_settings.realm}.onex.cmd.price-quoter.requests.v1" in caught.value.message


async def test_an_answer_after_the_time_out_is_dropped_and_the_next_request_gets_its_own(
    client: FleetClient, quoter: Any, answers: SimpleNamespace
) -> None:
    await client.request("price_quoter", "quote_price", quote(1), correlationid="c")
    quoter.answering = lambda _: []
    with pytest.raises(RequestTimeoutError):
        await client.request("price_quoter", "quote_price", quote(9), correlationid="c", timeout=1)
    quoter.emit(*answers.quote(quoter.commands[1]))
    quoter.answering = answers.quote
    answer = await client.request("price_quoter", "quote_price", quote(2), correlationid="c")
    assert answer.payload.price == 20


async def test_a_request_that_got_no_turn_says_that_nothing_was_sent(
    quoter: Any, kafka_settings: Settings, kafka_log: RecordedLog, interface: NodeInterface
) -> None:
    quoter.answering = lambda _: []
    async with FleetClient(kafka_settings, log=kafka_log, nodes=lambda _: interface, max_waiting=1) as client:
        first = asyncio.create_task(client.request("price_quoter", "quote_price", quote(1), timeout=20))
        await quoter_has(quoter, 1)
        with pytest.raises(RequestTimeoutError, match="nothing was sent"):
            await client.request("price_quoter", "quote_price", quote(2), timeout=0.2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert len(quoter.commands) == 1


async def test_duplicated_answers_are_taken_once(client: FleetClient, quoter: Any, answers: SimpleNamespace) -> None:
    quoter.answering = lambda command: [*answers.quote(command), *answers.quote(command)]
    for number in range(1, 6):
        answer = await client.request("price_quoter", "quote_price", quote(number), correlationid="c")
        assert answer.payload.price == 10 * number


async def test_what_others_write_into_the_answer_topic_does_no_harm(
    client: FleetClient, quoter: Any, quoter_topics: list[str], answers: SimpleNamespace
) -> None:
    strange = [b"", b"no json", b"[1]", b'{"specversion":1}', b'{"id":"x"}', b"\xff"]

    def answering(command: Envelope) -> list[Envelope]:
        for value in strange:
            quoter.write(value)
        return list(answers.quote(command))

    quoter.answering = answering
    assert (await client.request("price_quoter", "quote_price", quote(1))).payload.price == 10


async def test_an_answer_in_binary_mode_is_read(client: FleetClient, quoter: Any, answers: SimpleNamespace) -> None:
    def answering(command: Envelope) -> list[Envelope]:
        (answer,) = answers.quote(command)
        names = ("specversion", "id", "source", "type", "correlationid", "causationid")
        quoter.write(bytes(answer.data), [(f"ce_{name}", getattr(answer, name).encode()) for name in names])
        return []

    quoter.answering = answering
    assert (await client.request("price_quoter", "quote_price", quote(1))).payload.price == 10


async def test_an_answer_that_cannot_be_read_is_an_error_and_no_time_out(
    client: FleetClient, quoter: Any, answers: SimpleNamespace
) -> None:
    quoter.answering = lambda command: [answers.completed(command, 1, time="yesterday")]
    with pytest.raises(InvalidAnswerError, match="time"):
        await client.request("price_quoter", "quote_price", quote(1), timeout=20)
    quoter.answering = lambda command: [
        msgspec.structs.replace(answers.completed(command, 1), data=msgspec.Raw(b'{"price":null}'))
    ]
    with pytest.raises(InvalidAnswerError, match=r"\$\.price"):
        await client.request("price_quoter", "quote_price", quote(1), timeout=20)


async def test_a_large_answer_is_read(client: FleetClient, quoter: Any, answers: SimpleNamespace) -> None:
    rows = [{f"column_{number}": number for number in range(12)} for _ in range(2000)]
    quoter.answering = lambda command: [
        msgspec.structs.replace(answers.completed(command, 1), data=envelopes.encode_data({"price": 1, "rows": rows}))
    ]
    answer = await client.request("price_quoter", "quote_price", quote(1))
    assert len(msgspec.json.decode(answer.envelope.data)["rows"]) == 2000


async def test_nothing_is_sent_that_the_contract_refuses(client: FleetClient, quoter: Any) -> None:
    with pytest.raises(InvalidPayloadError, match=r"\$\.quantity"):
        await client.request("price_quoter", "quote_price", {"kind": "quote", "item": "a", "quantity": "b"})
    with pytest.raises(InvalidPayloadError, match=r"the worker would refuse the command.*at most 65536"):
        await client.request("price_quoter", "quote_price", {"kind": "cancel", "reason": "x" * 70_000})
    with pytest.raises(UnknownOperationError):
        await client.request("price_quoter", "sell", {})
    with pytest.raises(UnknownNodeError):
        await client.request("price_setter", "quote_price", {})
    with pytest.raises(ConfigurationError, match="one-way"):
        await client.request("price_quoter", "take_note", {"text": "a"})
    assert (await client.request("price_quoter", "quote_price", quote(1))).payload.price == 10
    assert len(quoter.commands) == 1


async def test_a_missing_topic_is_named_with_what_to_do(client: FleetClient, realm: Any) -> None:
    with pytest.raises(TopicMissingError, match=rf"{realm}\.onex\.evt\.price-quoter\.results.*omninode topics apply"):
        await client.request("price_quoter", "quote_price", quote(1))


async def test_without_a_broker_the_error_says_so_within_the_time_out(
    kafka_settings: Settings, kafka_log: RecordedLog, interface: NodeInterface
) -> None:
    settings = kafka_settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    began = time.monotonic()
    async with FleetClient(settings, log=kafka_log, nodes=lambda _: interface) as client:
        with pytest.raises(DependencyUnavailableError, match=r"127\.0\.0\.1:1"):
            await client.request("price_quoter", "quote_price", quote(1), timeout=1)
    assert time.monotonic() - began < 10


async def test_closing_tells_those_who_wait(client: FleetClient, quoter: Any) -> None:
    quoter.answering = lambda _: []
    waiting = asyncio.create_task(client.request("price_quoter", "quote_price", quote(1)))
    await quoter_has(quoter, 1)
    await client.close()
    with pytest.raises(ClientClosedError):
        await waiting
    with pytest.raises(ClientClosedError):
        await client.request("price_quoter", "quote_price", quote(1))
    await client.close()


async def test_when_the_answer_topic_goes_away_those_who_wait_are_told_and_the_client_recovers(
    client: FleetClient,
    quoter: Any,
    answers: SimpleNamespace,
    kafka_topics_created: TopicCreator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_stream, "REFRESH_SECONDS", 0.2)
    quoter.answering = lambda _: []
    waiting = asyncio.create_task(client.request("price_quoter", "quote_price", quote(1), timeout=60))
    await quoter_has(quoter, 1)
    results = f"{quoter.realm}.onex.evt.price-quoter.results.v1"
    await asyncio.to_thread(kafka_topics_created.delete, results)
    with pytest.raises(AnswersLostError, match=r"results\.v1 does not exist.*may still run"):
        await waiting
    quoter.answering = answers.quote
    await asyncio.to_thread(kafka_topics_created, "onex.evt.price-quoter.results.v1", partitions=3)
    assert (await client.request("price_quoter", "quote_price", quote(2))).payload.price == 20


async def test_partitions_added_to_the_answer_topic_are_read(
    client: FleetClient, quoter: Any, kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_stream, "REFRESH_SECONDS", 0.2)
    assert (await client.request("price_quoter", "quote_price", quote(1))).payload.price == 10
    admin = AdminClient({"bootstrap.servers": kafka_settings.kafka_bootstrap_servers or ""})
    (grown,) = admin.create_partitions([NewPartitions(f"{quoter.realm}.onex.evt.price-quoter.results.v1", 9)]).values()
    await asyncio.to_thread(grown.result, 30)
    quoter.forget_partitions()
    asked = [client.request("price_quoter", "quote_price", quote(number), key=str(number)) for number in range(1, 40)]
    assert [answer.payload.price for answer in await asyncio.gather(*asked)] == [10 * n for n in range(1, 40)]


async def test_a_broker_that_comes_back_goes_on_answering(
    kafka_own_broker: Any, kafka_log: RecordedLog, interface: NodeInterface, answering_worker: Any
) -> None:
    broker, settings = kafka_own_broker
    creator = TopicCreator(settings)
    creator("onex.cmd.price-quoter.requests.v1", "onex.evt.price-quoter.results.v1", partitions=3)
    consumers = ConsumerFactory(settings)
    with answering_worker(consumers(purpose="tail"), settings):
        async with FleetClient(settings, log=kafka_log, nodes=lambda _: interface) as client:
            assert (await client.request("price_quoter", "quote_price", quote(1))).payload.price == 10
            await asyncio.to_thread(broker.stop)
            asked = asyncio.create_task(client.request("price_quoter", "quote_price", quote(2), timeout=60))
            await asyncio.to_thread(broker.start)
            assert (await asked).payload.price == 20
    consumers.close_all()
