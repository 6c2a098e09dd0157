"""The kinds of dependency that have settings of their own for breakers and retries."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

ServiceKind = Literal["database", "kafka", "external_service", "vault", "consul"]

_KIND_OF_DEPENDENCY: Final[Mapping[str, ServiceKind]] = MappingProxyType(
    {"postgres": "database", "kafka": "kafka", "vault": "vault", "openbao": "vault", "consul": "consul"}
)


def service_kind(dependency: str) -> ServiceKind:
    """Return the kind of a dependency as the contract names it; unknown names are external services."""
    return _KIND_OF_DEPENDENCY.get(dependency, "external_service")
