"""Example payloads from JSON Schema definitions, and payloads that must be refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from omnibase_infra.shared.generator.plan import RefusalPlan
from omnibase_infra.shared.generator.samples import WRONG

_FORMAT_SAMPLES: Final = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05",
    "duration": "P1DT2H",
    "uuid": "0190a5c0-0000-7000-8000-000000000001",
    "decimal": "12.50",
    "email": "someone@example.org",
    "uri": "https://example.org/",
}
# Tried against a `pattern` in this order; a schema whose pattern fits none of them gives `examples`.
_PATTERN_GUESSES: Final = tuple(
    character * length for length in range(1, 33) for character in ("a", "A", "1", "aA1"[:length])
)

Schema = Mapping[str, Any]


class NoSampleError(ValueError):
    """No value could be found for a schema; the message says where, and to give `examples`."""


def schema_sample(schema: Schema, definitions: Mapping[str, Schema], path: str = "$") -> Any:  # noqa: PLR0911 - a case each
    """Return a JSON value that fits a schema: its first example or default, or else one made from its constraints.

    Raises:
        NoSampleError: a pattern has no example.
    """
    if examples := schema.get("examples"):
        return examples[0]
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    if isinstance(reference := schema.get("$ref"), str):
        return schema_sample(definitions[reference.rsplit("/", 1)[1]], definitions, path)
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return schema_sample(schema[key][0], definitions, path)
    if "allOf" in schema:
        parts = [schema_sample(part, definitions, path) for part in schema["allOf"]]
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
    return _by_type(schema, definitions, path)


def _by_type(schema: Schema, definitions: Mapping[str, Schema], path: str) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else None)
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: schema_sample(properties[name], definitions, f"{path}.{name}") for name in properties}
    if kind == "array":
        item = schema_sample(schema.get("items", {"type": "string"}), definitions, f"{path}[0]")
        return [item] * max(1, int(schema.get("minItems", 1)))
    if kind == "string":
        return _string(schema, path)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    return {"boolean": True, "null": None}.get(str(kind), {"key": "value"})


def _string(schema: Schema, path: str) -> str:
    if (name := schema.get("format")) in _FORMAT_SAMPLES:
        return _FORMAT_SAMPLES[str(name)]
    shortest, longest = int(schema.get("minLength", 0)), int(schema.get("maxLength", 64))
    if pattern := schema.get("pattern"):
        for guess in _PATTERN_GUESSES:
            if shortest <= len(guess) <= longest and re.search(pattern, guess):
                return guess
        raise NoSampleError(f"{path} has the pattern {pattern!r}; give it `examples`, of which tests send the first")
    return ("text" * (shortest // 4 + 1))[: max(shortest, min(4, longest))]


def _number(schema: Schema, *, whole: bool) -> Any:
    step = schema.get("multipleOf", 1 if whole else 0.5)
    if "minimum" in schema or "exclusiveMinimum" in schema:
        lowest = schema.get("minimum", schema.get("exclusiveMinimum"))
        value = -(-lowest // step) * step
        return value + step if value == schema.get("exclusiveMinimum") else value
    if "maximum" in schema or "exclusiveMaximum" in schema:
        highest = schema.get("maximum", schema.get("exclusiveMaximum"))
        value = highest // step * step
        return value - step if value == schema.get("exclusiveMaximum") else value
    return step


def schema_refusals(schema: Schema, sample: Any) -> list[RefusalPlan]:
    """Return payloads that an object schema refuses: no object at all, a required field missing, a wrong type."""
    refusals = [RefusalPlan([], "Expected `object`, got `array`")]
    required = schema.get("required", [])
    if required and isinstance(sample, dict):
        without = {key: value for key, value in sample.items() if key != required[-1]}
        refusals.append(RefusalPlan(without, f"missing required field `{required[-1]}`"))
        name = next((name for name in required if schema["properties"][name].get("type") in _SIMPLE), None)
        if name:
            refusals.append(RefusalPlan({**sample, name: WRONG}, f"`$.{name}`"))
    return refusals


_SIMPLE: Final = ("string", "integer", "number", "boolean")
