"""The lane of commands whose operation the contract lacks: each is answered `failed`, like any other outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

from omnibase_infra.shared.core.errors import UnknownOperationError
from omnibase_infra.shared.core.ports import BatchContext, IsolationLevel
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.runtime.answers import UNKNOWN_OPERATION


class UnknownOperationHandler:
    """Rejects every command, naming the operations there are."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._known = ", ".join(operation.event_type for operation in spec.operations) or "none"
        self._worker = spec.worker

    def decode(self, data: msgspec.Raw) -> NoReturn:  # noqa: ARG002 - no payload model can exist
        """Reject the command.

        Raises:
            UnknownOperationError: always.
        """
        raise UnknownOperationError(f"{self._worker} has no such operation; its types are {self._known}")

    def isolation(self, requests: Sequence[Any]) -> IsolationLevel | None:  # noqa: ARG002 - never any
        """Return the default."""
        return None

    async def run(self, requests: Sequence[Any], context: BatchContext) -> Sequence[Any]:  # noqa: ARG002 - never any
        """Return nothing: no request passes `decode`."""
        return []


def unknown_operation_spec(spec: WorkerSpec) -> OperationSpec:
    """Return the operation under which unknown commands run: stored and answered as the worker's own are."""
    answering = next((operation for operation in spec.operations if operation.needs), None)
    topics = [operation.answer_topic for operation in spec.operations if operation.answer_topic]
    return OperationSpec(
        name=UNKNOWN_OPERATION,
        topic="",
        event_type="",
        failed_schema=next((op.failed_schema for op in spec.operations if op.failed_schema), ""),
        answer_topic=topics[0] if topics else "",
        needs=answering.needs if answering else (),
        guarantee=answering.guarantee if answering else "at_least_once",
        batch_max=100,
        concurrency=1,
    )
