"""What tests of nodes assert again and again, each with a failure that says what there was instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec

from omnibase_infra.shared.core.clock import parse_rfc3339
from omnibase_infra.shared.core.envelope import Envelope, decode
from omnibase_infra.shared.core.errors import RecordRefusedError
from omnibase_infra.shared.core.ports import OutboundRecord, StoredOutput
from omnibase_infra.shared.models.infrastructure.model_health_check import HealthState, ModelHealthCheck
from omnibase_infra.shared.observability.metric_definitions import MetricDefinition
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry

_SAMPLE: Final = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class ConsumedRecord(Protocol):
    """A record as a Kafka client returns it."""

    def topic(self) -> Any:
        """Return the physical topic."""
        ...

    def value(self) -> Any:
        """Return the value."""
        ...

    def headers(self) -> Any:
        """Return the headers, or nothing."""
        ...


PublishedRecord = OutboundRecord | StoredOutput | ConsumedRecord


def assert_health_check_valid(
    check: ModelHealthCheck | Mapping[str, Any], *, dependency: str | None = None, status: HealthState | None = None
) -> ModelHealthCheck:
    """Make sure that a health check is one: all fields of their types, a time, a reason where it is not healthy.

    Args:
        check: the model, or the JSON object that an answer or an endpoint held.
        dependency: that it must be about; None: any.
        status: that it must have; None: any.

    Returns:
        The check as a model.

    Raises:
        AssertionError: says what is wrong with it.
    """
    try:
        found = msgspec.convert(msgspec.to_builtins(check), ModelHealthCheck)
    except msgspec.ValidationError as error:
        raise AssertionError(f"no health check: {error}: {check!r}") from None
    try:
        parse_rfc3339(found.checked_at)
    except ValueError as error:
        raise AssertionError(f"checked_at is no time: {error}") from None
    assert found.dependency, f"it does not say what was checked: {found!r}"
    assert found.latency_ms is None or found.latency_ms >= 0, f"a latency below 0: {found!r}"
    assert found.status == "healthy" or found.message, f"{found.status}, and it does not say why: {found!r}"
    assert dependency in {None, found.dependency}, f"it is about {found.dependency}, not {dependency}: {found!r}"
    assert status in {None, found.status}, f"it is {found.status}, not {status}: {found.message}"
    return found


def assert_metrics_collected(
    source: MetricsRegistry | bytes | str, *wanted: str | MetricDefinition, at_least: float | None = None, **labels: str
) -> float:
    """Make sure that metrics are there, each with a sample that has these labels.

    Args:
        source: the registry, or a page that `/metrics` gave.
        wanted: names or definitions; of a histogram, its number of observations counts.
        at_least: the least sum of each one's samples; None: being there is enough.
        labels: that samples must have; others they may have.

    Returns:
        The sum of the last one's samples.

    Raises:
        AssertionError: names the metrics that are missing or too small, and the samples there are.
    """
    page = source.exposition() if isinstance(source, MetricsRegistry) else source
    samples = _samples(page.decode() if isinstance(page, bytes) else page)
    assert wanted, "no metric was named"
    total = 0.0
    for metric in wanted:
        name = metric if isinstance(metric, str) else metric.name
        of_name = [(own, value) for sample, own, value in samples if sample in {name, f"{name}_count"}]
        fitting = [value for own, value in of_name if labels.items() <= own.items()]
        assert fitting, f"no sample of {name} has the labels {labels}; there are {[own for own, _ in of_name]}"
        total = sum(fitting)
        assert at_least is None or total >= at_least, f"{name} with {labels} is {total:g}, not at least {at_least:g}"
    return total


def assert_event_published(
    records: Iterable[PublishedRecord],
    event_type: str,
    *,
    topic: str | None = None,
    correlation_id: str | None = None,
    data: Mapping[str, Any] | None = None,
    times: int | None = None,
) -> Envelope:
    """Make sure that an event of this type is among records.

    Args:
        records: `MockKafkaProducer.sent`, outputs of a handler, or messages that a test consumed.
        event_type: as the envelope's `type`, for example `onex.evt.order-store.insert-order-completed.v1`.
        topic: its topic; a logical name fits the physical one of any realm.
        correlation_id: its conversation.
        data: fields that its payload must have; others it may have.
        times: how often it must be there; None: at least once.

    Returns:
        The first such event's envelope.

    Raises:
        AssertionError: lists the events there are.
    """
    events = [(record_topic, envelope) for record in records for record_topic, envelope in _event(record)]
    fitting = [
        envelope
        for record_topic, envelope in events
        if envelope.type == event_type
        and (topic is None or record_topic == topic or record_topic.endswith(f".{topic}"))
        and correlation_id in {None, envelope.conversation}
        and _holds(envelope, data or {})
    ]
    there = "\n  ".join(f"{where}: {one.type} {_payload(one)!r}" for where, one in events) or "none"
    wanted = f"{event_type} with topic={topic!r}, correlation_id={correlation_id!r}, data={data!r}"
    assert fitting, f"{wanted} was not published; there are:\n  {there}"
    assert times in {None, len(fitting)}, f"{wanted} was published {len(fitting)} times, not {times}:\n  {there}"
    return fitting[0]


def _event(record: PublishedRecord) -> list[tuple[str, Envelope]]:
    """Return topic and envelope; nothing for what is no event, such as the end of a retry."""
    if isinstance(record, OutboundRecord | StoredOutput):
        topic, value = record.topic, record.value
        headers = record.headers if isinstance(record, OutboundRecord) else None
    else:
        topic, value, headers = str(record.topic()), record.value(), record.headers()
    try:
        return [(topic, decode(value, headers))]
    except RecordRefusedError:
        return []


def _payload(envelope: Envelope) -> Any:
    return msgspec.json.decode(envelope.data) if bytes(envelope.data) else None


def _holds(envelope: Envelope, data: Mapping[str, Any]) -> bool:
    if not data:
        return True
    payload = _payload(envelope)
    return isinstance(payload, dict) and all(
        name in payload and payload[name] == msgspec.to_builtins(value) for name, value in data.items()
    )


def _samples(page: str) -> list[tuple[str, dict[str, str], float]]:
    found = (_SAMPLE.match(line) for line in page.splitlines() if line and not line.startswith("#"))
    return [
        (match["name"], dict(_LABEL.findall(match["labels"] or "")), float(match["value"]))
        for match in found
        if match is not None
    ]
