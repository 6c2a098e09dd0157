"""Which import a name in generated source needs."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from omnibase_infra.shared.generator.plan import GenerationPlan, StructPlan

_SCALARS: Final = "omnibase_infra.shared.models.scalars"

_BUILTINS: Final = "builtins"
_RENAMED: Final = "_type"

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
    return imports_of({**shared_models(plan), **models}, sources)


def shared_models(plan: GenerationPlan) -> dict[str, str]:
    """Return the modules of the shared models that the contract lists under `dependencies`, by class name."""
    listed = plan.contract.dependencies
    return {item.class_name: item.module for item in listed if item.type == "model" and item.module}


def imports_of(models: Mapping[str, str], sources: Iterable[str]) -> list[str]:
    """Return the import lines that pieces of source need, sorted.

    Args:
        models: the module of each model that may be named.
        sources: annotations, defaults, lists of names.
    """
    names = set().union(*map(names_in, sources))
    lines = set()
    for name in names:
        original = name.removesuffix(_RENAMED)
        module = models.get(original) or KNOWN_NAMES.get(original) or (_BUILTINS if name != original else None)
        if module:
            lines.add(f"from {module} import {original}{f' as {name}' if name != original else ''}")
    return sorted(lines)


def without_clashes(model: StructPlan) -> StructPlan:
    """Return the struct with types renamed that are called like one of its fields.

    In `date: date`, the class body's own `date` would be taken for the type. It becomes `date: date_type`.
    """
    own = {field.name for field in model.fields}
    clashes = {name for field in model.fields for name in names_in(field.annotation) if name in own}
    if not clashes:
        return model
    renamed = [msgspec.structs.replace(field, annotation=_renamed(field.annotation, clashes)) for field in model.fields]
    return msgspec.structs.replace(model, fields=tuple(renamed))


def _renamed(source: str, names: set[str]) -> str:
    pieces, position = [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string in names:
            pieces += [source[position : token.start[1]], f"{token.string}{_RENAMED}"]
            position = token.end[1]
    return "".join((*pieces, source[position:]))


def model_import(plan: GenerationPlan, names: Iterable[str]) -> list[str]:
    """Return one import of the names from the node's `models` package."""
    return [f"from {plan.package}.models import {', '.join(sorted(set(names)))}"]


def docstring(text: str) -> str:
    """Return text as it may stand between triple quotes."""
    return re.sub(r'"""', "'''", text.replace("\\", "\\\\")).strip()
