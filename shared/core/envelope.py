"""The one envelope: CloudEvents 1.0 in structured JSON mode, read in binary mode as well.

`data` stays raw bytes until the handler's own model decodes it. Only the attributes that CloudEvents itself
requires are required of outside producers; ours are derived where they are missing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from omnibase_infra.shared.core import clock, ids
from omnibase_infra.shared.core.errors import InvalidEnvelopeError
from omnibase_infra.shared.core.headers import CONTENT_TYPE, STRUCTURED_HEADERS
from omnibase_infra.shared.core.limits import DecodeLimits

SPECVERSION: Final = "1.0"
JSON_CONTENT_TYPE: Final = "application/json"
MAX_ATTRIBUTE: Final = 2048
# The default by identity, so that an envelope without data is written without the attribute.
NO_DATA: Final = msgspec.Raw(b"")
_STRUCTURED_PREFIX: Final = "application/cloudevents"
# CloudEvents strings hold no control characters; PostgreSQL text, log lines and headers could not, either.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_BINARY_PREFIX: Final = "ce_"
_REQUIRED: Final = ("specversion", "id", "source", "type")


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One event. Times are RFC 3339 strings in UTC, as they came.

    Attributes:
        id: unique together with `source`.
        type: logical name of what it is, for example `onex.cmd.postgres-adapter.execute-statement.v1`.
        data: the payload's bytes, JSON.
        correlationid: the whole conversation; `conversation` falls back to the id.
        causationid: the id of the message that caused this one; absent on a root.
        expirytime: past it a command is answered `expired` and not run.
        replyto: logical topic for the answer, allowed only where the contract lists it.
    """

    # Required in the encoded form even though it equals the default, hence no default here.
    specversion: str
    id: str
    source: str
    type: str
    time: str | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    partitionkey: str | None = None
    expirytime: str | None = None
    tenantid: str | None = None
    replyto: str | None = None
    data_base64: str | None = None
    data: msgspec.Raw = NO_DATA

    @property
    def conversation(self) -> str:
        """Return the correlation id, or the message's own id where its producer gave none."""
        return self.correlationid or self.id

    @property
    def record_key(self) -> bytes | None:
        """Return the record key: `partitionkey`, else `subject`, else none."""
        key = self.partitionkey if self.partitionkey is not None else self.subject
        return None if key is None else key.encode()

    @property
    def sampled(self) -> bool:
        """Return whether the trace parent's sampled flag is set: a flag test, no parsing."""
        parent = self.traceparent
        return parent is not None and len(parent) >= 55 and parent[54] in "13579bdf"


_DECODER: Final = msgspec.json.Decoder(Envelope)
_ENCODER: Final = msgspec.json.Encoder()


