"""Models from JSON Schema definitions: types, constraints, defaults, and payloads to try them with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from omnibase_infra.shared.generator.definitions import definition_models
from omnibase_infra.shared.generator.plan import AliasPlan, StructPlan
from omnibase_infra.shared.generator.schema_samples import NoSampleError, schema_refusals, schema_sample


def fields(**properties: Any) -> dict[str, tuple[str, str]]:
    """Annotation and default of each property; a name with `_required` is required."""
    schema = {
        "type": "object",
        "required": [name for name in properties if name.endswith("_required")],
        "properties": properties,
    }
    definitions: Mapping[str, Any] = {"ModelIt": schema, "ModelOther": {"type": "object", "properties": {}}}
    model = next(model for model in definition_models(definitions) if model.name == "ModelIt")
    assert isinstance(model, StructPlan)
    return {field.name: (field.annotation, field.default) for field in model.fields}


@pytest.mark.parametrize(
    ("schema", "annotation"),
    [
        ({"type": "string"}, "str"),
        ({"type": "string", "minLength": 1, "maxLength": 64}, "Annotated[str, Meta(max_length=64, min_length=1)]"),
        ({"type": "string", "pattern": "^a+$"}, "Annotated[str, Meta(pattern='^a+$')]"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "Annotated[int, Meta(ge=1, le=9)]"),
        ({"type": "number", "exclusiveMinimum": 0}, "Annotated[float, Meta(gt=0.0)]"),
        ({"type": "string", "format": "date-time"}, "AwareDateTime"),
        ({"type": "string", "format": "date-time", "description": "when"}, "AwareDateTime"),
        ({"type": "string", "format": "uuid"}, "UUID"),
        ({"type": "string", "format": "decimal"}, "Decimal"),
        ({"type": "string", "format": "date"}, "date"),
        ({"enum": ["a", "b"]}, "Literal['a', 'b']"),
        ({"const": "a"}, "Literal['a']"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, "Annotated[list[int], Meta(min_length=1)]"),
        ({"type": ["string", "null"]}, "str | None"),
        ({"$ref": "#/definitions/ModelOther"}, "ModelOther"),
        ({"$ref": "#/$defs/ModelOther"}, "ModelOther"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "dict[str, int]"),
        ({}, "Any"),
    ],
)
def test_a_required_property_has_its_type_and_constraints(schema: dict[str, Any], annotation: str) -> None:
    assert fields(it_required=schema) == {"it_required": (annotation, "")}


def test_a_property_that_may_be_left_out_is_unset_then_not_null() -> None:
    assert fields(it={"type": "string"}) == {"it": ("str | UnsetType", "UNSET")}
    assert fields(it={"type": ["string", "null"]}) == {"it": ("str | UnsetType | None", "UNSET")}


def test_a_default_is_the_field_s_default() -> None:
    assert fields(it={"type": "integer", "default": 3}) == {"it": ("int", "3")}
    assert fields(it={"type": "array", "items": {"type": "string"}, "default": []})["it"][0] == "list[str]"


def test_a_python_keyword_keeps_its_name_on_the_wire() -> None:
    assert fields(**{"class": {"type": "string", "default": "x"}}) == {
        "class_": ("str", "field(name='class', default='x')")
    }


def test_nested_objects_become_models_and_enums_become_aliases() -> None:
    models = definition_models(
        {
            "ModelIt": {
                "type": "object",
                "properties": {"inner": {"type": "object", "properties": {"x": {"type": "integer"}}}},
            },
            "ModelKind": {"type": "string", "enum": ["a", "b"], "description": "Which kind."},
        }
    )
    by_name = {model.name: model for model in models}
    assert isinstance(by_name["ModelInner"], StructPlan)
    assert by_name["ModelKind"] == AliasPlan("ModelKind", "Which kind.", "Literal['a', 'b']")


def test_the_order_of_definitions_does_not_matter() -> None:
    a = {"type": "object", "properties": {"b": {"$ref": "#/definitions/ModelB"}}}
    b = {"type": "object", "properties": {"x": {"type": "integer"}}}
    assert sorted(map(repr, definition_models({"ModelA": a, "ModelB": b}))) == sorted(
        map(repr, definition_models({"ModelB": b, "ModelA": a}))
    )


@pytest.mark.parametrize(
    ("schema", "sample"),
    [
        ({"type": "string", "examples": ["an example"], "pattern": "^impossible$"}, "an example"),
        ({"type": "string", "minLength": 6, "maxLength": 7}, "textte"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "pattern": "^[A-Z]{3}$"}, "AAA"),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "maximum": -5}, -5),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "number", "exclusiveMaximum": 0}, -0.5),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": ["null", "string"]}, None),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        (
            {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "integer"}}}]},
            {"a": 1, "b": 1},
        ),
    ],
)
def test_a_sample_fits_its_schema(schema: dict[str, Any], sample: Any) -> None:
    assert schema_sample(schema, {}) == sample


def test_a_pattern_without_an_example_says_what_to_do() -> None:
    schema = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]+-[0-9]{4}$"}}}
    with pytest.raises(NoSampleError, match=r"\$\.code has the pattern .*give it `examples`"):
        schema_sample(schema, {})


def test_refusals_leave_out_what_is_required_and_give_a_wrong_type() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    refusals = schema_refusals(schema, {"a": 1})
    assert [refusal.payload for refusal in refusals] == [[], {}, {"a": {"wrong": [None]}}]
