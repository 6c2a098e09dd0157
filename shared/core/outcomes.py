"""What an operation can end in, as handlers return it. Plain values; the runtime turns them into answers."""

from __future__ import annotations

import msgspec

from omnibase_infra.shared.core.errors import BusinessError, OperationRejectedError


class OperationFailed(msgspec.Struct, frozen=True):
    """The dependency or the contract said no. An answer `…-failed`, never a dead letter.

    Attributes:
        code: stable, kebab case, for callers to act on.
        message: for people; holds no secrets and no payload values.
        retryable: whether sending the same command again may work.
        details: short facts such as the constraint's name.
        dependency: which dependency refused, as the contract names it.
        attempts: how often it was tried; 0 leaves counting to the runtime.
    """

    code: str
    message: str
    retryable: bool = False
    details: dict[str, str] = {}
    dependency: str | None = None
    attempts: int = 0

    @classmethod
    def from_error(cls, error: OperationRejectedError, attempts: int = 0) -> OperationFailed:
        """Return the failed answer that a rejection stands for."""
        return cls(
            code=error.instance_code if isinstance(error, BusinessError) else error.code,
            message=str(error),
            retryable=error.retryable,
            details=error.details,
            dependency=error.dependency,
            attempts=attempts,
        )
