"""The `failed` answer to a command that intake refused and whose envelope can be read, so that nobody waits for ever."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from omnibase_infra.shared.core import clock
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import IdReusedError, RecordRefusedError, error_code
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.redaction import sanitised
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.records import Record
from omnibase_infra.shared.runtime.unknown_operation import unknown_operation_spec

# Part of the ids: a refused copy of a message that ran must not have its answer's id.
REFUSED: Final = "refused"


class RefusalAnswers:
    """Builds the answers that go with the dead letters of refused commands. Nothing of it is stored.

    A refused record claims no place in the inbox: one of another realm would take it from the real one. Refused again
    after a crash, it gives an answer of the same id.
    """

    def __init__(self, spec: WorkerSpec, realm: Realm, answers: Answers) -> None:
        """Args:
        spec / answers: of the worker.
        realm: whose tenant the answers carry, whatever the command says.
        """
        self._answers = answers
        self._tenant = realm.tenant or None
        self._reply_topics = frozenset(spec.reply_topics)
        self._command_topics = frozenset(topic for topic in spec.subscribe if TopicName.parse(topic).kind == "cmd")
        self._unknown = msgspec.structs.replace(unknown_operation_spec(spec), name=REFUSED)
        self._known = {
            (one.topic, one.event_type): msgspec.structs.replace(
                self._unknown,
                failed_type=one.failed_type,
                failed_schema=one.failed_schema,
                answer_topic=one.answer_topic,
            )
            for one in spec.operations
        }
        # Whoever asks for another version waits for an answer of that version.
        self._other_versions = {
            (topic, _without_version(event_type)): msgspec.structs.replace(answering, failed_type="")
            for (topic, event_type), answering in self._known.items()
        }

    def of(self, record: Record, error: BaseException) -> tuple[OutboundRecord, ...]:
        """Return the answer to a refused record, if it gets one.

        None to what could not be read, is no command, or asks for an operation that never answers; none to a reused id,
        whose first message has its own; none where it would be larger than what may be published.
        """
        envelope: Envelope | None = record.envelope
        topic = record.work.source_topic
        if envelope is None or topic not in self._command_topics or isinstance(error, IdReusedError):
            return ()
        asked = Record(record.work, record.offset, record.timestamp_ms, record.key, None, None)
        asked.envelope, asked.origin, asked.attempts = self._answerable(envelope), record.origin, record.attempts
        answers = self._answers.of(
            asked, self._answering(topic, envelope.type), _failure(record, error), clock.rfc3339(time.time())
        )
        return tuple(
            OutboundRecord(one.topic, one.value, one.key, STRUCTURED_HEADERS)
            for one in answers
            if len(one.value) + len(one.key or b"") <= self._answers.max_bytes
        )

    def _answering(self, topic: str, event_type: str) -> OperationSpec:
        known = self._known.get((topic, event_type))
        return known or self._other_versions.get((topic, _without_version(event_type)), self._unknown)

    def _answerable(self, envelope: Envelope) -> Envelope:
        """Return the envelope without what the answer must not take from it: a topic or a tenant that is not ours."""
        replyto = envelope.replyto if envelope.replyto in self._reply_topics else None
        return msgspec.structs.replace(envelope, replyto=replyto, tenantid=self._tenant)


def _without_version(event_type: str) -> str:
    return event_type.rpartition(".")[0]


def _failure(record: Record, error: BaseException) -> OperationFailed:
    """Return what the answer says. The text of an error that is a fault of ours stays in the dead letter."""
    known = isinstance(error, RecordRefusedError)
    return OperationFailed(
        code=error_code(error),
        message=sanitised(str(error)) if known else "could not be taken in; its dead letter says why",
        retryable=False,
        attempts=record.attempts,
    )
