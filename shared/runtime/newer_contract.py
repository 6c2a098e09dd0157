"""Records that a newer version of this worker's contract is meant for: in a rolling upgrade both run side by side.

Such a record waits for a while, in its order, instead of being answered by a version that does not know its fields.
"""

from __future__ import annotations

from functools import lru_cache

from omnibase_infra.shared.core.errors import NewerContractError
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import Record

_PARTS = 5  # urn:omnibase:<worker>:<Model>:<version>


def newer_contract(spec: WorkerSpec, lane: Lane, record: Record) -> NewerContractError | None:
    """Return why a record has to wait for a newer version of the worker, None when it has not."""
    schema = record.envelope.dataschema
    if schema is None or schema == lane.operation.request_schema:
        return None
    version = _newer_version(schema, spec.worker, spec.version)
    if version is None:
        return None
    return NewerContractError(
        f"its dataschema is of version {version} of the contract, this worker is {spec.version}", dependency=spec.worker
    )


@lru_cache(maxsize=256)
def _newer_version(schema: str, worker: str, own_version: str) -> str | None:
    """Return the contract version that a schema's name asks for, if it is a later one of the same major version.

    Cached whole: every record whose schema is not exactly the operation's own comes here.
    """
    asked = _version(schema, worker)
    own = tuple(int(part) for part in own_version.split("."))
    if asked is None or asked[0] != own[0] or asked <= own:
        return None
    return ".".join(map(str, asked))


def _version(schema: str, worker: str) -> tuple[int, ...] | None:
    """Return the contract version in the name of one of the worker's own models, None for any other name."""
    parts = schema.split(":", _PARTS)
    if len(parts) != _PARTS or parts[:3] != ["urn", "omnibase", worker]:
        return None
    numbers = parts[4].split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() and len(number) < 10 for number in numbers):
        return None
    return tuple(map(int, numbers))
