"""The external-service preset against a server that fails, hangs, cuts connections or is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from omnibase_infra.shared.core.errors import (
    BreakerOpenError,
    BusinessError,
    DependencyUnavailableError,
    OutcomeUnknownError,
    RateLimitedError,
    TransientError,
)
from omnibase_infra.shared.core.worker_spec import RateLimitSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.resilience.circuit_breaker_factory import BREAKER_PRESETS
from omnibase_infra.shared.resilience.process_wide import ProcessResilience, process_resilience
from omnibase_infra.shared.resilience.retry_budget import BudgetOptions
from omnibase_infra.shared.resilience.retry_policy import RetryPolicy
from omnibase_infra.shared.resilience.service_guard import ServiceGuard
from omnibase_infra.shared.resilience.throttle import Throttle
from omnibase_infra.shared.testing.external_service import MockExternalService, mock_external_service
from omnibase_infra.shared.testing.manual_clock import ManualClock

QUICK = RetryPolicy(attempts=3, base=0.001, cap=0.002, total_seconds=60.0)
FAIL_MAX = BREAKER_PRESETS["external_service"].fail_max


@pytest.fixture
async def carrier() -> AsyncIterator[MockExternalService]:
    async with mock_external_service() as service:
        yield service


class Client:
    """What a processor has: a small client and its guard."""

    def __init__(self, carrier: MockExternalService, **options: object) -> None:
        self.carrier = carrier
        self.clock = ManualClock()
        self.registry = MetricsRegistry(process_metrics=False)
        self.process = ProcessResilience(BudgetOptions(burst=100), clock=self.clock)
        self.process.show_in(self.registry, "shop")
        settings = {"timeout_seconds": 10.0, "policy": QUICK} | options
        self.guard = ServiceGuard("carrier", process=self.process, **settings)  # type: ignore[arg-type]

    async def order(self) -> int:
        """Make one call; a status says what to make of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(self.carrier.url).port)
        try:
            writer.write(b"POST /labels HTTP/1.1\r\nhost: carrier\r\ncontent-length: 0\r\n\r\n")
            line = await reader.readline()
            if not line:
                raise ConnectionResetError("no answer")
            status = int(line.split()[1])
        finally:
            writer.close()
        if status == 503:
            raise DependencyUnavailableError("the carrier says 503", dependency="carrier")
        if status == 429:
            raise TransientError("the carrier says 429", dependency="carrier")
        if status >= 400:
            raise BusinessError(f"the carrier says {status}", code="carrier-refused", dependency="carrier")
        return status

    def metric(self, line: str) -> bool:
        return line.encode() in self.registry.exposition()


async def test_an_answer_is_returned_and_keeps_the_breaker_closed(carrier: MockExternalService) -> None:
    client = Client(carrier)
    assert await client.guard.call(client.order) == 200
    assert client.guard.breaker.state == "closed"
    assert [request.path for request in carrier.requests] == ["/labels"]
    assert client.metric('omnibase_breaker_state{dependency="carrier",worker="shop"} 0.0')


@pytest.mark.parametrize("trouble", ["fails", "hangs", "cuts", "is_gone"])
async def test_an_outage_of_any_kind_is_tried_again_then_opens_the_breaker_and_then_costs_nothing(
    carrier: MockExternalService, trouble: str
) -> None:
    # What hangs is asked as often as it is timed: long enough that each request has arrived.
    client = Client(carrier, timeout_seconds=0.25 if trouble == "hangs" else 10.0)
    if (begun := getattr(carrier, trouble)()) is not None:
        await begun
    with pytest.raises(DependencyUnavailableError):
        await client.guard.call(client.order)
    asked = len(carrier.requests)
    assert asked == (0 if trouble == "is_gone" else QUICK.attempts)
    assert client.metric('omnibase_retries_total{dependency="carrier",worker="shop"} 2.0')
    assert client.metric('omnibase_retries_given_up_total{dependency="carrier",reason="attempts",worker="shop"} 1.0')

    with pytest.raises(DependencyUnavailableError):
        await client.guard.call(client.order)
    assert client.guard.breaker.state == "open"
    assert client.metric('omnibase_breaker_trips_total{dependency="carrier",worker="shop"} 1.0')
    asked = len(carrier.requests)
    assert asked <= FAIL_MAX
    for _ in range(50):
        with pytest.raises(BreakerOpenError) as raised:
            await client.guard.call(client.order)
        assert 0 < raised.value.retry_in_seconds <= BREAKER_PRESETS["external_service"].reset_seconds
    assert len(carrier.requests) == asked


async def test_when_it_is_back_one_probe_of_many_callers_closes_the_breaker(carrier: MockExternalService) -> None:
    client = Client(carrier)
    await carrier.is_gone()
    for _ in range(2):
        with pytest.raises(DependencyUnavailableError):
            await client.guard.call(client.order)
    await carrier.is_back()
    client.clock.advance(client.guard.breaker.seconds_until_probe)
    outcomes = await asyncio.gather(*(client.guard.call(client.order) for _ in range(20)), return_exceptions=True)
    assert outcomes.count(200) == 1
    assert sum(isinstance(outcome, BreakerOpenError) for outcome in outcomes) == 19
    assert len(carrier.requests) == 1
    assert await client.guard.call(client.order) == 200


