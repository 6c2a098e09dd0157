"""Models from a contract's `definitions`: datamodel-code-generator reads the JSON Schema, we keep its types.

Its msgspec output is parsed and turned into the same plan that kits make, so that every model looks alike.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from omnibase_infra.shared.generator.plan import AliasPlan, FieldPlan, ModelPlan, StructPlan

# JSON Schema formats whose Python type the library does not know for msgspec.
_FORMATS: Final = {
    "date-time": "AwareDateTime",
    "uuid": "UUID",
    "date": "date",
    "time": "time",
    "duration": "timedelta",
}
_PLACEHOLDER: Final = "omnibase_format"

_NOTES: Final = ("title", "description", "examples", "extra_json_schema", "extra")

Schema = Mapping[str, Any]


def definition_models(definitions: Mapping[str, Schema]) -> tuple[ModelPlan, ...]:
    """Return the models of JSON Schema definitions, and of the objects nested in them. Deterministic."""
    if not definitions:
        return ()
    module = _with_model_names(ast.parse(_generated_source(definitions)))
    # The root of the document itself is no model.
    return tuple(model for model in _models(module, definitions) if model.name != "OmnibaseDefinitions")


def _generated_source(definitions: Mapping[str, Schema]) -> str:
    from datamodel_code_generator import InputFileType, LiteralType, PythonVersion, generate
    from datamodel_code_generator.enums import DataModelType

    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "OmnibaseDefinitions",
        "$defs": {name: _with_known_formats(definitions[name]) for name in sorted(definitions)},
    }
    source = generate(
        json.dumps(document),
        input_file_type=InputFileType.JsonSchema,
        output_model_type=DataModelType.MsgspecStruct,
        target_python_version=PythonVersion.PY_311,
        enum_field_as_literal=LiteralType.All,
        disable_timestamp=True,
        field_constraints=True,
        formatters=[],
        keyword_only=True,
        use_annotated=True,
        use_double_quotes=True,
        use_standard_collections=True,
        use_union_operator=True,
    )
    if not isinstance(source, str):
        raise TypeError(f"datamodel-code-generator returned {type(source).__name__}, expected one module")
    return source


def _with_known_formats(schema: Any) -> Any:
    """Return the schema with formats it would lose moved into `customTypePath`, and references made local."""
    if isinstance(schema, list):
        return [_with_known_formats(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result = {key: _with_known_formats(value) for key, value in schema.items()}
    if isinstance(reference := result.get("$ref"), str):
        result["$ref"] = re.sub(r"\A#/definitions/", "#/$defs/", reference)
    name = _FORMATS.get(result["format"]) if isinstance(result.get("format"), str) else None
    if name and result.get("type") == "string":
        del result["format"]
        result["customTypePath"] = f"{_PLACEHOLDER}.{name}"
    return result


def _with_model_names(module: ast.Module) -> ast.Module:
    """Rename the models of nested objects to `Model…`, as all models are called, unless that name is taken."""
    classes = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    nested = {name: f"Model{name}" for name in classes if not name.startswith(("Model", "Omnibase"))}
    names = {name: model for name, model in nested.items() if model not in classes}
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            node.name = names.get(node.name, node.name)
        elif isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return module


def _models(module: ast.Module, definitions: Mapping[str, Schema]) -> Iterator[ModelPlan]:
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            schema = definitions.get(node.name, {})
            yield StructPlan(node.name, _description(schema, node.name), tuple(_fields(node, schema)))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            name = node.target.id
            yield AliasPlan(
                name, _description(definitions.get(name, {}), name), _annotation(node.value, has_default=False)
            )


def _description(schema: Schema, name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.removeprefix("Model")).lower()
    return str(schema.get("description") or f"{words[:1].upper()}{words[1:]}.")


def _fields(node: ast.ClassDef, schema: Schema) -> Iterator[FieldPlan]:
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        default = ast.unparse(statement.value) if statement.value else ""
        if default == "UNSET" and _null_by_default(schema, name):
            default = "None"  # the library takes a default of null for none at all
        annotation = _annotation(statement.annotation, has_default=default not in ("", "UNSET"))
        yield FieldPlan(name, annotation, default, _field_description(schema, name))


def _annotation(node: ast.expr, *, has_default: bool) -> str:
    """Return the annotation with `None` last; a field with a default is never UNSET."""
    parts = [ast.unparse(_WithoutNotes().visit(part)) for part in _union_parts(node)]
    kept = [part for part in parts if part != "None" and not (has_default and part == "UnsetType")]
    return " | ".join([*kept, *(["None"] if "None" in parts else [])])


class _WithoutNotes(ast.NodeTransformer):
    """Drops from `Meta(...)` what checks nothing, and `Annotated[...]` when nothing is left."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in _NOTES]
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Subscript(ast.Name("Annotated"), ast.Tuple([inner, ast.Call(args=[], keywords=[])])):
                return inner
        return node


def _union_parts(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _union_parts(node.left)
        yield from _union_parts(node.right)
    else:
        yield node


def _property(schema: Schema, name: str) -> Schema:
    properties = schema.get("properties") or {}
    return properties.get(name) or properties.get(name.rstrip("_")) or {}


def _null_by_default(schema: Schema, name: str) -> bool:
    described = _property(schema, name)
    return "default" in described and described["default"] is None


def _field_description(schema: Schema, name: str) -> str:
    return " ".join(str(_property(schema, name).get("description") or "").split())
