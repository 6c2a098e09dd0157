"""What a client knows of a node: its operations and their payload models. Nothing of the worker's code is imported."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

import msgspec

from omnibase_infra.shared.client.errors import InvalidAnswerError
from omnibase_infra.shared.client.payload_check import check_payload
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import GenerationDriftError, InvalidPayloadError, UnknownOperationError
from omnibase_infra.shared.core.limits import DecodeLimits
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.registry.nodes import load_models, load_spec


class OperationInterface:
    """One operation, seen from its callers.

    Attributes:
        spec: names of its topics and types.
        worker: kebab-case name of the worker that runs it.
        limits: what the worker decodes at most.
    """

    __slots__ = ("_request", "_response", "limits", "spec", "worker")

    def __init__(self, spec: OperationSpec, worker: WorkerSpec, request: Any, response: Any) -> None:
        self.spec = spec
        self.worker = worker.worker
        self.limits = DecodeLimits(worker.max_record_bytes, worker.max_depth, worker.max_fields)
        self._request: msgspec.json.Decoder[Any] = msgspec.json.Decoder(request)
        self._response: msgspec.json.Decoder[Any] = msgspec.json.Decoder(response)

    def encode_request(self, payload: Any) -> msgspec.Raw:
        """Return a payload as JSON that fits the request model.

        Args:
            payload: an instance of the model, plain data, or JSON as text or bytes.

        Raises:
            InvalidPayloadError: it does not fit; holds the path and what was expected.
        """
        return check_payload(self._request, payload, self.limits)

    def decode_response(self, answer: Envelope) -> Any:
        """Return the response model of an answer.

        Raises:
            InvalidAnswerError: it does not fit this program's model.
        """
        try:
            return decode_payload(self._response, answer.data)
        except InvalidPayloadError as error:
            raise InvalidAnswerError(
                f"the answer {answer.id} to {self.spec.name} does not fit this program's model: {error.message}",
                hint=f"the worker may run another version of the contract ({answer.dataschema or 'no dataschema'})",
            ) from error


class NodeInterface:
    """A node's operations by name."""

    def __init__(self, spec: WorkerSpec, requests: Mapping[str, Any], responses: Mapping[str, Any]) -> None:
        """Take the spec and the models by operation.

        Raises:
            GenerationDriftError: an operation has no models.
        """
        self.spec = spec
        missing = [item.name for item in spec.operations if item.name not in requests or item.name not in responses]
        if missing:
            raise GenerationDriftError(
                f"{spec.node}: its models lack {', '.join(missing)}", hint=f"run `omninode generate {spec.node}`"
            )
        self._operations = {
            item.name: OperationInterface(item, spec, requests[item.name], responses[item.name])
            for item in spec.operations
        }

    def operation(self, name: str) -> OperationInterface:
        """Return an operation, named in snake or kebab case.

        Raises:
            UnknownOperationError: lists those there are, and the closest match.
        """
        operation = self._operations.get(name.replace("-", "_"))
        if operation is None:
            close = difflib.get_close_matches(name.replace("-", "_"), self._operations, n=1, cutoff=0.5)
            raise UnknownOperationError(
                f"{self.spec.worker} has no operation {name!r}; there are: {', '.join(self._operations) or 'none'}",
                hint=f"did you mean {close[0]!r}?" if close else "",
            )
        return operation


NodeSource: TypeAlias = Callable[[str], NodeInterface]


def load_interface(node: str) -> NodeInterface:
    """Return the interface of a generated node.

    Args:
        node: `postgres_adapter` or `postgres-adapter` for the newest version, `postgres_adapter/1.0.0` for another.

    Raises:
        UnknownNodeError: lists what there is, and the closest match.
        GenerationDriftError: it was generated for another runtime, or not wholly.
    """
    name, _, version = node.partition("/")
    spec = load_spec(name, version or None)
    models: ModuleType = load_models(name, version or None)
    return NodeInterface(spec, models.REQUEST_MODELS, models.RESPONSE_MODELS)
