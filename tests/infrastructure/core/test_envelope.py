"""The envelope: what is read, what is refused and with which words, what a caused message inherits."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import NO_DATA, Envelope
from omnibase_infra.shared.core.errors import InvalidEnvelopeError, UndecodableError
from omnibase_infra.shared.core.limits import DecodeLimits

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "onex.cmd.a.b.v1"}
BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/shop"), ("ce_type", b"onex.cmd.a.b.v1")]

texts = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=30)
optional = st.one_of(st.none(), texts)
times = st.one_of(st.none(), st.datetimes().map(lambda moment: moment.isoformat() + "Z"))
payloads = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=10,
)
written = st.builds(
    Envelope,
    specversion=st.just("1.0"),
    id=texts,
    source=texts,
    type=texts,
    time=times,
    subject=optional,
    datacontenttype=st.sampled_from([None, "application/json", "application/vnd.shop+json; charset=utf-8"]),
    dataschema=optional,
    correlationid=optional,
    causationid=optional,
    traceparent=optional,
    tracestate=optional,
    partitionkey=optional,
    expirytime=times,
    tenantid=optional,
    replyto=optional,
    data=st.one_of(st.just(NO_DATA), payloads.map(envelopes.encode_data)),
)


def structured(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in (REQUIRED | changes).items() if value is not ...}).encode()


def attributes(envelope: Envelope) -> dict[str, Any]:
    return {name: getattr(envelope, name) for name in Envelope.__struct_fields__ if name != "data"} | {
        "data": bytes(envelope.data)
    }


@given(written)
def test_structured_mode_reads_back_what_was_written(envelope: Envelope) -> None:
    value = envelopes.encode(envelope)

    assert attributes(envelopes.decode(value)) == attributes(envelope)
    assert envelopes.encode(envelopes.decode(value)) == value


@given(written)
def test_binary_mode_reads_the_same_envelope(envelope: Envelope) -> None:
    headers = [
        (f"ce_{name}", getattr(envelope, name).encode())
        for name in Envelope.__struct_fields__
        if name not in {"data", "data_base64", "datacontenttype"} and getattr(envelope, name) is not None
    ]
    if envelope.datacontenttype is not None:
        headers.append(("content-type", envelope.datacontenttype.encode()))

    assert attributes(envelopes.decode(bytes(envelope.data), headers)) == attributes(envelope)


def test_only_what_cloudevents_requires_is_required() -> None:
    envelope = envelopes.decode(structured())

    assert (envelope.id, envelope.conversation, envelope.record_key, envelope.sampled) == ("1", "1", None, False)
    assert bytes(envelope.data) == b""


def test_unknown_attributes_are_ignored() -> None:
    assert envelopes.decode(structured(comexampleextension=[1, 2])).id == "1"


def test_data_is_kept_byte_for_byte() -> None:
    raw = b'{"b" : 1.50, "a":\t"\\u00e9"}'
    value = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + raw + b"}"

    assert bytes(envelopes.decode(value).data) == raw
    assert raw in envelopes.encode(envelopes.decode(value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specversion": ...}, "missing required field `specversion`"),
        ({"id": ...}, "missing required field `id`"),
        ({"source": ...}, "missing required field `source`"),
        ({"type": ...}, "missing required field `type`"),
        ({"specversion": "0.3"}, "'specversion' is '0.3', expected '1.0'"),
        ({"id": ""}, "'id' is empty"),
        ({"source": ""}, "'source' is empty"),
        ({"type": ""}, "'type' is empty"),
        ({"id": 7}, r"`\$\.id`"),
        ({"subject": 7}, r"`\$\.subject`"),
        ({"correlationid": {}}, r"`\$\.correlationid`"),
        ({"id": "x" * 2048}, "more than 2048 characters"),
        ({"time": "yesterday"}, "'time' is 'yesterday', expected RFC 3339"),
        ({"time": "2026-01-31T12:00:00"}, "'time' is"),
        ({"expirytime": "2026-W05-6T12:00:00Z"}, "'expirytime' is"),
        ({"datacontenttype": "text/plain"}, "'datacontenttype' is 'text/plain'"),
        ({"id": "a\x00b"}, r"'id' holds the control character U\+0000"),
        ({"subject": "a\nb"}, r"'subject' holds the control character U\+000A"),
        ({"correlationid": "a\x7fb"}, r"'correlationid' holds the control character U\+007F"),
        ({"partitionkey": "a\x85b"}, r"'partitionkey' holds the control character U\+0085"),
        ({"data": {}, "data_base64": "e30="}, "'data' and 'data_base64' are both present"),
        ({"data_base64": "§"}, "'data_base64' is not base64"),
    ],
)
def test_a_refused_envelope_says_which_attribute(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidEnvelopeError, match=message):
        envelopes.decode(structured(**changes))


@pytest.mark.parametrize("value", [b"[]", b"7", b'"text"', b"null", b"[{}]"])
def test_json_that_is_no_object_is_no_envelope(value: bytes) -> None:
    with pytest.raises(InvalidEnvelopeError, match="not a CloudEvents"):
        envelopes.decode(value)


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff\xfe", b'{"id":"1","id":"2"}'])
def test_what_is_not_json_is_undecodable(value: bytes | None) -> None:
    with pytest.raises(UndecodableError):
        envelopes.decode(value)


def test_raw_control_characters_beyond_ascii_are_found_without_an_escape() -> None:
    value = json.dumps(REQUIRED | {"subject": "a\x9fb"}, ensure_ascii=False).encode()
    with pytest.raises(InvalidEnvelopeError, match=r"U\+009F"):
        envelopes.decode(value)


def test_control_characters_are_welcome_in_data() -> None:
    assert json.loads(bytes(envelopes.decode(structured(data="a\n\x00")).data)) == "a\n\x00"


def test_base64_data_is_decoded_and_held_to_the_same_limits() -> None:
    envelope = envelopes.decode(structured(data_base64=base64.b64encode(b'{"a": 1}').decode()))
    assert (bytes(envelope.data), envelope.data_base64) == (b'{"a": 1}', None)

    assert envelopes.decode(structured(data_base64="")).data is NO_DATA
    with pytest.raises(UndecodableError, match="appears twice"):
        envelopes.decode(structured(data_base64=base64.b64encode(b'{"a":1,"a":2}').decode()))
    with pytest.raises(UndecodableError, match="levels deep"):
        envelopes.decode(structured(data_base64=base64.b64encode(b"[" * 65 + b"]" * 65).decode()))


@pytest.mark.parametrize("content_type", ["text/json", "Application/JSON", "application/vnd.shop+json;charset=utf-8"])
def test_every_json_content_type_is_taken(content_type: str) -> None:
    assert envelopes.decode(structured(datacontenttype=content_type)).datacontenttype == content_type


def test_binary_mode_takes_attributes_as_they_are_written() -> None:
    headers = [*BINARY, ("ce_subject", "50%25 für Ada".encode()), ("CE_CorrelationID", b"c"), ("other", None)]

    envelope = envelopes.decode(b'{"a":1}', headers)

    assert envelope.subject == "50%25 für Ada"
    assert envelope.correlationid == "c"
    assert bytes(envelope.data) == b'{"a":1}'


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (BINARY[1:], "header 'ce_specversion' is missing"),
        (BINARY[:1], "header 'ce_id' is missing"),
        ([*BINARY, ("ce_id", b"2")], "header 'ce_id' appears twice"),
        ([*BINARY, ("ce_subject", b"\xff")], "header 'ce_subject' is not UTF-8"),
        ([*BINARY, ("ce_subject", b"a\x00")], "'subject' holds the control character"),
        ([*BINARY, ("ce_time", b"soon")], "'time' is 'soon'"),
        ([*BINARY, ("content-type", b"application/avro")], "'datacontenttype' is 'application/avro'"),
    ],
)
def test_a_refused_binary_record_says_which_header(headers: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(InvalidEnvelopeError, match=message):
        envelopes.decode(b"{}", headers)


def test_headers_cannot_smuggle_data_past_the_limits() -> None:
    envelope = envelopes.decode(b"1", [*BINARY, ("ce_data", b"{"), ("ce_data_base64", b"e30=")])

    assert (bytes(envelope.data), envelope.data_base64) == (b"1", None)
    with pytest.raises(UndecodableError, match="bytes, at most 3"):
        envelopes.decode(b"12345", BINARY, DecodeLimits(max_bytes=3))


@pytest.mark.parametrize("value", [None, b""])
def test_a_binary_record_may_have_no_data(value: bytes | None) -> None:
    envelope = envelopes.decode(value, BINARY)

    assert envelope.data is NO_DATA
    assert b'"data"' not in envelopes.encode(envelope)


@pytest.mark.parametrize("content_type", [b"application/cloudevents+json", b"Application/CloudEvents+JSON; charset=x"])
def test_a_structured_content_type_wins_over_stray_binary_headers(content_type: bytes) -> None:
    headers = [("ce_id", b"other"), ("content-type", content_type)]

    assert envelopes.decode(structured(), headers).id == "1"


def test_an_envelope_with_empty_data_is_written_without_it() -> None:
    envelope = envelopes.original(source="/s", event_type="t", data=msgspec.Raw(b""))

    assert envelopes.decode(envelopes.encode(envelope)).data is NO_DATA


def test_an_original_message_is_the_root_of_its_conversation() -> None:
    envelope = envelopes.original(source="/s", event_type="t", data=envelopes.encode_data({"a": 1}), now=0.0)

    assert envelope.correlationid == envelope.id
    assert envelope.causationid is None
    assert (envelope.time, envelope.datacontenttype) == ("1970-01-01T00:00:00.000000Z", "application/json")


def caused(cause: Envelope, **changes: Any) -> Envelope:
    parts: dict[str, Any] = {
        "worker": "w",
        "source": "/omnibase/dev/w",
        "step": "completed",
        "event_type": "onex.evt.w.done.v1",
        "data": envelopes.encode_data({}),
        "dataschema": "urn:omnibase:w:M:1.0.0",
        "time": "2026-01-31T12:00:00Z",
    }
    return envelopes.caused_by(cause, **(parts | changes))


@given(written)
def test_a_caused_message_continues_the_conversation_and_repeats_itself(cause: Envelope) -> None:
    effect = caused(cause)

    assert effect.id == caused(cause).id != cause.id
    assert effect.causationid == cause.id
    assert effect.correlationid == (cause.correlationid or cause.id)
    assert effect.record_key == cause.record_key
    assert (effect.traceparent, effect.tracestate, effect.tenantid) == (
        cause.traceparent,
        cause.tracestate,
        cause.tenantid,
    )
    assert (effect.expirytime, effect.replyto) == (None, None)


@pytest.mark.parametrize("change", [{"worker": "x"}, {"step": "x"}, {"index": 1}, {"redrive_id": "x"}])
def test_every_output_of_a_message_has_its_own_id(change: dict[str, Any]) -> None:
    cause = envelopes.decode(structured())

    assert caused(cause, **change).id != caused(cause).id


@pytest.mark.parametrize(
    ("partitionkey", "subject", "key"),
    [("p", "s", b"p"), (None, "s", b"s"), (None, None, None), ("", "s", b""), (None, "é", "é".encode())],
)
def test_the_record_key_is_the_partition_key_else_the_subject(
    partitionkey: str | None, subject: str | None, key: bytes | None
) -> None:
    envelope = msgspec.structs.replace(envelopes.decode(structured()), partitionkey=partitionkey, subject=subject)

    assert envelope.record_key == key


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False), ("03", True), ("02", False), ("ff", True)])
def test_the_sampled_flag_is_read_from_the_trace_parent(flags: str, sampled: bool) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-{flags}"

    assert envelopes.decode(structured(traceparent=parent)).sampled is sampled
    assert envelopes.decode(structured(traceparent=parent[:54])).sampled is False
