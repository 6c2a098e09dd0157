"""Shows a record of a topic to people, and as one JSON line to programs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from omnibase_infra.shared.client.tail import TailedRecord
from omnibase_infra.shared.core.headers import CONTENT_TYPE, TransportHeader

# A screen of text. Programs get everything, people a beginning.
SHOWN_CHARACTERS: Final = 2000

_ERROR: Final = (TransportHeader.ERROR_CODE, TransportHeader.ERROR_MESSAGE)
_PLACE: Final = (
    TransportHeader.ORIGINAL_TOPIC,
    TransportHeader.ORIGINAL_PARTITION,
    TransportHeader.ORIGINAL_OFFSET,
)


def record_lines(record: TailedRecord) -> Iterator[str]:
    """Yield the lines that show a record: when, what, where; then who it belongs to; then the payload."""
    envelope = record.envelope
    what = envelope.type if envelope is not None else f"not an envelope: {record.problem}"
    key = "" if record.key is None else f"  key={_text(record.key)}"
    yield f"{_time(record.timestamp_ms)}  {what}{key}  {record.topic}[{record.partition}]@{record.offset}"
    if envelope is not None:
        cause = f"  cause={envelope.causationid}" if envelope.causationid else ""
        yield f"  id={envelope.id}  correlation={envelope.conversation}{cause}"
    yield from _header_lines(record)
    payload = bytes(envelope.data) if envelope is not None else record.value
    if payload is None:
        yield "  no value (tombstone)"
    elif payload:
        yield f"  {_cut(_text(payload))}"


def record_json(record: TailedRecord) -> dict[str, Any]:
    """Return a record as `tail --json` prints it. Bytes that are not UTF-8 come as `…_base64`."""
    content: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": None if record.timestamp_ms < 0 else _rfc3339(record.timestamp_ms),
        **_bytes_json("key", record.key),
        "headers": dict(_headers(record)),
        "envelope": record.envelope,
    }
    if record.envelope is None:
        content |= {"problem": record.problem, **_bytes_json("value", record.value)}
    return content


def _header_lines(record: TailedRecord) -> Iterator[str]:
    """Yield the transport headers of a dead letter, the reason and the place first."""
    headers = dict(_headers(record))
    headers.pop(CONTENT_TYPE, None)
    if all(name in headers for name in _ERROR):
        code, message = (headers.pop(name) for name in _ERROR)
        yield f"  dead: {code}: {message}"
    if all(name in headers for name in _PLACE):
        topic, partition, offset = (headers.pop(name) for name in _PLACE)
        yield f"  from: {topic}[{partition}]@{offset}"
    if headers:
        yield "  " + "  ".join(f"{name.removeprefix('onex-')}={value}" for name, value in headers.items())


def _headers(record: TailedRecord) -> Iterator[tuple[str, str]]:
    for name, value in record.headers:
        yield name, "" if value is None else _text(value)


def _bytes_json(name: str, value: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value or b"").decode()}


def _text(value: bytes) -> str:
    """Return bytes as one line of text: what is not UTF-8 or not printable is escaped, so no terminal obeys it."""
    text = value.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


def _time(timestamp_ms: int) -> str:
    return "-" if timestamp_ms < 0 else _rfc3339(timestamp_ms)


def _rfc3339(timestamp_ms: int) -> str:
    moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
