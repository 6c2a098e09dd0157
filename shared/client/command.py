"""A command as callers give it, and as it goes over the wire."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from omnibase_infra.shared.client.node_interface import OperationInterface
from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import InvalidPayloadError, UndecodableError
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.observability.active_trace import current_traceparent


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command for `publish_many`.

    Attributes:
        payload: an instance of the request model, plain data, or JSON as text or bytes.
        key: commands of one key are run in the order they were sent; default: the subject, else none shares it.
        subject: what the command is about.
        correlationid: of the conversation it belongs to; default: it begins one.
        traceparent: W3C trace context that it continues; default: that of the active span, in a handler or in a program
            that traces by OpenTelemetry.
    """

    payload: Any
    key: str | None = None
    subject: str | None = None
    correlationid: str | None = None
    traceparent: str | None = None


class CommandWriter:
    """Writes the envelopes and records of commands from one source."""

    def __init__(self, realm: Realm, sender: str) -> None:
        self._source = realm.source(sender)
        self._tenant = realm.tenant or None

    def write(
        self, target: OperationInterface, command: Command, data: msgspec.Raw, expires_in: float | None
    ) -> tuple[Envelope, OutboundRecord]:
        """Return the envelope of a command and the record that carries it.

        Args:
            target: the operation.
            command: its payload is not looked at.
            data: the payload, checked and encoded.
            expires_in: seconds from now after which it is not run; None: never.

        Raises:
            InvalidPayloadError: the whole is more than the worker decodes.
        """
        now = time.time()
        envelope = envelopes.original(
            source=self._source,
            event_type=target.spec.event_type,
            data=data,
            dataschema=target.spec.request_schema or None,
            subject=command.subject,
            correlationid=command.correlationid,
            partitionkey=command.key,
            expirytime=None if expires_in is None else clock.rfc3339(now + expires_in),
            tenantid=self._tenant,
            traceparent=command.traceparent or current_traceparent(),
            now=now,
        )
        value = envelopes.encode(envelope)
        try:
            target.limits.check(value)
        except UndecodableError as error:
            raise InvalidPayloadError(f"the worker would refuse the command: {error.message}") from None
        key = envelope.record_key
        # A key of its own: spread over the partitions, in order with nothing.
        record_key = envelope.id.encode() if key is None else key
        return envelope, OutboundRecord(target.spec.topic, value, record_key, STRUCTURED_HEADERS)
