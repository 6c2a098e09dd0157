"""However a contract is damaged, the loader answers with located problems and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.core.errors import Problem
from omnibase_infra.shared.testing.contract_folder import ContractFolder

RULES = {rule.id for rule in Rule}
Step = tuple[str | int, ...]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> ContractFolder:
    """A folder whose contract every example overwrites."""
    return ContractFolder(tmp_path_factory.mktemp("damaged"), "order_store")


@pytest.fixture(scope="module")
def valid() -> str:
    """The PostgreSQL adapter's own contract: real, and with most keys of the language."""
    folder = Path(__file__).parents[3] / "workers/postgres_adapter/v1_0_0"
    return (folder / "contract.yaml").read_text(encoding="utf-8")


def check_located(folder: ContractFolder, text: str) -> list[Problem]:
    """Load `text` as a contract; whatever is wrong must have a place and a rule."""
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    folder.path.write_bytes(text.encode("utf-8", "surrogatepass"))
    problems = folder.problems()
    last_line = len(text.splitlines()) + 1
    for problem in problems:
        assert problem.rule in RULES
        assert problem.message
        assert 1 <= problem.line <= last_line
        assert problem.column >= 1
    return problems


def paths(value: Any, path: Step = ()) -> Iterator[Step]:
    """Yield the path of every value below the root."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from paths(child, (*path, key))


def parent_of(document: Any, path: Step) -> Any:
    for part in path[:-1]:
        document = document[part]
    return document


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30)
values = st.recursive(
    scalars
    | st.sampled_from(["5s", "0s", "onex.cmd.order-store.requests.v1", "postgres.query", "custom", "effect", "hold"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_values_anywhere(damaged: ContractFolder, valid: str, data: st.DataObject) -> None:
    document = yaml.safe_load(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(sorted(paths(document), key=repr)))
        action = data.draw(st.sampled_from(["set", "drop", "add", "move"]))
        parent = parent_of(document, path)
        if action == "set":
            parent[path[-1]] = data.draw(values)
        elif action == "drop":
            del parent[path[-1]]
        elif action == "add" and isinstance(parent, dict):
            parent[
                data.draw(
                    st.sampled_from(["topic", "on", "answer", "needs", "request", "batch", "x"]) | st.text(max_size=8)
                )
            ] = data.draw(values)
        elif action == "move":
            source = data.draw(st.sampled_from(sorted(paths(document), key=repr)))
            parent[path[-1]] = copy.deepcopy(parent_of(document, source)[source[-1]])
    check_located(damaged, json.dumps(document))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_text_anywhere(damaged: ContractFolder, valid: str, data: st.DataObject) -> None:
    text = valid
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 30)))
        inserted = data.draw(st.text(max_size=10) | st.text(" \t\n:-{}[]&*!|>'\"#%@`,?<~yesno01.", max_size=10))
        text = text[:start] + inserted + text[end:]
    check_located(damaged, text)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_misspelt_key_is_always_found_where_it_is(damaged: ContractFolder, valid: str, data: st.DataObject) -> None:
    lines = valid.splitlines()
    candidates = [
        number for number, line in enumerate(lines) if line.lstrip("- ").split(":")[0].isidentifier() and ":" in line
    ]
    number = data.draw(st.sampled_from(candidates))
    line = lines[number]
    key = line.lstrip("- ").split(":")[0]
    lines[number] = line.replace(key, f"{key}zz", 1)
    problems = check_located(damaged, "\n".join(lines))
    column = len(line) - len(line.lstrip("- ")) + 1
    assert (Rule.UNKNOWN_KEY.id, number + 1, column) in [(p.rule, p.line, p.column) for p in problems]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_value_of_another_type_is_never_accepted(damaged: ContractFolder, valid: str, data: st.DataObject) -> None:
    document = yaml.safe_load(valid)
    path = data.draw(st.sampled_from(sorted(paths(document), key=repr)))
    parent = parent_of(document, path)
    parent[path[-1]] = 3.5 if isinstance(parent[path[-1]], (dict, list, str, bool)) else {"a": 1}
    assert check_located(damaged, json.dumps(document))


DEFINITIONS = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "number", "boolean", "array", "object", ["string", "null"], "text", None, 3])},
        optional={
            "minimum": values, "maxLength": values, "format": values, "pattern": st.sampled_from(["(", "a+", "[[a]", 3, "(?<n>x)"]),
            "enum": values, "const": values, "$ref": st.sampled_from(["#/definitions/ModelA", "#/x", 3]), "oneOf": values,
            "required": values, "items": values, "properties": values, "additionalProperties": values,
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from(["a", "b_c", "D"]), inner, max_size=3)}
    )
    | st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(first=DEFINITIONS, second=DEFINITIONS)
def test_any_definitions(damaged: ContractFolder, valid: str, first: Any, second: Any) -> None:
    document = yaml.safe_load(valid)
    document["definitions"] = {"ModelA": first, "ModelB": second}
    document["io_operations"].append({"name": "price", "kit": "custom", "request": "ModelA", "response": "ModelB"})
    check_located(damaged, json.dumps(document))
