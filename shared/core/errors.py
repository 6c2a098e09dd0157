"""The one error tree. What happened, where, is it worth trying again, what to do.

    OmnibaseError
    ├── ConfigurationError            wrong before any work started; the process exits with 2
    │   ├── SettingsError             an environment variable is missing or malformed
    │   ├── InvalidNameError          a topic, realm, worker or group name breaks the grammar
    │   ├── ContractError             a contract has problems, each with file:line:col
    │   ├── GenerationDriftError      generated files differ from what their contract says
    │   ├── UnknownNodeError          no such node
    │   ├── TopicNotDeclaredError     a worker reached for a topic its contract does not list
    │   ├── TopicMissingError         a declared topic does not exist on the cluster
    │   ├── TopicReplacedError        a topic was deleted and made anew under offsets of the old one
    │   ├── OffsetMissingError        a group has no committed offset where it must have one
    │   ├── OffsetOutOfRangeError     a committed offset points outside the log
    │   ├── CorruptLogError           records of a topic cannot be read by the Kafka client
    │   ├── KafkaAccessError          a broker and this process do not agree on TLS, or on who we are
    │   └── SchemaMissingError        the database lacks a table or statement the worker needs
    ├── ServiceStartError             a service of the process did not start; its cause says why
    ├── ClusterRefusedError           the Kafka cluster understood an administrative request and said no
    │   └── GroupInUseError           offsets of a group cannot be changed while it has members
    ├── LocalServiceError             a local server could not be started or stopped
    ├── RecordRefusedError            bytes no handler may see; the record goes to the dead-letter topic
    │   ├── UndecodableError, InvalidEnvelopeError, ForbiddenError, UnsupportedVersionError, IdReusedError, QuarantinedError
    ├── OperationRejectedError        a readable command that cannot be run; answered `failed`
    │   ├── InvalidPayloadError, UnknownOperationError, ExpiredError, OperationDisabledError, RateLimitedError,
    │   │   BusinessError
    ├── DependencyError               a server the effect needs failed, classified by the kit that knows it
    │   ├── DependencyUnavailableError   down: breaker, pause, no attempt is spent
    │   │   └── BreakerOpenError         not even asked: it was down a moment ago
    │   └── TransientError               this attempt failed, a later one may work
    │       ├── DependencyBusyError      no room for us now: no attempt is spent
    │       └── NewerContractError       meant for a newer version of the worker: it waits for a while
    ├── OutcomeUnknownError           an effect elsewhere was begun and did not report back
    ├── DeliveryError                 the broker did not confirm records
    └── ClientError                   a caller's request failed: RequestTimeoutError, ...

Control signals are no errors and live beside their use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec


class OmnibaseError(Exception):
    """Something went wrong that this project knows how to name.

    Attributes:
        code: stable, kebab case; what logs, answers, headers and metrics carry.
        retryable: whether the same call may work later without a change by people.
        hint: one sentence on what to do, empty when the message says it.
    """

    code: ClassVar[str] = "omnibase-error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigurationError(OmnibaseError):
    """The process was started with something that cannot work."""

    code = "configuration-error"


class SettingsError(ConfigurationError):
    """An environment variable is missing or malformed."""

    code = "invalid-settings"


class InvalidNameError(ConfigurationError):
    """A name breaks the topic grammar; the message says which segment and what was expected."""

    code = "invalid-name"


class Problem(msgspec.Struct, frozen=True, order=True):
    """One located problem of a file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    rule: str = ""

    def __str__(self) -> str:
        suffix = f" [{self.rule}]" if self.rule else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{suffix}"


class ContractError(ConfigurationError):
    """A contract has problems; `problems` holds all of them, sorted by place."""

    code = "invalid-contract"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class GenerationDriftError(ConfigurationError):
    """Generated files differ from what their contract says."""

    code = "generation-drift"


class UnknownNodeError(ConfigurationError):
    """No node of that name and version exists."""

    code = "unknown-node"


class TopicNotDeclaredError(ConfigurationError):
    """A worker reached for a topic that its contract does not list."""

    code = "topic-not-declared"


class TopicMissingError(ConfigurationError):
    """A declared topic does not exist on the cluster."""

    code = "topic-missing"


class TopicReplacedError(ConfigurationError):
    """A topic was deleted and made anew; offsets committed for the old one mean nothing in it."""

    code = "topic-replaced"


class OffsetMissingError(ConfigurationError):
    """A known consumer group has no committed offset where it must have one."""

    code = "offset-missing"


class OffsetOutOfRangeError(ConfigurationError):
    """A committed offset points outside the log; records may have been lost to retention."""

    code = "offset-out-of-range"


class CorruptLogError(ConfigurationError):
    """Records of a topic cannot be read by the Kafka client; going past them would lose them."""

    code = "corrupt-log"


class KafkaAccessError(ConfigurationError):
    """A broker and this process do not agree on TLS or on who we are: authority, host name, expiry, user, password."""

    code = "kafka-access"


class SchemaMissingError(ConfigurationError):
    """The database lacks a table or a statement's parts that the worker needs."""

    code = "schema-missing"


