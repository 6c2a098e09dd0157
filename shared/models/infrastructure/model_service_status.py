"""How a service is, as a whole: what `/readyz` answers, and what `omninode status` says of each worker."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from omnibase_infra.shared.models.infrastructure.model_health_check import HealthState

USABLE = "ok"


class ModelServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a service does its work, and what keeps it from it.

    Attributes:
        service: the worker's name.
        version: of its contract, or `v1` for all versions of a major.
        status: healthy; degraded: it works, and something needs a person; unhealthy: it does not work.
        ready: whether work is taken.
        checked_at: RFC 3339, UTC.
        not_usable: the parts that are not, by name.
        checks: what is said of each part; `ok` is usable.
        problems: what is wrong, each with what to do.
    """

    service: str
    version: str
    status: HealthState
    ready: bool
    checked_at: str
    not_usable: tuple[str, ...] = ()
    checks: Mapping[str, str] = {}
    problems: tuple[str, ...] = ()

    @classmethod
    def from_checks(
        cls, service: str, version: str, *, ready: bool, checks: Mapping[str, str], checked_at: str
    ) -> ModelServiceStatus:
        """Return the status that follows from what is said of each part."""
        return cls(
            service=service,
            version=version,
            status="healthy" if ready else "unhealthy",
            ready=ready,
            checked_at=checked_at,
            not_usable=tuple(name for name, state in checks.items() if state != USABLE),
            checks=checks,
        )
