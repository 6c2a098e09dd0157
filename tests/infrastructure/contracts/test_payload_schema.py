"""What definitions may say, and where they are refused."""

from __future__ import annotations

import pytest

from omnibase_infra.shared.testing.contract_folder import ContractFolder

LINE = "      amount: {type: string, format: decimal}\n"


@pytest.mark.parametrize(
    "schema",
    [
        "{type: string, minLength: 1, maxLength: 9, pattern: '^[a-z]+$', description: Text.}",
        "{type: string, format: uuid}",
        "{type: [string, 'null'], format: date-time, default: null}",
        "{type: integer, minimum: 0, exclusiveMaximum: 10, examples: [3]}",
        "{type: number, exclusiveMinimum: 0.5, maximum: 1.5, multipleOf: 0.5}",
        "{type: boolean, title: Flag}",
        "{type: array, items: {type: array, items: {type: date, enum: [1, 2]}}}",
        "{type: array, items: {$ref: '#/definitions/ModelPriceRequest', description: The request.}, minItems: 1}",
        "{type: object, additionalProperties: {type: integer}}",
        "{type: object, properties: {inner: {type: string}}, required: [inner], additionalProperties: false}",
        "{enum: [a, b]}",
        "{enum: [1, 2]}",
        "{const: fixed}",
        "{$ref: '#/definitions/ModelPriceRequest'}",
    ],
)
def test_what_models_can_express_is_accepted(order_store: ContractFolder, schema: str) -> None:
    schema = schema.replace("type: date, enum", "type: integer, enum")
    order_store.replace((LINE, f"      amount: {schema}\n"))
    assert order_store.problems() == []


@pytest.mark.parametrize(
    ("schema", "at", "says"),
    [
        ("3", "3", "a schema is a mapping"),
        ("{}", "{}", "states its `type`"),
        ("{type: text}", "text", "the text 'text' is not one of"),
        ("{type: [string, integer]}", "[string", "string or integer has no form"),
        ("{type: [string, nul]}", "nul]", "did you mean 'null'?"),
        ("{type: 'null'}", "'null'", "always null says nothing"),
        ("{type: string, anyOf: []}", "anyOf", "has no form in a model"),
        ("{type: string, minLenght: 1}", "minLenght", "did you mean 'minLength'?"),
        ("{type: boolean, minimum: 1}", "minimum", "'minimum' says nothing about boolean"),
        ("{type: string, minLength: -1}", "-1", "minLength is -1"),
        ("{type: string, minLength: one}", "one}", "minLength is a whole number"),
        ("{type: number, minimum: true}", "true", "minimum is a number"),
        ("{type: number, multipleOf: 0}", "0}", "multipleOf is 0, expected more"),
        ("{type: number, minimum: 2, maximum: 1}", "2, max", "leave no value"),
        ("{type: number, exclusiveMinimum: 1, maximum: 1}", "1, max", "leave no value"),
        ("{type: string, format: email}", "email", "is not one of uuid, date-time, date, decimal"),
        ("{type: string, format: uuid, pattern: a}", "a}", "a pattern beside a format"),
        ("{type: string, pattern: '('}", "'('", "no regular expression"),
        ("{type: string, pattern: '[[a]'}", "'[[a]'", "no regular expression"),
        ("{type: string, pattern: 3}", "3}", "no regular expression"),
        ("{enum: a}", "a}", "enum is a list"),
        ("{enum: []}", "[]", "enum is a list"),
        ("{enum: [a, 1]}", "[a, 1]", "all texts or all whole numbers"),
        ("{enum: [a, a]}", "a]", "listed twice"),
        ("{enum: [1.5]}", "1.5", "texts or whole numbers"),
        ("{const: [a]}", "[a]", "const is a text"),
        ("{type: array}", "{type: array}", "states its `items`"),
        ("{type: array, items: 3}", "3}", "a schema is a mapping"),
        ("{type: object, properties: 3}", "3}", "properties is a mapping"),
        ("{type: object, properties: {Camel: {type: string}}}", "Camel", "not snake case"),
        ("{type: object, required: a}", "a}", "required is a list"),
        ("{type: object, required: [a, 3], properties: {a: {type: string}}}", "3]", "not among the properties"),
        ("{type: object, required: [a, a], properties: {a: {type: string}}}", "a], prop", "listed twice"),
        ("{type: object, additionalProperties: 3}", "3}", "true, false or a schema"),
        (
            "{type: object, properties: {a: {type: string}}, additionalProperties: {type: string}}",
            "{type: string}}\n",
            "no form in a model that has properties",
        ),
        ("{$ref: ModelPriceRequest}", "ModelPriceRequest}", "'#/definitions/ModelName'"),
        ("{$ref: '#/definitions/ModelPriceRequest', minLength: 1}", "1}", "beside $ref"),
    ],
)
def test_anything_else_is_refused_where_it_stands(order_store: ContractFolder, schema: str, at: str, says: str) -> None:
    line = f"      amount: {schema}\n"
    order_store.replace((LINE, line))
    problems = order_store.problems()
    number = order_store.text().split(line)[0].count("\n") + 1
    start = line.index("amount: ") + len("amount: ")
    assert (number, line.index(at, start) + 1) in [(problem.line, problem.column) for problem in problems]
    assert says in "\n".join(problem.message for problem in problems)


def test_a_payload_is_an_object(order_store: ContractFolder) -> None:
    order_store.replace(
        ("  ModelPriceLine:\n    type: object", "  ModelPriceLine:\n    type: array\n    items: {type: string}")
    )
    assert "a payload is an object; ModelPriceLine is array" in [problem.message for problem in order_store.problems()]


def test_definitions_do_not_contain_one_another(order_store: ContractFolder) -> None:
    order_store.replace((LINE, f"{LINE}      whole: {{$ref: '#/definitions/ModelPriceResponse'}}\n"))
    messages = [problem.message for problem in order_store.problems()]
    assert [message.split()[0] for message in messages] == ["ModelPriceResponse", "ModelPriceLine"]
