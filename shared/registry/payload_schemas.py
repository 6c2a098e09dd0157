"""JSON Schemas of the payloads of generated nodes, from their models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from omnibase_infra.shared.core.worker_spec import RUNTIME_GENERATION
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.models.infrastructure.model_health_check import ModelHealthCheck
from omnibase_infra.shared.models.infrastructure.model_metrics_snapshot import ModelMetricsSnapshot
from omnibase_infra.shared.models.infrastructure.model_service_status import ModelServiceStatus
from omnibase_infra.shared.registry.nodes import NodeVersion, load_models, load_spec
from omnibase_infra.topics.payload_schemas import PayloadSchema, Role


def node_schemas(node: NodeVersion) -> list[PayloadSchema]:
    """Return the schema of each request and each answer of a generated node, failures included.

    Raises:
        GenerationDriftError: it was generated for another runtime.
    """
    version = ".".join(map(str, node.version))
    spec, models = load_spec(node.node, version), load_models(node.node, version)
    return [
        PayloadSchema(
            worker=spec.worker,
            version=node.version,
            operation=operation,
            role=role,
            topic=topic,
            event_type=event_type,
            model=urn.split(":")[3],
            schema=schema_document(model, urn),
        )
        for operation, role, topic, event_type, urn, model in _messages(spec, models)
    ]


def infrastructure_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of the models that every worker speaks, by module name."""
    models = (ModelErrorResponse, ModelHealthCheck, ModelMetricsSnapshot, ModelServiceStatus)
    return {
        model.__module__.rsplit(".", 1)[-1]: schema_document(
            model, f"urn:omnibase:infrastructure:{model.__name__}:{RUNTIME_GENERATION}"
        )
        for model in models
    }


def schema_document(model: Any, urn: str) -> dict[str, Any]:
    """Return a model as a JSON Schema document; `urn` becomes its `$id`, its name the title."""
    found = msgspec.json.schema(model)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": urn, "title": urn.split(":")[3], **found}


def _messages(spec: Any, models: Any) -> Iterator[tuple[str, Role, str, str, str, Any]]:
    for operation in spec.operations:
        request = models.REQUEST_MODELS[operation.name]
        yield operation.name, "request", operation.topic, operation.event_type, operation.request_schema, request
        if operation.answer_topic:
            response = models.RESPONSE_MODELS[operation.name]
            topic, urn = operation.answer_topic, operation.completed_schema
            yield operation.name, "response", topic, operation.completed_type, urn, response
            yield operation.name, "failure", topic, operation.failed_type, operation.failed_schema, ModelErrorResponse
