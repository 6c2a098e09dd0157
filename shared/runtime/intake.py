"""Intake: turn consumed bytes into records of a lane, or into refusals. No I/O, no awaits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import (
    ForbiddenError,
    InvalidEnvelopeError,
    InvalidNameError,
    UnsupportedVersionError,
)
from omnibase_infra.shared.core.limits import DecodeLimits
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import Record

_OWN_SOURCES: Final = "/omnibase/"


class Ignored(Exception):  # noqa: N818 - a control signal, no error
    """The record asks nothing of this worker: a tombstone, or an event type it does not handle."""


class Intake:
    """Decodes envelopes and finds the lane of each record.

    A record of a command topic whose operation the contract lacks goes to the `unknown` lane, which answers it.
    """

    def __init__(self, spec: WorkerSpec, realm: Realm, lanes: Mapping[str, Lane], unknown: Lane) -> None:
        self._spec = spec
        self._limits = DecodeLimits(spec.max_record_bytes, spec.max_depth, spec.max_fields)
        self._tenant = realm.tenant or None
        self._realm_source = f"{_OWN_SOURCES}{realm}/"
        self._reply_topics = frozenset(spec.reply_topics)
        self._unknown = unknown
        self._by_topic: dict[str, dict[str, Lane]] = {topic: {} for topic in spec.subscribe}
        for operation in spec.operations:
            self._by_topic[operation.topic][operation.event_type] = lanes[operation.name]
        self._command_topics = {topic for topic in spec.subscribe if TopicName.parse(topic).kind == "cmd"}

    def admit(self, record: Record) -> None:
        """Decode the record's envelope and set its lane.

        Raises:
            RecordRefusedError: for the dead-letter topic; the code says why.
            Ignored: nothing to do, the record is finished.
        """
        if record.value is None and not envelopes.is_binary(record.headers):
            raise Ignored
        envelope = envelopes.decode(record.value, record.headers, self._limits)
        record.envelope = envelope
        self._check_place(envelope)
        topic = record.work.source_topic
        lane = self._by_topic[topic].get(envelope.type)
        record.lane = lane if lane is not None else self._without_operation(topic, envelope)

    def _check_place(self, envelope: Envelope) -> None:
        """Refuse what belongs to another realm or tenant, or wants its answer where none may go."""
        source = envelope.source
        if not source.startswith(self._realm_source) and source.startswith(_OWN_SOURCES):
            raise ForbiddenError(f"source {source[:120]!r} is of another realm, expected {self._realm_source!r}…")
        if envelope.tenantid is not None and envelope.tenantid != self._tenant:
            raise ForbiddenError(f"tenantid {envelope.tenantid[:60]!r} is not this realm's tenant")
        if envelope.replyto is not None and envelope.replyto not in self._reply_topics:
            raise ForbiddenError(
                f"replyto {envelope.replyto[:120]!r} is not in the contract's event_bus.reply_topics",
                hint="leave it out, or list the topic in the contract",
            )

    def _without_operation(self, topic: str, envelope: Envelope) -> Lane:
        """Say what a type without an operation is: an unknown version, an unknown operation, or not for us."""
        try:
            name = TopicName.parse(envelope.type)
        except InvalidNameError as error:
            if topic in self._command_topics:
                raise InvalidEnvelopeError(f"attribute 'type': {error}") from None
            raise Ignored from None
        for operation_type in self._by_topic[topic]:
            known = TopicName.parse(operation_type)
            same = (known.kind, known.producer, known.event) == (name.kind, name.producer, name.event)
            if same:
                raise UnsupportedVersionError(
                    f"type {envelope.type!r} has major version {name.version}, this worker knows {known.version}"
                )
        if topic not in self._command_topics:
            raise Ignored
        return self._unknown
