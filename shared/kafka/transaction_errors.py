"""How a Kafka transaction can end without a commit, and what its owner may do then."""

from __future__ import annotations

from collections.abc import Mapping

from omnibase_infra.shared.core.errors import OmnibaseError


class TransactionAbortedError(OmnibaseError):
    """Nothing of the transaction is visible or committed. It may be run again, with group metadata fetched afresh.

    Attributes:
        group_moved: the consumer group has another generation, so its partitions may be another member's now.
    """

    code = "transaction-aborted"
    retryable = True

    def __init__(self, message: str, *, group_moved: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.group_moved = group_moved


class OutputsRefusedError(TransactionAbortedError):
    """The transaction was aborted since the broker will never take some of its records; reasons by index.

    With `alone` a record was in a request of its own, so the refusal is about itself; otherwise a neighbour in
    the same request may be to blame.
    """

    code = "outputs-refused"
    retryable = False

    def __init__(self, message: str, *, errors: Mapping[int, str], alone: bool) -> None:
        super().__init__(message)
        self.errors = dict(errors)
        self.alone = alone


class TransactionUnknownError(OmnibaseError):
    """Whether the transaction was committed could not be found out. Only its consumer group's offsets can tell."""

    code = "transaction-unknown"


class ProducerFencedError(OmnibaseError):
    """Another process has opened a producer of the same transactional id; this one can never write again."""

    code = "producer-fenced"
