"""Emit the README of a node."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, Final

from omnibase_infra.shared.contracts.units import format_duration
from omnibase_infra.shared.generator.plan import (
    AliasPlan,
    GenerationPlan,
    ModelPlan,
    OperationPlan,
    SourceFile,
    StructPlan,
)
from omnibase_infra.shared.generator.rendering import TEMPLATES

# How readers know them.
_SHOWN: Final = {
    "Text": "str",
    "SmallInt": "int",
    "Integer": "int",
    "BigInt": "int",
    "AwareDateTime": "datetime",
    "NaiveDateTime": "datetime",
}


def emit_readme(plan: GenerationPlan) -> Iterator[SourceFile]:
    """Yield README.md: what the node does, how it is used, what to do when it does not work."""
    content = TEMPLATES.render(
        "readme.md.j2",
        plan=plan,
        contract=plan.contract,
        models={model.name: model for model in plan.models},
        example=lambda operation: example(plan, operation),
        duration=format_duration,
        commands=[item for item in plan.operations if item.spec.event_type.startswith("onex.cmd.")],
        messages=messages,
        described=lambda model: described(plan, model),
        wire_model=lambda name: wire_models(plan, name),
    )
    yield SourceFile("README.md", content)


def example(plan: GenerationPlan, operation: OperationPlan) -> str:
    """Return a command that sends the operation's first sample."""
    payload = json.dumps(operation.details.payloads[0], ensure_ascii=False)
    return f"omninode publish {plan.contract.worker} {operation.name} --data {shlex.quote(payload)} --wait"


def messages(operation: OperationPlan) -> str:
    """Return which message type starts an operation, and which it is answered by."""
    spec = operation.spec
    if not spec.answer_topic:
        return f"Message type `{spec.event_type}`; gives no answer."
    within = format_duration(spec.timeout_seconds)
    answers = f"`{spec.completed_type}` or `{spec.failed_type}`"
    return f"Message type `{spec.event_type}`, answered by\n{answers} within {within}."


def wire_models(plan: GenerationPlan, name: str) -> list[ModelPlan]:
    """Return the structs behind a model's name, the members of a union one by one."""
    by_name: dict[str, Any] = {model.name: model for model in plan.models}
    model = by_name.get(name)
    if model is None:
        return []
    if isinstance(model, AliasPlan):
        return [found for part in model.value.split(" | ") for found in wire_models(plan, part.strip())]
    return [model]


def described(plan: GenerationPlan, model: ModelPlan, inside: tuple[str, ...] = ()) -> str:
    """Return a model in one line, the models in it spelled out: `name: type`, `?` behind what may be left out."""
    if isinstance(model, AliasPlan):
        return _spelled_out(plan, model.value, (*inside, model.name))
    tag = [f'{model.tag_field}: "{model.tag}"'] if model.tag_field else []
    fields = [
        f"{field.json_name}{'?' if field.default else ''}: {_spelled_out(plan, field.annotation, (*inside, model.name))}"
        for field in model.fields
    ]
    return f"{{{', '.join([*tag, *fields])}}}"


def _spelled_out(plan: GenerationPlan, annotation: str, inside: tuple[str, ...]) -> str:
    models: dict[str, ModelPlan] = {model.name: model for model in plan.models}

    def replacement(match: re.Match[str]) -> str:
        name = match[0]
        # Unions have a list of their own; a model inside itself would never end.
        if name in models and name not in inside and isinstance(models[name], StructPlan):
            return described(plan, models[name], inside)
        return _SHOWN.get(name, name)

    return re.sub(r"[A-Za-z_][A-Za-z0-9_]*", replacement, annotation)
