"""Assertions that ship with the product pass what is right and say what is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.ports import OutboundRecord, StoredOutput
from omnibase_infra.shared.models.infrastructure.model_health_check import ModelHealthCheck
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.testing.assertions import (
    assert_event_published,
    assert_health_check_valid,
    assert_metrics_collected,
)
from omnibase_infra.shared.testing.external_service import mock_external_service
from omnibase_infra.shared.testing.waiting import wait_for_condition

HEALTHY = {"dependency": "postgres", "status": "healthy", "checked_at": "2026-01-01T00:00:00Z", "latency_ms": 1.5}
INSERTED = "onex.evt.order-store.insert-order-completed.v1"
RESULTS = "onex.evt.order-store.results.v1"

# -- health checks -------------------------------------------------------------------------------------------------------


def test_a_health_check_may_be_a_model_or_its_json() -> None:
    found = assert_health_check_valid(HEALTHY, dependency="postgres", status="healthy")
    assert isinstance(found, ModelHealthCheck)
    assert assert_health_check_valid(found) == found


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"status": "fine"}, "no health check"),
        ({"latency_ms": -1.0}, "a latency below 0"),
        ({"checked_at": "yesterday"}, "checked_at is no time"),
        ({"status": "unhealthy"}, "it does not say why"),
        ({"dependency": ""}, "what was checked"),
        ({"dependency": "kafka"}, "it is about kafka, not postgres"),
        ({"status": "degraded", "message": "slow"}, "it is degraded, not healthy: slow"),
    ],
)
def test_a_health_check_that_is_wrong_is_told_so(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        assert_health_check_valid(HEALTHY | changes, dependency="postgres", status="healthy")


# -- metrics -------------------------------------------------------------------------------------------------------------


def test_metrics_are_found_by_name_definition_labels_and_sum() -> None:
    registry = MetricsRegistry(process_metrics=False)
    for operation in ("insert", "delete"):
        registry.counter(metric.RECORDS_COMPLETED, worker="shop", operation=operation).inc(2)
    registry.histogram(metric.HANDLER_SECONDS, worker="shop", operation="insert").observe(0.5)
    assert assert_metrics_collected(registry, metric.RECORDS_COMPLETED, at_least=4, worker="shop") == 4
    assert assert_metrics_collected(registry, "omnibase_records_completed_total", operation="insert") == 2
    assert assert_metrics_collected(registry.exposition(), metric.HANDLER_SECONDS, at_least=1) == 1
    with pytest.raises(AssertionError, match="is 4, not at least 5"):
        assert_metrics_collected(registry, metric.RECORDS_COMPLETED, at_least=5)
    with pytest.raises(AssertionError, match="no sample of omnibase_records_completed_total has the labels"):
        assert_metrics_collected(registry, metric.RECORDS_COMPLETED, worker="another")
    with pytest.raises(AssertionError, match="no sample of omnibase_commits_total"):
        assert_metrics_collected(registry, metric.RECORDS_COMPLETED, metric.COMMITS)


# -- events --------------------------------------------------------------------------------------------------------------


def _envelope(event_type: str = INSERTED, correlation_id: str = "c1", **data: Any) -> bytes:
    return envelopes.encode(
        envelopes.original(
            source="test", event_type=event_type, data=envelopes.encode_data(data), correlationid=correlation_id
        )
    )


class Consumed:
    """A message as the Kafka client gives it."""

    def topic(self) -> str:
        return f"test.acme.{RESULTS}"

    def value(self) -> bytes:
        return _envelope(order_id="o1", quantity=3)

    def headers(self) -> list[tuple[str, bytes | None]]:
        return list(STRUCTURED_HEADERS)


@pytest.mark.parametrize(
    "record",
    [
        OutboundRecord(RESULTS, _envelope(order_id="o1", quantity=3), headers=STRUCTURED_HEADERS),
        StoredOutput(RESULTS, b"o1", _envelope(order_id="o1", quantity=3)),
        Consumed(),
    ],
    ids=["sent", "stored", "consumed"],
)
def test_an_event_is_found_among_what_was_sent_stored_or_consumed(record: Any) -> None:
    others = [OutboundRecord("onex.retry.a.b.v1", None, b"o1"), OutboundRecord(RESULTS, _envelope("onex.evt.a.b.v1"))]
    found = assert_event_published(
        [*others, record], INSERTED, topic=RESULTS, correlation_id="c1", data={"quantity": 3}, times=1
    )
    assert found.type == INSERTED


@pytest.mark.parametrize(
    "wanted",
    [
        {"topic": "onex.evt.order-store.others.v1"},
        {"correlation_id": "c2"},
        {"data": {"quantity": 4}},
        {"data": {"colour": None}},
        {"times": 2},
    ],
)
def test_an_event_that_is_not_there_is_told_with_what_is(wanted: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=r"(?s)was (not )?published.*insert-order-completed.v1 \{'quantity': 3\}"):
        assert_event_published([OutboundRecord(RESULTS, _envelope(quantity=3))], INSERTED, **wanted)


# -- waiting and servers of somebody else ------------------------------------------------------------------------------------


async def test_waiting_returns_what_came_true_whether_it_is_awaited_or_not() -> None:
    seen: list[int] = []

    def plain() -> int:
        seen.append(1)
        return len(seen) if len(seen) == 3 else 0

    async def awaited() -> str:
        return "there"

    assert await wait_for_condition(plain, "three looks") == 3
    assert await wait_for_condition(awaited, "it") == "there"


async def test_waiting_ends_and_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the moon; last seen: 0"):
        await wait_for_condition(lambda: 0, "the moon", 0.05)


async def test_a_mock_service_answers_keeps_requests_goes_and_comes_back_at_its_address() -> None:
    async with mock_external_service() as service:
        service.answers({"label": "L1"}, status=201)
        address = service.url
        port = int(address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b'POST /labels HTTP/1.1\r\nContent-Length: 9\r\nX-Key: k\r\n\r\n{"id": 1}')
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201 Created")
        assert await reader.readexactly(15) == b'{"label": "L1"}'
        (request,) = service.requests
        assert (request.method, request.path, request.headers["x-key"], request.json()) == (
            "POST",
            "/labels",
            "k",
            {"id": 1},
        )
        await service.is_gone()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await service.is_back()
        assert service.url == address
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
