"""The pool refuses what may not be sent, before any broker is asked."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import DeliveryError, InvalidNameError, SettingsError, TopicNotDeclaredError
from omnibase_infra.shared.core.ports import OutboundRecord, RecordProducer
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.kafka.producer_config import DEFAULT_OPTIONS, ProducerOptions
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog

pytestmark = pytest.mark.usefixtures("no_environment")

RESULTS = "onex.evt.order-store.results.v1"
CONTRACT = "workers/order_store/v1_0_0/contract.yaml"
# Nothing listens there.
UNREACHABLE = load_settings(Path("no-such-file"), env="test", kafka_bootstrap_servers="127.0.0.1:1")


def pool_of(*, allowed: set[str] | None = None, options: ProducerOptions = DEFAULT_OPTIONS) -> ProducerPool:
    return ProducerPool(
        UNREACHABLE, client_id="test", log=RecordedLog(), allowed=allowed, contract=CONTRACT, options=options
    )


def record(topic: str = RESULTS, value: bytes = b"v") -> OutboundRecord:
    return OutboundRecord(topic=topic, value=value, key=b"k")


def kafka_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kafka-test-")]


def kafka_threads_end() -> None:
    deadline = time.monotonic() + 10
    while kafka_threads():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_is_a_record_producer() -> None:
    producer: RecordProducer = pool_of()
    assert producer.health().confirmed == 0  # type: ignore[attr-defined]


async def test_a_topic_the_contract_lacks_is_refused_with_the_line_to_add() -> None:
    pool = pool_of(allowed={RESULTS})
    with pytest.raises(TopicNotDeclaredError) as caught:
        await pool.send([record(), record("onex.evt.other.results.v1")])
    assert str(caught.value) == (
        f"{CONTRACT}: the topic 'onex.evt.other.results.v1' is not listed, so this worker may not produce to it "
        "(add `- onex.evt.other.results.v1` under `event_bus: publish:` and generate again)"
    )
    # Nothing was handed over: there is not even a producer.
    assert pool.health().capacity == 0


async def test_tools_may_produce_to_any_topic_but_only_by_logical_names() -> None:
    with pytest.raises(InvalidNameError, match="a realm prefix has no place in a logical name"):
        await pool_of().send([record(f"test.{RESULTS}")])


async def test_sending_nothing_is_done_at_once() -> None:
    pool = pool_of()
    await pool.send([])
    assert pool.health().capacity == 0


async def test_a_closed_pool_refuses_records() -> None:
    pool = pool_of()
    await pool.close()
    await pool.close()
    with pytest.raises(DeliveryError, match=r"2 of 2 records were not confirmed.*pool is closed") as caught:
        await pool.send([record(), record()])
    assert list(caught.value.errors) == [0, 1]


async def test_a_pool_belongs_to_one_event_loop() -> None:
    async with pool_of() as pool:

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="belongs to the event loop"):
                asyncio.run(pool.send([record()]))

        await asyncio.to_thread(elsewhere)


async def test_wrong_options_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="at least one producer"):
        pool_of(options=ProducerOptions(size=0))
    with pytest.raises(SettingsError, match=r"refuses the settings of producer test-0: .*no\.such\.property"):
        pool_of(options=ProducerOptions(overrides={"no.such.property": 1})).start()


async def test_without_a_broker_records_wait_until_their_time_is_up() -> None:
    async with pool_of(options=ProducerOptions(delivery_timeout_seconds=0.5)) as pool:
        with pytest.raises(DeliveryError, match="2 of 2 records were not confirmed") as caught:
            await pool.send([record(value=b"1"), record(value=b"2")])
        assert list(caught.value.errors) == [0, 1]
        health = pool.health()
        assert (health.confirmed, health.failed, health.last_confirmed_age_seconds) == (0, 2, None)
        assert health.last_error
        assert health.last_error_age_seconds is not None


async def test_without_a_broker_a_full_queue_makes_senders_wait_and_the_loop_stays_free() -> None:
    options = ProducerOptions(queue_records=10, delivery_timeout_seconds=1)
    async with pool_of(options=options) as pool:
        sender = asyncio.create_task(pool.send([record(value=b"%d" % number) for number in range(25)]))
        while not pool.health().waiting_sends:
            await asyncio.sleep(0.01)
        assert pool.health().queued == 10
        started = time.process_time()
        with pytest.raises(DeliveryError) as caught:
            await sender
        assert list(caught.value.errors) == list(range(25))
        # Three rounds of a second each were waited for, not spun through.
        assert time.process_time() - started < 1


@pytest.mark.parametrize("queue_records", [10, 1000])
async def test_closing_without_a_broker_is_bounded_and_leaves_nobody_waiting(queue_records: int) -> None:
    pool = pool_of(options=ProducerOptions(queue_records=queue_records))
    senders = [asyncio.create_task(pool.send([record()] * 15)) for _ in range(4)]
    await asyncio.sleep(0)
    started = time.monotonic()
    await pool.close(0.2)
    assert time.monotonic() - started < 5
    for sender in senders:
        with pytest.raises(DeliveryError, match="15 of 15 records were not confirmed"):
            await sender
    assert kafka_threads() == []


async def test_a_cancelled_close_still_ends_the_threads() -> None:
    pool = pool_of()
    sender = asyncio.create_task(pool.send([record()]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.close(60))
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(DeliveryError):
        await sender
    assert kafka_threads() == []


def test_a_loop_that_ends_without_closing_the_pool_leaves_no_thread() -> None:
    async def forget() -> None:
        pool = pool_of(options=ProducerOptions(delivery_timeout_seconds=0.2))
        sender = asyncio.create_task(pool.send([record()]))
        await asyncio.sleep(0)
        sender.cancel()

    asyncio.run(forget())
    kafka_threads_end()


async def test_log_and_statistics_functions_that_raise_do_not_stop_the_pool() -> None:
    def broken(_level: int, _event: str, /, **_fields: object) -> None:
        raise OSError("disk full")

    options = ProducerOptions(delivery_timeout_seconds=0.5, statistics_seconds=0.05)
    async with ProducerPool(
        UNREACHABLE, client_id="test", log=broken, options=options, on_statistics=lambda _: broken(0, "")
    ) as pool:
        with pytest.raises(DeliveryError):
            await pool.send([record()])
    assert kafka_threads() == []


async def test_a_thread_that_is_stuck_in_a_callback_keeps_nobody_waiting() -> None:
    entered, released = threading.Event(), threading.Event()

    def block(_: object) -> None:
        entered.set()
        released.wait(60)

    log = RecordedLog()
    pool = ProducerPool(
        UNREACHABLE,
        client_id="test",
        log=log,
        options=ProducerOptions(statistics_seconds=0.05),
        on_statistics=block,
    )
    sender = asyncio.create_task(pool.send([record(), record()]))
    await asyncio.to_thread(entered.wait, 10)
    await pool.close(0.1)
    with pytest.raises(DeliveryError, match=r"2 of 2 records were not confirmed: .*the producer was closed"):
        await sender
    assert [line.event for line in log if "unconfirmed" in line.event or "stuck" in line.event] == [
        "kafka_producer_thread_stuck",
        "kafka_records_unconfirmed",
    ]
    released.set()
    await asyncio.to_thread(kafka_threads_end)
