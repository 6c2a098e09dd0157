"""Services of the container that processors may be given: the names contracts use and where the classes live."""

from __future__ import annotations

from typing import Final

from omnibase_infra.shared.contracts.model import Dependency
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.generator.plan import ServicePlan

SERVICE_MODULES: Final = {
    "PostgresConnectionPool": "omnibase_infra.shared.postgres.connection_pool",
    "KafkaProducerPool": "omnibase_infra.shared.kafka.producer_pool",
    "ConsulClient": "omnibase_infra.shared.consul.client",
    "VaultClient": "omnibase_infra.shared.vault.client",
    "Settings": "omnibase_infra.shared.core.settings",
    "MetricsRegistry": "omnibase_infra.shared.observability.metrics_registry",
}

_EXAMPLES: Final = {
    "PostgresConnectionPool": 'PostgresConnectionPool("postgresql://nobody@127.0.0.1:1/nothing")',
    "MetricsRegistry": "MetricsRegistry()",
    "Settings": 'Settings.model_validate({"env": "test"})',
}


def service_plan(dependency: Dependency) -> ServicePlan:
    """Return the service behind a contract's dependency.

    Raises:
        ConfigurationError: its class is unknown and the contract names no module.
    """
    module = dependency.module or SERVICE_MODULES.get(dependency.class_name)
    if module is None:
        raise ConfigurationError(
            f"the dependency {dependency.name!r}: nobody knows where {dependency.class_name} lives",
            hint="state its `module` in the contract",
        )
    name = dependency.class_name
    return ServicePlan(dependency.name, name, module, _EXAMPLES.get(name, f"object.__new__({name})"))
