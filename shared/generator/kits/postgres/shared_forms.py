"""The kit's models that shared models of `shared/models/postgres` can stand for, where a contract lists those.

On the wire nothing changes: the node's model keeps its name, which is part of its `dataschema`, and becomes another name
for the shared class. A test compares both forms field by field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.core.errors import ContractError, Problem
from omnibase_infra.shared.generator.plan import AliasPlan, ModelPlan, StructPlan

# What the shared query request allows; a contract with another bound keeps the kit's own model.
SHARED_MAX_ROWS: Final = 1000


class SharedForm(msgspec.Struct, frozen=True):
    """A model of the kit, and the shared one that may stand for it.

    Attributes:
        max_rows: the bound that the contract gives it; 0 for a model without one.
        inner: a model that only it refers to.
    """

    shared: str
    own: StructPlan
    max_rows: int = 0
    inner: StructPlan | None = None


def shared_or_own(contract: Contract, forms: Sequence[SharedForm]) -> tuple[ModelPlan, ...]:
    """Return other names for the shared models that the contract lists, and the kit's own models for the rest.

    Raises:
        ContractError: a shared model is listed and does not fit what the operation says.
    """
    listed = {item.class_name for item in contract.dependencies if item.type == "model" and item.module}
    models: list[ModelPlan] = []
    for form in forms:
        if form.shared not in listed:
            models += (form.own,) if form.inner is None else (form.inner, form.own)
            continue
        if form.max_rows not in (0, SHARED_MAX_ROWS):
            message = (
                f"max_rows is {form.max_rows}, and {form.shared}, which `dependencies` lists, has {SHARED_MAX_ROWS}; "
                "remove the one or the other"
            )
            raise ContractError([Problem(contract.path.name, 1, 1, message)])
        models.append(AliasPlan(form.own.name, form.own.description, form.shared))
    return tuple(models)
