"""The contract's JSON Schema is valid, documents every key, and agrees with the model and the kits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from omnibase_infra.shared.contracts import units
from omnibase_infra.shared.contracts.kit_checks import COMMON_KEYS
from omnibase_infra.shared.contracts.kits import BUILT_IN_KITS
from omnibase_infra.shared.contracts.schema_check import SCHEMA_FILE, contract_schema
from omnibase_infra.shared.core.errors import InvalidNameError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.testing.contract_folder import ContractFolder

SCHEMA = contract_schema()


def keys(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of the language with what the schema says about it, references followed."""
    for name, said in schema.get("properties", {}).items():
        place = f"{path}.{name}" if path else name
        resolved = resolve(said)
        yield place, resolved
        yield from keys(resolved, place)
        items = resolved.get("items")
        if isinstance(items, dict):
            yield from keys(resolve(items), f"{place}[]")


def resolve(said: dict[str, Any]) -> dict[str, Any]:
    name = said.get("$ref", "").removeprefix("#/$defs/")
    return {**SCHEMA["$defs"][name], **said} if name else said


KEYS = dict(keys(SCHEMA))


def test_the_schema_is_valid_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_there_are_keys() -> None:
    assert {
        "name",
        "io_operations[].batch.linger_ms",
        "delivery.dlq.limit.ratio",
        "resources.replicas.max",
    } <= KEYS.keys()


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_documented_with_valid_examples(key: str) -> None:
    said = KEYS[key]
    assert said["title"][0].isupper()
    assert said["description"].endswith(".")
    assert said["examples"]
    bare = {name: value for name, value in said.items() if name != "$ref"}
    validator = Draft202012Validator({**bare, "$defs": SCHEMA["$defs"]})
    for example in said["examples"]:
        validator.validate(example)
    if "default" in said and said["default"] != "":
        validator.validate(said["default"])


@pytest.mark.parametrize(
    "key", [key for key, said in KEYS.items() if said.get("type") == "object" and "properties" in said]
)
def test_every_mapping_refuses_unknown_keys(key: str) -> None:
    # Operations are the exception: their further keys belong to the kit, which the loader checks.
    assert KEYS[key].get("additionalProperties") is False


def test_stating_every_default_changes_nothing(order_store: ContractFolder) -> None:
    """What the schema says a default is, is what a contract without the key gets."""
    without = order_store
    for line in ("  partitions: 6\n", "delivery:\n  guarantee: effectively_once\n"):
        assert line in without.text()
    head = without.text().split("delivery:\n", 1)[0]
    bare = (
        head.replace("  partitions: 6\n", "")
        .replace("    timeout: 5s\n    ordering: key\n", "")
        .replace(", linger_ms: 5", "")
    )
    without.write("contract.yaml", f"{bare}delivery: {{guarantee: effectively_once}}\n")
    plain = without.load()

    def defaults(prefix: str) -> dict[str, Any]:
        depth = prefix.count(".") + 1
        return {
            key.rsplit(".", 1)[1]: said["default"]
            for key, said in KEYS.items()
            if key.startswith(f"{prefix}.") and key.count(".") == depth and "default" in said
        }

    operation = json.dumps(
        {key: value for key, value in defaults("io_operations[]").items() if key not in ("description", "answer")}
    )
    spelled = bare.replace(
        "    batch: {max: 500}\n",
        f"    batch: {json.dumps({'max': 500, **defaults('io_operations[].batch')})}\n    {operation[1:-1].replace(', ', f'{chr(10)}    ')}\n",
    )
    bus = "".join(
        f"  {key}: {json.dumps(value)}\n"
        for key, value in defaults("event_bus").items()
        if key not in ("publish", "reply_topics")
    )
    spelled = spelled.replace("event_bus:\n", f"event_bus:\n{bus}")
    delivery = {
        "guarantee": "effectively_once",
        **defaults("delivery"),
        "retry": defaults("delivery.retry"),
        "dlq": {"limit": defaults("delivery.dlq.limit")},
    }
    resources = {part: defaults(f"resources.{part}") for part in ("requests", "limits", "replicas")}
    ending = f"delivery: {json.dumps(delivery)}\nresources: {json.dumps(resources)}\nlimits: {json.dumps(defaults('limits'))}\n"
    without.write("contract.yaml", spelled + ending)
    stated = without.load()
    for part in ("event_bus", "operations", "delivery", "resources", "limits", "rate_limits", "idempotency"):
        assert getattr(stated, part) == getattr(plain, part), part


def test_every_option_of_a_built_in_kit_is_in_the_schema() -> None:
    operation = SCHEMA["$defs"]["operation"]["properties"]
    options = {key for kit in BUILT_IN_KITS.values() for key in kit.options}
    assert operation.keys() == COMMON_KEYS | options
    for kit in BUILT_IN_KITS.values():
        assert kit.name in operation["kit"]["description"]
        for option in kit.options.values():
            Draft202012Validator.check_schema(dict(option.schema))


@pytest.mark.parametrize(
    ("definition", "pattern"),
    [("duration", units.DURATION_PATTERN), ("cpu", units.CPU_PATTERN), ("memory", units.MEMORY_PATTERN)],
)
def test_the_grammar_of_units_is_the_parsers(definition: str, pattern: str) -> None:
    assert SCHEMA["$defs"][definition]["pattern"] == pattern
    assert SCHEMA["$defs"]["rate_limit"]["properties"]["limit"]["pattern"] == units.RATE_PATTERN


@pytest.mark.parametrize(
    "text",
    [
        "onex.cmd.a-b.c.v1",
        "onex.evt.a.b-2.v10",
        "onex.cmd.a_b.c.v1",
        "onex.cmd.a.c.v0",
        "onex.x.a.c.v1",
        "dev.onex.cmd.a.c.v1",
    ],
)
def test_the_grammar_of_topics_is_the_naming_modules(text: str) -> None:
    pattern = SCHEMA["$defs"]["topic"]["pattern"]
    assert SCHEMA["$defs"]["subscription"]["pattern"] == SCHEMA["$defs"]["publication"]["pattern"] == pattern
    try:
        valid = bool(TopicName.parse(text))
    except InvalidNameError:
        valid = False
    assert bool(re.search(pattern, text)) is valid


def test_contracts_of_this_repository_name_the_schema_to_editors() -> None:
    workers = Path(SCHEMA_FILE).resolve().parents[2] / "workers"
    contracts = sorted(workers.glob("*/v*/contract.yaml"))
    assert contracts
    for contract in contracts:
        first = contract.read_text(encoding="utf-8").splitlines()[0]
        reference = first.removeprefix("# yaml-language-server: $schema=")
        assert (contract.parent / reference).resolve() == SCHEMA_FILE.resolve()
