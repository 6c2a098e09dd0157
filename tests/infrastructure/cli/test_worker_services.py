"""What a worker's container holds for its spec."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.cli.worker_services import TransactionalEventBus
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.registry.container import ONEXContainer
from omnibase_infra.shared.registry.declared import DeclaredDependencies, DeclaredDependency
from omnibase_infra.shared.registry.nodes import find_node, load_node, load_spec

CONTRACT = "workers/order_store/v1_0_0/contract.yaml"


async def test_a_transactional_worker_has_an_event_bus_that_says_how_to_send() -> None:
    entry = DeclaredDependency(name="protocol_event_bus", type="protocol", class_name="ProtocolEventBus")
    async with ONEXContainer() as container:
        container.register_value(TransactionalEventBus, TransactionalEventBus(CONTRACT))
        container.bind_protocol("ProtocolEventBus", TransactionalEventBus)
        bus: Any = container.limited_to(DeclaredDependencies(CONTRACT, (entry,))).protocol("ProtocolEventBus")
        with pytest.raises(ConfigurationError, match=f"{CONTRACT} is transactional: 1 records") as refused:
            await bus.send([OutboundRecord("onex.evt.a.b.v1", b"{}")])
    assert "return them from the handler" in refused.value.hint


async def test_loading_a_node_checks_first_that_all_its_contract_requires_is_there() -> None:
    async with ONEXContainer() as container:
        with pytest.raises(
            ConfigurationError, match=r"postgres_adapter/v1_0_0/contract\.yaml needs the service Postgres"
        ):
            load_node("postgres_adapter", container)


def test_the_settings_of_a_process_are_no_server_that_may_be_down() -> None:
    declared = find_node("postgres_adapter").module("registry.dependencies").DEPENDENCIES
    assert "settings" in {entry.name for entry in declared.entries}
    spec = load_spec("postgres_adapter")
    assert "settings" not in spec.dependencies
    assert all("settings" not in operation.needs for operation in spec.operations)
    assert msgspec.to_builtins(declared)["contract"] == "workers/postgres_adapter/v1_0_0/contract.yaml"
