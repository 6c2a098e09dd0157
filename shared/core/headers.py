"""Record header names: the transport's, never the envelope's. One catalogue, used for retry and dead letters."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

CONTENT_TYPE: Final = "content-type"
CLOUDEVENTS_JSON: Final = "application/cloudevents+json"
CLOUDEVENTS_JSON_BYTES: Final = CLOUDEVENTS_JSON.encode()
STRUCTURED_HEADERS: Final[list[tuple[str, bytes]]] = [(CONTENT_TYPE, CLOUDEVENTS_JSON_BYTES)]
MAX_ERROR_MESSAGE: Final = 500


class TransportHeader(StrEnum):
    """Headers of retry and dead-letter records. Values are UTF-8 text; times are RFC 3339 in UTC."""

    ORIGINAL_TOPIC = "onex-original-topic"
    ORIGINAL_PARTITION = "onex-original-partition"
    ORIGINAL_OFFSET = "onex-original-offset"
    ORIGINAL_TIMESTAMP = "onex-original-timestamp"
    WORKER = "onex-worker"
    GROUP = "onex-group"
    ATTEMPT = "onex-attempt"
    NOT_BEFORE = "onex-not-before"
    FIRST_FAILED_AT = "onex-first-failed-at"
    FAILED_AT = "onex-failed-at"
    ERROR_CODE = "onex-error-code"
    ERROR_TYPE = "onex-error-type"
    ERROR_MESSAGE = "onex-error-message"
    ERROR_FINGERPRINT = "onex-error-fingerprint"
    REDRIVE_GROUP = "onex-redrive-group"
    REDRIVE_ID = "onex-redrive-id"
    # On a parked record: which assignment of its partition wrote it. On a marker also what it says of the record.
    PARKED_BY = "onex-parked-by"
    PARKED_STATE = "onex-parked-state"
