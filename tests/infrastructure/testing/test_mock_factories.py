"""Mocks have what the real things have, keep what was asked, and fail when told to."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import (
    DeliveryError,
    DependencyBusyError,
    DependencyUnavailableError,
    TopicNotDeclaredError,
)
from omnibase_infra.shared.core.ports import (
    AlreadyProcessed,
    EffectStore,
    Fresh,
    InboxMessage,
    OutboundRecord,
    RecordProducer,
    Reused,
    StoredOutput,
)
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
from omnibase_infra.shared.testing.memory_store import MemoryEffectStore
from omnibase_infra.shared.testing.mock_factories import (
    MockKafkaProducer,
    MockPostgresPool,
    SqlCall,
    create_mock_circuit_breaker,
    create_mock_kafka_producer,
    create_mock_postgres_pool,
    create_mock_tracer,
)

RECORD = OutboundRecord("onex.evt.shop.results.v1", b"{}")


@pytest.mark.parametrize(
    ("mock", "real"), [(MockPostgresPool, PostgresConnectionPool), (MockKafkaProducer, ProducerPool)]
)
def test_what_a_mock_takes_the_real_thing_takes_too(mock: type[Any], real: type[Any]) -> None:
    extra = {"fails"}
    for name, method in inspect.getmembers(mock, inspect.isfunction):
        if name.startswith("_") or name in extra:
            continue
        parameters = inspect.signature(getattr(real, name)).parameters
        assert set(inspect.signature(method).parameters) <= set(parameters), name
        assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(getattr(real, name)), name


async def test_a_pool_answers_from_its_list_and_keeps_statements_and_transactions() -> None:
    pool = create_mock_postgres_pool([[{"id": 1}], {"id": 2}, 3, DependencyBusyError("full", dependency="postgres")])
    async with pool.acquire() as connection:
        assert pool.state().in_use == 1
        assert await connection.fetch("SELECT 1", 7) == [{"id": 1}]
        assert await connection.fetchrow("SELECT 2") == {"id": 2}
        async with connection.transaction():
            assert await connection.fetchval("SELECT 3") == 3
        with pytest.raises(DependencyBusyError):
            async with connection.transaction():
                await connection.execute("DELETE")
        assert await connection.execute("used up") == "OK"
        await connection.executemany("INSERT", [(1,), (2,)])
    assert pool.state().in_use == 0
    assert pool.calls[0] == SqlCall("fetch", "SELECT 1", (7,))
    assert [call.sql for call in pool.calls if call.method == "transaction"] == ["BEGIN", "COMMIT", "BEGIN", "ROLLBACK"]


async def test_a_pool_fails_as_told_and_works_again() -> None:
    pool = create_mock_postgres_pool()
    pool.fails(DependencyUnavailableError("down", dependency="postgres"))
    with pytest.raises(DependencyUnavailableError):
        async with pool.acquire():
            pass
    pool.fails(None)
    async with pool.acquire() as connection:
        assert await connection.fetch("SELECT 1") == []
    await pool.close()
    with pytest.raises(AssertionError, match="closed"):
        async with pool.acquire():
            pass


async def test_a_producer_keeps_what_it_confirmed() -> None:
    producer = create_mock_kafka_producer(["onex.evt.shop.results.v1"])
    as_protocol: RecordProducer = producer
    producer.fails(times=1)
    with pytest.raises(DeliveryError) as raised:
        await as_protocol.send([RECORD, RECORD])
    assert set(raised.value.errors) == {0, 1}
    await as_protocol.send([RECORD])
    with pytest.raises(TopicNotDeclaredError):
        await as_protocol.send([OutboundRecord("onex.evt.shop.others.v1", b"{}")])
    producer.fails(error=DependencyUnavailableError("down", dependency="kafka"))
    with pytest.raises(DependencyUnavailableError):
        await as_protocol.send([RECORD])
    assert producer.sent == [RECORD]
    await producer.close()


@pytest.mark.parametrize("state", ["closed", "open", "half-open"])
def test_a_breaker_comes_in_the_state_that_is_asked_for(state: Any) -> None:
    breaker = create_mock_circuit_breaker("carrier", state)
    assert breaker.state == state
    assert breaker.permit().granted == (state != "open")
    breaker.clock.advance(60)
    assert breaker.seconds_until_probe == 0


def test_a_tracer_keeps_spans_with_facts_parents_and_errors() -> None:
    tracer = create_mock_tracer()

    def work() -> None:
        with tracer.start_as_current_span("outer", attributes={"a": 1}), tracer.start_as_current_span("inner") as span:
            span.set_attribute("b", 2)
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        work()
    with tracer.start_as_current_span("noted") as span:
        span.record_exception(KeyError("k"))
    assert [(one.name, one.parent, one.attributes) for one in tracer.spans] == [
        ("inner", "outer", {"b": 2}),
        ("outer", "", {"a": 1}),
        ("noted", "", {}),
    ]
    assert isinstance(tracer.named("inner")[0].error, ValueError)
    assert isinstance(tracer.named("noted")[0].error, KeyError)


# -- the effect store ----------------------------------------------------------------------------------------------------


def _message(payload: bytes = b"p") -> InboxMessage:
    return InboxMessage(
        source="s", message_id="1", redrive_id="", payload_hash=payload, topic="t", partition=0, offset=0, day_ms=0
    )


async def test_a_session_shows_what_it_did_when_it_ends_well_and_not_before() -> None:
    store = MemoryEffectStore()
    as_protocol: EffectStore = store
    output = StoredOutput("onex.evt.shop.results.v1", None, b"{}")

    async def fail_in_the_middle() -> None:
        async with as_protocol.session() as session:
            await session.store([(_message(), [output])])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_in_the_middle()
    async with as_protocol.session() as session:
        assert await session.claim([_message()]) == [Fresh()]
        await session.connection.execute("INSERT")
        await session.store([(_message(), [output])])
    async with as_protocol.session() as session:
        assert await session.claim([_message()]) == [AlreadyProcessed((output,))]
        assert await session.claim([_message(b"other")]) == [Reused()]
    assert store.outputs == [output]
    assert [call.sql for call in store.pool.calls] == ["INSERT"]
    store.down = True
    with pytest.raises(DependencyUnavailableError):
        async with as_protocol.session():
            pass
