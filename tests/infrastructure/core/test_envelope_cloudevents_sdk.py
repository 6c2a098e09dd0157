"""The official CloudEvents SDK is the judge: what it writes we read, what we write it reads, in both modes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS

EXTENSIONS = ("correlationid", "causationid", "traceparent", "tracestate", "partitionkey", "tenantid", "replyto")
STRINGS = ("id", "source", "type", "subject", "dataschema", *EXTENSIONS)

texts = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=30)
moments = st.datetimes(timezones=st.just(UTC)).filter(lambda moment: moment.year >= 1000)
payloads = st.dictionaries(
    texts, st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), texts), st.lists), max_size=4
)
events = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": texts, "source": texts, "type": texts, "time": moments},
    optional=dict.fromkeys((*EXTENSIONS, "subject", "dataschema"), texts)
    | {"datacontenttype": st.just("application/json")},
)
ours = st.builds(
    Envelope,
    specversion=st.just("1.0"),
    time=moments.map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")),
    datacontenttype=st.just("application/json"),
    data=payloads.map(envelopes.encode_data),
    **dict.fromkeys(("id", "source", "type"), texts),
    **{name: st.one_of(st.none(), texts) for name in (*EXTENSIONS, "subject", "dataschema")},
)


def assert_equal(envelope: Envelope, event: Any) -> None:
    attributes = event.get_attributes()
    assert {name: getattr(envelope, name) for name in STRINGS} == {name: attributes.get(name) for name in STRINGS}
    assert envelope.time is not None
    assert datetime.fromisoformat(envelope.time) == attributes["time"]
    assert msgspec.json.decode(envelope.data) == event.get_data()


def read(message: KafkaMessage) -> Envelope:
    return envelopes.decode(message.value, list(message.headers.items()))


@pytest.mark.parametrize("write", [to_structured, to_binary])
@given(attributes=events, data=payloads)
def test_we_read_what_the_sdk_writes(write: Any, attributes: dict[str, Any], data: dict[str, Any]) -> None:
    event = CloudEvent(dict(attributes), data)

    envelope = read(write(event, JSONFormat()))

    assert_equal(envelope, event)


@given(ours)
def test_the_sdk_reads_what_we_write(envelope: Envelope) -> None:
    record = KafkaMessage(headers=dict(STRUCTURED_HEADERS), key=None, value=envelopes.encode(envelope))

    event = from_kafka(record, JSONFormat())

    assert isinstance(event, CloudEvent)
    assert_equal(envelope, event)


@given(ours)
def test_what_we_write_survives_the_way_through_the_sdk_and_binary_mode(envelope: Envelope) -> None:
    record = KafkaMessage(headers=dict(STRUCTURED_HEADERS), key=None, value=envelopes.encode(envelope))

    back = read(to_binary(from_kafka(record, JSONFormat()), JSONFormat()))

    assert {name: getattr(back, name) for name in STRINGS} == {name: getattr(envelope, name) for name in STRINGS}
    assert msgspec.json.decode(back.data) == msgspec.json.decode(envelope.data)


@given(ours)
def test_our_record_key_is_the_sdk_s_key_where_a_partition_key_is_given(envelope: Envelope) -> None:
    record = KafkaMessage(headers=dict(STRUCTURED_HEADERS), key=None, value=envelopes.encode(envelope))

    key = to_structured(from_kafka(record, JSONFormat()), JSONFormat()).key

    if envelope.partitionkey is not None:
        assert isinstance(key, str)
        assert envelope.record_key == key.encode()


@pytest.mark.parametrize("write", [to_structured, to_binary])
def test_json_in_bytes_arrives_as_json(write: Any) -> None:
    event = CloudEvent(
        {"id": "1", "source": "/shop", "type": "t", "datacontenttype": "application/json"}, b'{"quantity": 3}'
    )

    assert msgspec.json.decode(read(write(event, JSONFormat())).data) == {"quantity": 3}


@pytest.mark.parametrize("write", [to_structured, to_binary])
def test_an_event_without_data_arrives_without_data(write: Any) -> None:
    event = CloudEvent({"id": "1", "source": "/shop", "type": "t"})

    assert bytes(read(write(event, JSONFormat())).data) == b""


def test_a_caused_message_is_valid_to_the_sdk() -> None:
    cause = envelopes.original(source="/shop", event_type="onex.cmd.a.b.v1", data=envelopes.encode_data({"a": 1}))
    effect = envelopes.caused_by(
        cause,
        worker="a",
        source="/omnibase/dev/a",
        step="completed",
        event_type="onex.evt.a.b-completed.v1",
        data=envelopes.encode_data({"b": 2}),
        dataschema="urn:omnibase:a:ModelB:1.0.0",
        time="2026-01-31T12:00:00.000000Z",
    )

    event = from_kafka(KafkaMessage(dict(STRUCTURED_HEADERS), None, envelopes.encode(effect)), JSONFormat())

    assert event.get_attributes()["causationid"] == cause.id
    assert_equal(effect, event)