class ServiceStartError(OmnibaseError):
    """A service of the process did not start; what was started before it has been stopped again.

    Attributes:
        service: its name.
        cause: what it raised; decides the exit code of a command.
    """

    code = "service-start-failed"

    def __init__(self, message: str, *, service: str, cause: Exception, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.service = service
        self.cause = cause


class ClusterRefusedError(OmnibaseError):
    """The Kafka cluster understood an administrative request and said no: authorisation, a policy, a wrong value."""

    code = "cluster-refused"


class GroupInUseError(ClusterRefusedError):
    """The offsets of a consumer group cannot be changed while it has members."""

    code = "group-in-use"


class LocalServiceError(OmnibaseError):
    """A local server could not be started, reached or stopped."""

    code = "local-service-error"


class RecordRefusedError(OmnibaseError):
    """The record must not reach a handler; it goes to the dead-letter topic, bytes unchanged."""

    code = "refused"


class UndecodableError(RecordRefusedError):
    """The value is not JSON, not UTF-8, empty, or beyond the limits."""

    code = "undecodable"


class InvalidEnvelopeError(RecordRefusedError):
    """JSON, but not a CloudEvents 1.0 envelope; the message says which attribute."""

    code = "invalid-envelope"


class ForbiddenError(RecordRefusedError):
    """The record belongs to another realm or tenant, or asks for an answer where none may go."""

    code = "forbidden"


class UnsupportedVersionError(RecordRefusedError):
    """The type's major version is not one this worker knows."""

    code = "unsupported-version"


class QuarantinedError(RecordRefusedError):
    """The process died so often while the record ran that it is not run again."""

    code = "quarantined"


class IdReusedError(RecordRefusedError):
    """The same source and id came with another payload than the one already processed."""

    code = "id-reused"


class OperationRejectedError(OmnibaseError):
    """A command that could be read but not run; it is answered `failed`, never dead-lettered."""

    code = "rejected"

    def __init__(
        self, message: str, *, hint: str = "", details: Mapping[str, str] | None = None, dependency: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.details = dict(details or {})
        self.dependency = dependency


class InvalidPayloadError(OperationRejectedError):
    """The payload does not fit the operation's model; the message holds the path."""

    code = "invalid-payload"


class UnknownOperationError(OperationRejectedError):
    """The contract has no such operation."""

    code = "unknown-operation"


class ExpiredError(OperationRejectedError):
    """The command's `expirytime` has passed; it was not run."""

    code = "expired"


class OperationDisabledError(OperationRejectedError):
    """The operation exists and is switched off by settings."""

    code = "operation-disabled"


class RateLimitedError(OperationRejectedError):
    """The command came faster than the contract lets it, and the contract refuses such commands."""

    code = "rate-limited"
    retryable = True


class BusinessError(OperationRejectedError):
    """The dependency understood the command and said no: a constraint, a missing row, bad data.

    `code` varies by instance (`constraint-violated`, `not-found`, ...), since callers act on it.
    """

    code = "business-error"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        hint: str = "",
        details: Mapping[str, str] | None = None,
        dependency: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details, dependency=dependency)
        self.instance_code = code


class DependencyError(OmnibaseError):
    """A server the effect needs failed. `dependency` names it as the contract does."""

    code = "dependency-error"
    retryable = True

    def __init__(self, message: str, *, dependency: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.dependency = dependency


class DependencyUnavailableError(DependencyError):
    """The dependency is down or does not answer: the breaker's business, no attempt is spent."""

    code = "dependency-unavailable"


class BreakerOpenError(DependencyUnavailableError):
    """The dependency was not asked: it was down a moment ago, and others find out whether it is back.

    Attributes:
        retry_in_seconds: after which asking again is worth it.
    """

    code = "breaker-open"

    def __init__(self, message: str, *, dependency: str, retry_in_seconds: float, hint: str = "") -> None:
        super().__init__(message, dependency=dependency, hint=hint)
        self.retry_in_seconds = retry_in_seconds


class TransientError(DependencyError):
    """This attempt failed and a later one may work: deadlock, serialisation failure, lock time-out."""

    code = "transient"


class NewerContractError(TransientError):
    """The record is meant for a newer version of this worker, which may be running soon or elsewhere."""

    code = "newer-contract"


class DependencyBusyError(TransientError):
    """It is there and has no room for us now, such as a pool without a free connection: no attempt is spent."""

    code = "dependency-busy"


class OutcomeUnknownError(OmnibaseError):
    """An effect elsewhere was begun, and it is not known whether it took effect, as after a time-out."""

    code = "outcome-unknown"


class DeliveryError(OmnibaseError):
    """The broker did not confirm records. `errors` maps the record's index to the reason."""

    code = "delivery-failed"
    retryable = True

    def __init__(self, message: str, *, errors: Mapping[int, str] | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errors = dict(errors or {})


class ClientError(OmnibaseError):
    """A request by the client API failed."""

    code = "client-error"


class RequestTimeoutError(ClientError):
    """No answer came within the time-out; the command may still run."""

    code = "request-timeout"
    retryable = True


def error_code(error: BaseException) -> str:
    """Return the stable code of any exception: the tree's own, or `internal-error`."""
    if isinstance(error, BusinessError):
        return error.instance_code
    return error.code if isinstance(error, OmnibaseError) else "internal-error"
