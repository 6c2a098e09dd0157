"""The payload of every `…-failed` answer."""

from __future__ import annotations

import msgspec


class ModelErrorResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a command was not done.

    Attributes:
        code: stable, kebab case; what callers act on (see the reference of error codes).
        message: for people; no secrets, no payload values.
        retryable: whether sending the same command again may work.
        details: short facts such as the constraint's name.
        dependency: which dependency refused or failed.
        attempts: how often it was tried.
    """

    code: str
    message: str
    retryable: bool
    details: dict[str, str] = {}
    dependency: str | None = None
    attempts: int = 1
