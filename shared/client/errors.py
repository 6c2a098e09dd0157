"""What a caller of the client may meet besides the errors of `core.errors`. Light: the command line imports it, too."""

from __future__ import annotations

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import ClientError
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse


class AnsweredFailedError(ClientError):
    """The worker answered that it could not do the command.

    Attributes:
        response: why, in the worker's words; `response.retryable` says whether sending it again may work.
        envelope: the answer as it came.
    """

    code = "answered-failed"

    def __init__(self, operation: str, response: ModelErrorResponse, envelope: Envelope) -> None:
        super().__init__(f"{operation} was answered failed: {response.code}: {response.message}")
        self.response = response
        self.envelope = envelope


class InvalidAnswerError(ClientError):
    """An answer came and cannot be read by the models this program has."""

    code = "invalid-answer"


class AnswersLostError(ClientError):
    """Answers can no longer be read, so those that are awaited will not be seen; the commands may still run."""

    code = "answers-lost"
    retryable = True


class ClientClosedError(ClientError):
    """The client was closed, before the call or while it waited."""

    code = "client-closed"