def decode(
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]] | None = None,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
) -> Envelope:
    """Decode a record's value, in structured mode unless `ce_` headers say binary mode.

    Raises:
        UndecodableError: not strict JSON within the limits.
        InvalidEnvelopeError: JSON, but not an envelope; the message says which attribute.
    """
    # Most records carry exactly the header that this project writes.
    if headers and headers != STRUCTURED_HEADERS:
        binary = _binary_attributes(headers)
        if binary is not None:
            return _decode_binary(value, binary, limits)
    if value is None:
        value = b""
    limits.check(value)
    try:
        envelope = _DECODER.decode(value)
    except msgspec.ValidationError as error:
        raise InvalidEnvelopeError(f"not a CloudEvents 1.0 envelope: {error}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidEnvelopeError(f"not a CloudEvents 1.0 envelope: {error}") from None
    _check(envelope)
    # Plain ASCII without an escape cannot hold a control character; most records are that.
    if b"\\" in value or b"\x7f" in value or not value.isascii():
        _check_characters(envelope)
    return envelope if envelope.data_base64 is None else _from_base64(envelope, limits)


def is_binary(headers: Iterable[tuple[str, bytes | None]] | None) -> bool:
    """Return whether the headers hold attributes of CloudEvents binary mode; without them a null value says nothing."""
    return headers is not None and any(name.lower().startswith(_BINARY_PREFIX) for name, _ in headers)


def encode(envelope: Envelope) -> bytes:
    """Return the envelope in structured JSON mode (content type `application/cloudevents+json`)."""
    if envelope.data is not NO_DATA and not bytes(envelope.data):
        envelope = msgspec.structs.replace(envelope, data=NO_DATA)
    return _ENCODER.encode(envelope)


def encode_data(payload: Any) -> msgspec.Raw:
    """Return a payload model, or plain data, as the raw JSON that `Envelope.data` holds."""
    return msgspec.Raw(_ENCODER.encode(payload))


def original(  # noqa: PLR0913 - the envelope's own attributes
    *,
    source: str,
    event_type: str,
    data: msgspec.Raw,
    dataschema: str | None = None,
    subject: str | None = None,
    correlationid: str | None = None,
    partitionkey: str | None = None,
    expirytime: str | None = None,
    tenantid: str | None = None,
    replyto: str | None = None,
    traceparent: str | None = None,
    now: float | None = None,
) -> Envelope:
    """Return a new root message with a UUIDv7 id; the conversation is the message's own unless given."""
    message_id = ids.original_id()
    return Envelope(
        specversion=SPECVERSION,
        id=message_id,
        source=source,
        type=event_type,
        time=clock.rfc3339(clock.SystemClock().time() if now is None else now),
        subject=subject,
        datacontenttype=JSON_CONTENT_TYPE,
        dataschema=dataschema,
        correlationid=correlationid or message_id,
        partitionkey=partitionkey,
        expirytime=expirytime,
        tenantid=tenantid,
        replyto=replyto,
        traceparent=traceparent,
        data=data,
    )


def caused_by(  # noqa: PLR0913 - the wire page names these parts
    cause: Envelope,
    *,
    worker: str,
    source: str,
    step: str,
    event_type: str,
    data: msgspec.Raw,
    dataschema: str | None,
    time: str,
    index: int = 0,
    redrive_id: str = "",
) -> Envelope:
    """Return a message that `cause` led to: its id is derived, so that a redelivery produces the same one."""
    return Envelope(
        specversion=SPECVERSION,
        id=ids.derived_id(
            source=cause.source,
            cause_id=cause.id,
            worker=worker,
            step=step,
            index=index,
            event_type=event_type,
            redrive_id=redrive_id,
        ),
        source=source,
        type=event_type,
        time=time,
        subject=cause.subject,
        datacontenttype=JSON_CONTENT_TYPE,
        dataschema=dataschema,
        correlationid=cause.conversation,
        causationid=cause.id,
        traceparent=cause.traceparent,
        tracestate=cause.tracestate,
        partitionkey=cause.partitionkey,
        tenantid=cause.tenantid,
        data=data,
    )


def _check(envelope: Envelope) -> None:
    """Check what the types do not say: the CloudEvents version, empty and overlong attributes."""
    if envelope.specversion != SPECVERSION:
        raise InvalidEnvelopeError(f"attribute 'specversion' is {envelope.specversion[:20]!r}, expected '1.0'")
    if not envelope.id or not envelope.source or not envelope.type:
        name = "id" if not envelope.id else "source" if not envelope.source else "type"
        raise InvalidEnvelopeError(f"attribute {name!r} is empty, CloudEvents 1.0 requires a value")
    if len(envelope.id) + len(envelope.source) + len(envelope.type) > MAX_ATTRIBUTE:
        raise InvalidEnvelopeError(
            f"attributes 'id', 'source' and 'type' have more than {MAX_ATTRIBUTE} characters in all"
        )
    if envelope.time is not None:
        _check_time("time", envelope.time)
    if envelope.expirytime is not None:
        _check_time("expirytime", envelope.expirytime)
    content_type = envelope.datacontenttype
    if content_type is not None and content_type != JSON_CONTENT_TYPE and not _is_json(content_type):
        raise InvalidEnvelopeError(f"attribute 'datacontenttype' is {content_type[:80]!r}, expected 'application/json'")


def _check_characters(envelope: Envelope) -> None:
    for name in _TEXT_FIELDS:
        text = getattr(envelope, name)
        if text is not None and not text.isprintable() and (found := _CONTROL.search(text)):
            raise InvalidEnvelopeError(
                f"attribute {name!r} holds the control character U+{ord(found[0]):04X}, CloudEvents allows none"
            )


def _check_time(name: str, value: str) -> None:
    try:
        clock.parse_rfc3339(value)
    except ValueError:
        raise InvalidEnvelopeError(
            f"attribute {name!r} is {value[:40]!r}, expected RFC 3339 with a zone, for example 2026-01-31T12:00:00Z"
        ) from None


def _is_json(content_type: str) -> bool:
    essence = content_type.partition(";")[0].strip().lower()
    return essence.endswith(("/json", "+json"))


def _from_base64(envelope: Envelope, limits: DecodeLimits) -> Envelope:
    """Return the envelope with `data_base64` decoded to `data`; CloudEvents allows one of the two."""
    if bytes(envelope.data):
        raise InvalidEnvelopeError("attributes 'data' and 'data_base64' are both present, CloudEvents allows one")
    try:
        data = base64.b64decode(envelope.data_base64 or "", validate=True)
    except ValueError:
        raise InvalidEnvelopeError("attribute 'data_base64' is not base64") from None
    if data:
        limits.check(data)
    return msgspec.structs.replace(envelope, data=msgspec.Raw(data) if data else NO_DATA, data_base64=None)


def _binary_attributes(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str] | None:
    """Return the attributes of binary mode (Kafka protocol binding, section 3.2), or None in structured mode."""
    found: list[tuple[str, bytes]] = []
    declared = ""
    for name, value in headers:
        lowered = name.lower()
        if lowered == CONTENT_TYPE:
            declared = (value or b"").decode("latin-1")
        elif lowered.startswith(_BINARY_PREFIX) and value is not None:
            found.append((lowered.removeprefix(_BINARY_PREFIX), value))
    if not found or declared.lower().startswith(_STRUCTURED_PREFIX):
        return None
    attributes: dict[str, str] = {}
    for name, value in found:
        if name in attributes:
            raise InvalidEnvelopeError(f"header 'ce_{name[:80]}' appears twice")
        try:
            # As it is: the Kafka binding has no percent-encoding, unlike the HTTP binding.
            attributes[name] = value.decode()
        except UnicodeDecodeError:
            raise InvalidEnvelopeError(f"header 'ce_{name[:80]}' is not UTF-8") from None
    if declared:
        attributes["datacontenttype"] = declared
    return attributes


def _decode_binary(value: bytes | None, attributes: Mapping[str, str], limits: DecodeLimits) -> Envelope:
    for name in _REQUIRED:
        if name not in attributes:
            raise InvalidEnvelopeError(f"header 'ce_{name}' is missing, CloudEvents binary mode requires it")
    data = b"" if value is None else value
    if data:
        limits.check(data)
    known = {name: text for name, text in attributes.items() if name in _BINARY_FIELDS}
    envelope = Envelope(**known, data=msgspec.Raw(data) if data else NO_DATA)
    _check(envelope)
    _check_characters(envelope)
    return envelope


_BINARY_FIELDS: Final = frozenset(Envelope.__struct_fields__) - {"data", "data_base64"}
_TEXT_FIELDS: Final = tuple(name for name in Envelope.__struct_fields__ if name in _BINARY_FIELDS)
