"""Answers: the evt that replies to a cmd, with an id derived from the command."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import BusinessError, InvalidNameError
from omnibase_infra.shared.core.naming import Realm, TopicName, operation_type
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.ports import StoredOutput
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.runtime.records import Record

UNKNOWN_OPERATION: Final = "unknown_operation"


class Answers:
    """Builds the answers of one worker.

    Attributes:
        max_bytes: of an answer with its key.
    """

    def __init__(self, spec: WorkerSpec, realm: Realm, max_bytes: int | None = None) -> None:
        """Args:
        spec: whose answers.
        realm: names the source.
        max_bytes: of an answer with its key; default: the largest record the worker itself would read.
        """
        self._spec = spec
        self._source = realm.source(spec.worker)
        self.max_bytes = spec.max_record_bytes if max_bytes is None else min(max_bytes, spec.max_record_bytes)

    def of(self, record: Record, operation: OperationSpec, outcome: Any, time: str) -> tuple[StoredOutput, ...]:
        """Return the answer to a record, none for a one-way operation. `time` is RFC 3339.

        Raises:
            BusinessError: it is larger than a record may be. Sent, it would be refused for ever; so the effect is
                rolled back where that can be done, and the command is answered `failed`.
        """
        if not operation.answer_topic:
            return ()
        cause = record.envelope
        if isinstance(outcome, OperationFailed):
            event_type = operation.failed_type or self._failed_type(cause)
            schema = operation.failed_schema
            data = envelopes.encode_data(_error_response(outcome, record.attempts + 1))
        else:
            event_type, schema = operation.completed_type, operation.completed_schema
            data = envelopes.encode_data(outcome)
        answer = self._output(record, operation, event_type, schema, data, time)
        size = len(answer.value) + len(answer.key or b"")
        if size > self.max_bytes and not isinstance(outcome, OperationFailed):
            raise BusinessError(
                f"{operation.name}: the answer has {size} bytes, at most {self.max_bytes} are published",
                code="answer-too-large",
                details={"bytes": str(size), "limit": str(self.max_bytes)},
            )
        return (answer,)

    def _output(
        self, record: Record, operation: OperationSpec, event_type: str, schema: str, data: msgspec.Raw, time: str
    ) -> StoredOutput:
        cause = record.envelope
        answer = envelopes.caused_by(
            cause,
            worker=self._spec.worker,
            source=self._source,
            step=f"{operation.name}.answer",
            event_type=event_type,
            data=data,
            dataschema=schema or None,
            time=time,
            redrive_id=record.redrive_id,
        )
        return StoredOutput(cause.replyto or operation.answer_topic, record.key, envelopes.encode(answer))

    def _failed_type(self, cause: Envelope) -> str:
        """Return the type of the failed answer to an operation the contract lacks."""
        try:
            asked = TopicName.parse(cause.type)
            return str(operation_type("evt", self._spec.worker, asked.event, "failed", asked.version))
        except InvalidNameError:
            return str(operation_type("evt", self._spec.worker, UNKNOWN_OPERATION, "failed"))


def _error_response(failed: OperationFailed, attempts: int) -> ModelErrorResponse:
    return ModelErrorResponse(
        code=failed.code,
        message=failed.message,
        retryable=failed.retryable,
        details=failed.details,
        dependency=failed.dependency,
        attempts=failed.attempts or attempts,
    )
