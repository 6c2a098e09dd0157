"""What a contract lists under `dependencies` is what its node can resolve, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from omnibase_infra.shared.contracts.kits import PROTOCOL_NAMES
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.registry.container import ONEXContainer, ServiceMissingError
from omnibase_infra.shared.registry.declared import (
    DeclaredDependencies,
    DeclaredDependency,
    ServiceNotDeclaredError,
)
from omnibase_infra.shared.registry.protocol_registry import PROTOCOLS, ProtocolNotSpokenError

CONTRACT = "workers/order_store/v1_0_0/contract.yaml"


class PostgresConnectionPool:
    """Named as the contract names it."""


class VaultClient:
    pass


class Bus:
    async def send(self, records: Any) -> None:
        """Send nothing."""


def _declared(**more: Any) -> DeclaredDependencies:
    return DeclaredDependencies(
        CONTRACT,
        (
            DeclaredDependency(name="postgres_pool", type="service", class_name="PostgresConnectionPool", **more),
            DeclaredDependency(name="protocol_event_bus", type="protocol", class_name="ProtocolEventBus"),
            DeclaredDependency(name="model_error_response", type="model", class_name="ModelErrorResponse"),
        ),
    )


async def test_what_is_listed_can_be_had() -> None:
    async with ONEXContainer() as container:
        pool, bus = PostgresConnectionPool(), Bus()
        container.register_value(PostgresConnectionPool, pool)
        container.register_value(Bus, bus)
        container.bind_protocol("ProtocolEventBus", Bus)
        services = container.limited_to(_declared())
        services.require_all()
        assert services.get(PostgresConnectionPool) is pool
        assert services.protocol("ProtocolEventBus") is bus
        assert services.model("ModelErrorResponse") is ModelErrorResponse


async def test_what_is_registered_and_not_listed_cannot_be_had_and_the_line_to_add_is_shown() -> None:
    async with ONEXContainer() as container:
        container.register_value(VaultClient, VaultClient())
        services = container.limited_to(_declared())
        with pytest.raises(ServiceNotDeclaredError) as caught:
            services.get(VaultClient)
    assert str(caught.value) == (
        f"{CONTRACT} does not list the service VaultClient under `dependencies` (listed: postgres_pool, "
        "protocol_event_bus, model_error_response) (add `- {name: vault_client, type: service, class_name: "
        "VaultClient}` there and run `omninode generate`)"
    )


async def test_a_protocol_and_a_model_that_are_not_listed_cannot_be_had() -> None:
    async with ONEXContainer() as container:
        services = container.limited_to(DeclaredDependencies(CONTRACT))
        with pytest.raises(ServiceNotDeclaredError, match=r"name: protocol_event_bus, type: protocol"):
            services.protocol("ProtocolEventBus")
        with pytest.raises(ServiceNotDeclaredError, match=r"name: model_error_response, type: model"):
            services.model("ModelErrorResponse")
        with pytest.raises(ServiceNotDeclaredError, match=r"name: settings, type: service"):
            services.get(Settings)


async def test_a_listed_service_that_nobody_registered_is_named_with_the_contract() -> None:
    async with ONEXContainer() as container:
        services = container.limited_to(_declared())
        with pytest.raises(ServiceMissingError, match=f"{CONTRACT} needs the service PostgresConnectionPool"):
            services.get(PostgresConnectionPool)
        with pytest.raises(ServiceMissingError, match=f"{CONTRACT} needs the service PostgresConnectionPool"):
            services.require_all()


async def test_a_service_that_is_not_required_may_be_absent() -> None:
    async with ONEXContainer() as container:
        services = container.limited_to(_declared(required=False))
        assert services.find(PostgresConnectionPool) is None
        container.register_value(PostgresConnectionPool, PostgresConnectionPool())
        assert services.find(PostgresConnectionPool) is not None


async def test_a_protocol_that_nobody_speaks_is_named_with_the_contract() -> None:
    async with ONEXContainer() as container:
        container.register_value(PostgresConnectionPool, PostgresConnectionPool())
        with pytest.raises(ProtocolNotSpokenError, match=f"{CONTRACT} needs the protocol ProtocolEventBus"):
            container.limited_to(_declared()).require_all()


async def test_a_service_that_lacks_members_of_a_protocol_cannot_stand_for_it() -> None:
    async with ONEXContainer() as container:
        with pytest.raises(ProtocolNotSpokenError, match="VaultClient does not speak ProtocolEventBus: it lacks send"):
            container.bind_protocol("ProtocolEventBus", VaultClient)
        with pytest.raises(ConfigurationError, match=r"no protocol 'ProtocolEventBuss'.*did you mean"):
            container.bind_protocol("ProtocolEventBuss", VaultClient)


def test_contracts_may_list_exactly_the_protocols_that_there_are() -> None:
    assert tuple(known.class_name for known in PROTOCOLS) == PROTOCOL_NAMES


async def test_a_model_whose_module_lacks_it_is_named_with_the_contract() -> None:
    entry = DeclaredDependency(name="model_thing", type="model", class_name="ModelThing", module="no.such.module")
    async with ONEXContainer() as container:
        with pytest.raises(ConfigurationError, match=r"lists the model ModelThing, and no\.such\.module has none"):
            container.limited_to(DeclaredDependencies(CONTRACT, (entry,))).model("ModelThing")
