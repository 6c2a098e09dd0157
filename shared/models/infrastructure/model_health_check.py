"""The result of looking at one dependency."""

from __future__ import annotations

from typing import Literal

import msgspec

HealthState = Literal["healthy", "degraded", "unhealthy"]


class ModelHealthCheck(msgspec.Struct, frozen=True, omit_defaults=True):
    """Health of one dependency at one time.

    Attributes:
        dependency: its name as contracts write it.
        status: healthy, degraded (works, beyond a threshold) or unhealthy.
        checked_at: RFC 3339, UTC.
        latency_ms: of the check's round trip; absent when there was none.
        message: why it is not healthy.
        details: short facts such as version, role and pool size.
    """

    dependency: str
    status: HealthState
    checked_at: str
    latency_ms: float | None = None
    message: str = ""
    details: dict[str, str] = {}
