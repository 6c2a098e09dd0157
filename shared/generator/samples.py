"""Example values for models: payloads that generated tests send and READMEs show. Deterministic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from omnibase_infra.shared.generator.plan import FieldPlan, RefusalPlan, StructPlan

# JSON values by the annotation's name.
SCALARS: Final[Mapping[str, Any]] = {
    "bool": True,
    "int": 1,
    "SmallInt": 1,
    "Integer": 1,
    "BigInt": 1,
    "float": 1.5,
    "Decimal": "12.50",
    "str": "text",
    "Text": "text",
    "bytes": "AAEC",
    "UUID": "0190a5c0-0000-7000-8000-000000000001",
    "AwareDateTime": "2026-01-02T03:04:05Z",
    "NaiveDateTime": "2026-01-02T03:04:05",
    "date": "2026-01-02",
    "time": "03:04:05",
    "timedelta": "P1DT2H",
    "Any": {"key": "value"},
}
# Refused by every annotation but Any.
WRONG: Final[Any] = {"wrong": [None]}


def sample_value(annotation: str) -> Any:
    """Return a JSON value that fits the annotation of a statement's parameter."""
    first = annotation.removesuffix(" | None")
    if first.startswith("list["):
        return [sample_value(first.removeprefix("list[").removesuffix("]"))]
    if first.startswith("Literal["):
        match = re.match(r"Literal\['((?:[^'\\]|\\.)*)'", first)
        return match[1] if match else ""
    return SCALARS[first]


def sample_fields(fields: tuple[FieldPlan, ...]) -> dict[str, Any]:
    """Return a JSON object with a value for each field."""
    return {field.json_name: sample_value(field.annotation) for field in fields}


def refusals_of(model: StructPlan, sample: Mapping[str, Any], path: str = "") -> list[RefusalPlan]:
    """Return payloads of a struct that must be refused: a required field missing, a field of a wrong type.

    Args:
        model: the struct.
        sample: a payload that is accepted.
        path: where the struct lies in the payload, for example `parameters`.
    """
    refusals = []
    required = [field for field in model.fields if not field.default]
    if required:
        name = required[-1].json_name
        without = {key: value for key, value in sample.items() if key != name}
        refusals.append(RefusalPlan(without, f"missing required field `{name}`"))
    typed = next((field for field in model.fields if "Any" not in field.annotation), None)
    if typed:
        place = ".".join(part for part in ("$", path, typed.json_name) if part)
        refusals.append(RefusalPlan({**sample, typed.json_name: WRONG}, f"`{place}`"))
    return refusals
