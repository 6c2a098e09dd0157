"""Which import a name in generated source needs."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from typing import Final

from omnibase_infra.shared.generator.plan import GenerationPlan, ModelPlan

_SCALARS: Final = "omnibase_infra.shared.models.scalars"

# Names that annotations and defaults may use; everything else is a builtin or a model of the node.
KNOWN_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("Annotated", "Any", "Literal"), "typing"),
    **dict.fromkeys(("Meta", "UNSET", "UnsetType", "field"), "msgspec"),
    **dict.fromkeys(("date", "datetime", "time", "timedelta"), "datetime"),
    "Decimal": "decimal",
    "UUID": "uuid",
    **dict.fromkeys(("SmallInt", "Integer", "BigInt", "Text", "AwareDateTime", "NaiveDateTime"), _SCALARS),
    "HealthState": "omnibase_infra.shared.models.infrastructure.model_health_check",
    "IsolationLevel": "omnibase_infra.shared.core.ports",
}


def names_in(source: str) -> set[str]:
    """Return the identifiers in a piece of Python source; text in quotes is none."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def import_lines(plan: GenerationPlan, sources: Iterable[str], *, without: str = "") -> list[str]:
    """Return the import lines that pieces of source need, sorted.

    Args:
        plan: whose models may be named.
        sources: annotations, defaults, lists of names.
        without: module that needs no import of itself.
    """
    models = {model.name: f"{plan.package}.models.{model.module}" for model in plan.models if model.module != without}
    names = set().union(*map(names_in, sources))
    modules = {name: models.get(name) or KNOWN_NAMES.get(name) for name in names}
    return sorted(f"from {module} import {name}" for name, module in modules.items() if module)


def model_import(plan: GenerationPlan, names: Iterable[str]) -> list[str]:
    """Return one import of the names from the node's `models` package."""
    return [f"from {plan.package}.models import {', '.join(sorted(set(names)))}"]


def depends_on(model: ModelPlan) -> set[str]:
    """Return the names a model's source speaks of."""
    return set().union(*map(names_in, model.sources), set())


def docstring(text: str) -> str:
    """Return text as it may stand between triple quotes."""
    return re.sub(r'"""', "'''", text.replace("\\", "\\\\")).strip()