async def test_refusals_and_full_servers_are_answers_that_open_nothing(carrier: MockExternalService) -> None:
    client = Client(carrier)
    carrier.fails(404)
    for _ in range(FAIL_MAX * 2):
        with pytest.raises(BusinessError):
            await client.guard.call(client.order)
    assert len(carrier.requests) == FAIL_MAX * 2, "a refusal is not tried again"
    carrier.fails(429)
    for _ in range(FAIL_MAX):
        with pytest.raises(TransientError):
            await client.guard.call(client.order)
    assert len(carrier.requests) == FAIL_MAX * 2 + FAIL_MAX * QUICK.attempts
    assert client.guard.breaker.state == "closed"


async def test_a_call_that_may_not_be_repeated_is_sent_once_and_its_doubt_is_said(carrier: MockExternalService) -> None:
    client = Client(carrier, timeout_seconds=0.25)
    for trouble in (carrier.hangs, carrier.cuts):
        trouble()
        carrier.requests.clear()
        with pytest.raises(OutcomeUnknownError, match="it may have been done: carrier"):
            await client.guard.call(client.order, repeatable=False)
        assert len(carrier.requests) == 1


async def test_a_call_that_reached_nobody_may_be_repeated_whatever_it_is(carrier: MockExternalService) -> None:
    client = Client(carrier)
    await carrier.is_gone()
    tries = 0

    async def order() -> int:
        nonlocal tries
        tries += 1
        if tries == 2:
            await carrier.is_back()
        return await client.order()

    assert await client.guard.call(order, repeatable=False) == 200
    assert (tries, len(carrier.requests)) == (2, 1)
    await carrier.is_gone()
    with pytest.raises(DependencyUnavailableError):
        await client.guard.call(client.order, repeatable=False)


async def test_the_total_time_bounds_attempts_and_waits_together(carrier: MockExternalService) -> None:
    patient = RetryPolicy(attempts=100, base=0.01, cap=0.01, total_seconds=0.3)
    client = Client(carrier, timeout_seconds=60.0, policy=patient)
    carrier.hangs()
    started = asyncio.get_running_loop().time()
    with pytest.raises(DependencyUnavailableError, match="could not be reached within"):
        await client.guard.call(client.order)
    assert asyncio.get_running_loop().time() - started < 5
    assert client.metric('omnibase_retries_given_up_total{dependency="carrier",reason="time",worker="shop"} 1.0')
    with pytest.raises(OutcomeUnknownError):
        await client.guard.call(client.order, repeatable=False)


async def test_cancelling_callers_neither_opens_nor_blocks_the_breaker(carrier: MockExternalService) -> None:
    client = Client(carrier, timeout_seconds=60.0)
    carrier.hangs()
    tasks = [asyncio.create_task(client.guard.call(client.order)) for _ in range(FAIL_MAX * 2)]
    while len(carrier.requests) < len(tasks):
        await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True))
    carrier.answers()
    assert client.guard.breaker.state == "closed"
    assert await client.guard.call(client.order) == 200


async def test_a_throttled_call_is_refused_before_it_is_sent(carrier: MockExternalService) -> None:
    limit = RateLimitSpec(per="operation", count=1, seconds=60, burst=1, on_limit="refuse")
    client = Client(carrier, throttle=Throttle("carrier", limit))
    assert await client.guard.call(client.order) == 200
    with pytest.raises(RateLimitedError):
        await client.guard.call(client.order)
    assert len(carrier.requests) == 1


async def test_errors_of_a_clients_own_may_be_named(carrier: MockExternalService) -> None:
    class PoolTimeoutError(Exception):
        """Some HTTP client's."""

    async def fails() -> None:
        raise PoolTimeoutError("https://user:secret@carrier")

    with pytest.raises(PoolTimeoutError):
        await Client(carrier).guard.call(fails)
    with pytest.raises(DependencyUnavailableError, match="carrier does not answer: PoolTimeoutError") as raised:
        await Client(carrier, unavailable=(PoolTimeoutError,)).guard.call(fails)
    assert "secret" not in str(raised.value)


def test_callers_of_one_service_in_a_process_share_breaker_and_budget() -> None:
    process = process_resilience()
    assert process is process_resilience()
    assert process.breaker("some-service") is process.breaker("some-service") is not process.breaker("another")
    assert process.budget("some-service") is process.budget("some-service") is not process.budget("another")


def test_metrics_that_come_later_show_what_there_is_already() -> None:
    process = ProcessResilience()
    breaker = process.breaker("carrier")
    process.budget("carrier").spend()
    assert process.retry_metrics("carrier") is None
    assert process.throttle_metrics("carrier") is None
    registry = MetricsRegistry(process_metrics=False)
    process.show_in(registry, "shop")
    for _ in range(FAIL_MAX):
        breaker.record_failure(breaker.permit(), DependencyUnavailableError("down", dependency="carrier"))
    page = registry.exposition().decode()
    assert 'omnibase_breaker_state{dependency="carrier",worker="shop"} 2.0' in page
    assert 'omnibase_retry_budget_left{dependency="carrier",worker="shop"} 9.' in page
    assert process.throttle_metrics("carrier") is not None
