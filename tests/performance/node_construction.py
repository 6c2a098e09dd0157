"""How long it takes to load and to build the node, in a process of its own that has nothing imported yet."""

from __future__ import annotations

import time

import msgspec
from tests.performance.processes import read_request, write_result


class ConstructionRequest(msgspec.Struct):
    """Which node."""

    node: str


class ConstructionResult(msgspec.Struct):
    """Seconds: importing the node with its models and driver, and then building it."""

    import_seconds: float
    build_seconds: float
    operations: int


def construct(request: ConstructionRequest) -> ConstructionResult:
    """Load and build the node as `omninode run` does. No server is asked for anything."""
    from omnibase_infra.shared.core.settings import Settings, load_settings
    from omnibase_infra.shared.registry.container import ONEXContainer
    from omnibase_infra.shared.registry.nodes import load_models, load_node

    settings = load_settings()
    began = time.perf_counter()
    from omnibase_infra.shared.kafka.producer_pool import ProducerPool
    from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool

    load_models(request.node)
    imported = time.perf_counter()
    container = ONEXContainer()
    container.register_value(Settings, settings)
    container.register_value(PostgresConnectionPool, PostgresConnectionPool.from_settings(settings))
    producer = ProducerPool(settings, client_id="construction", log=lambda *_, **__: None, allowed=())
    container.register_value(ProducerPool, producer)
    container.bind_protocol("ProtocolEventBus", ProducerPool)
    node = load_node(request.node, container)
    return ConstructionResult(imported - began, time.perf_counter() - imported, len(node.handlers))


if __name__ == "__main__":
    write_result(construct(read_request(ConstructionRequest)))
