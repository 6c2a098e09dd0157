"""Topics of contracts, checked without a cluster; every problem with its file, line and column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omnibase_infra.shared.contracts.loader import shown_path
from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.contracts.yaml_source import Path, YamlSource, read_yaml
from omnibase_infra.shared.core.errors import Problem
from omnibase_infra.topics.catalogue import derive
from omnibase_infra.topics.declarations import from_contract
from omnibase_infra.topics.payload_schemas import PayloadSchema, SchemaBreak, schema_breaks
from omnibase_infra.topics.policy import DEFAULT_POLICY, TopicPolicy, Violation, violations


def lint(
    contracts: Sequence[Contract], policy: TopicPolicy = DEFAULT_POLICY, schemas: Iterable[PayloadSchema] = ()
) -> list[Problem]:
    """Return what is beyond the policy in contracts that passed their own checks, sorted by place.

    Args:
        contracts: of the whole fleet.
        policy: what topics may ask of a cluster.
        schemas: payloads of the generated nodes, to see whether who writes and who reads them agree.
    """
    newest = {contract.worker: contract for contract in sorted(contracts, key=lambda item: item.version)}
    found = violations(derive(from_contract(contract) for contract in contracts), policy)
    by_version = {(item.worker, str(item.version)): item for item in contracts}
    breaks = [
        _at_operation(contract, item)
        for item in schema_breaks(schemas)
        if (contract := by_version.get((item.worker, ".".join(map(str, item.version))))) is not None
    ]
    return sorted([*(_located(newest[item.worker], item) for item in found), *breaks])


def _at_operation(contract: Contract, broken: SchemaBreak) -> Problem:
    source = read_yaml(contract.path.read_bytes(), shown_path(contract.path))
    names = [entry.get("name") for entry in source.data["io_operations"]]
    place: Path = ("io_operations",)
    if broken.operation in names:
        place = ("io_operations", names.index(broken.operation), "name")
    position = source.position(place)
    return Problem(source.file, position.line, position.column, broken.message, broken.rule)


def _located(contract: Contract, violation: Violation) -> Problem:
    source = read_yaml(contract.path.read_bytes(), shown_path(contract.path))
    position = source.position(_place(source, violation))
    return Problem(source.file, position.line, position.column, violation.message, violation.rule)


def _place(source: YamlSource, violation: Violation) -> Path:
    """Return the path of the value that decides: the topic's own setting, else the worker's, else the topic."""
    if violation.setting == "max_record_bytes":
        return ("limits", "max_record_bytes")
    bus = source.data["event_bus"]
    for key in ("subscribe", "publish"):
        for index, entry in enumerate(bus.get(key, [])):
            settings = entry if isinstance(entry, dict) else {"topic": entry}
            if settings["topic"] == str(violation.topic):
                if violation.setting in settings:
                    return ("event_bus", key, index, violation.setting)
                if violation.setting != "partitions" or "partitions" not in bus:
                    return ("event_bus", key, index)
    return ("event_bus", "partitions")
