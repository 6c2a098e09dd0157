"""Contracts against one another: who produces, who consumes, and how many partitions there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnibase_infra.shared.contracts.discovery import discover_nodes
from omnibase_infra.shared.contracts.fleet_checks import Fleet, FleetPolicy, check_fleet, load_fleet
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.core.errors import ContractError
from omnibase_infra.shared.testing.contract_folder import ContractFolder

WORKER = """\
name: Node{camel}Effect
version: {{major: {major}, minor: {minor}, patch: 0}}
node_type: effect
description: A worker of a test's fleet.
event_bus:
  subscribe: [{subscribe}]
  publish: [onex.evt.{worker}.results.v1]
  partitions: {partitions}
io_operations: [{{name: do_it, kit: custom, request: ModelIt, read_only: true{extra}}}]
definitions: {{ModelIt: {{type: object}}}}
delivery: {{guarantee: at_least_once}}
"""


class TestFleet:
    """A folder of workers."""

    __test__ = False

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self,
        node: str,
        *,
        subscribe: str = "",
        extra: str = "",
        version: tuple[int, int] = (1, 0),
        partitions: int = 6,
        root: Path | None = None,
    ) -> ContractFolder:
        worker = node.replace("_", "-")
        folder = ContractFolder(root or self.root, node, f"v{version[0]}_{version[1]}_0")
        text = WORKER.format(
            camel=node.title().replace("_", ""),
            worker=worker,
            major=version[0],
            minor=version[1],
            subscribe=subscribe or f"onex.cmd.{worker}.requests.v1",
            partitions=partitions,
            extra=extra,
        )
        folder.write("contract.yaml", text)
        return folder

    def load(self, *roots: Path, policy: FleetPolicy | None = None) -> Fleet:
        nodes = discover_nodes([self.root, *roots])
        return load_fleet([location for versions in nodes.values() for location in versions], policy=policy)

    def found(self, *roots: Path, policy: FleetPolicy | None = None) -> list[tuple[str, str, int, int]]:
        problems = self.load(*roots, policy=policy).problems
        return [(p.rule, Path(p.file).parent.parent.name, p.line, p.column) for p in problems]


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    root = tmp_path / "workers"
    root.mkdir()
    return TestFleet(root)


ON_RESULTS = ", topic: onex.evt.{0}.results.v1, on: onex.evt.{0}.did-it.v1"


def test_workers_with_topics_of_their_own_fit_together(fleet: TestFleet) -> None:
    fleet.add("alpha")
    fleet.add("beta", subscribe="onex.evt.alpha.results.v1", extra=ON_RESULTS.format("alpha"))
    loaded = fleet.load()
    assert [contract.node for contract in loaded.require()] == ["alpha", "beta"]


def test_an_event_nobody_publishes_is_found_with_the_one_that_was_meant(fleet: TestFleet) -> None:
    fleet.add("alpha")
    fleet.add("beta", subscribe="onex.evt.alfa.results.v1", extra=ON_RESULTS.format("alfa"))
    assert fleet.found() == [(Rule.PRODUCER_MISSING.id, "beta", 6, 15)]
    assert "did you mean 'onex.evt.alpha.results.v1'" in fleet.load().problems[0].message
    with pytest.raises(ContractError, match="CT503"):
        fleet.load().require()


def test_an_external_event_needs_no_producer_and_may_have_none_in_the_fleet(fleet: TestFleet) -> None:
    outside = "{topic: onex.evt.shop.results.v1, external: true}"
    fleet.add("beta", subscribe=outside, extra=ON_RESULTS.format("shop"))
    assert fleet.found() == []
    fleet.add("shop")
    assert fleet.found() == [(Rule.PRODUCER_MISSING.id, "beta", 6, 59)]


def test_two_majors_of_a_node_do_not_share_a_command_topic(fleet: TestFleet) -> None:
    fleet.add("alpha")
    fleet.add("alpha", version=(1, 1))
    assert fleet.found() == []
    fleet.add("alpha", version=(2, 0))
    assert fleet.found() == [(Rule.COMMAND_CONSUMERS.id, "alpha", 6, 15)]
    fleet.add("alpha", version=(2, 0), subscribe="onex.cmd.alpha.requests.v2")
    assert fleet.found() == []


def test_a_node_is_in_one_folder(fleet: TestFleet, tmp_path: Path) -> None:
    other = tmp_path / "more"
    fleet.add("alpha")
    fleet.add("alpha", root=other)
    assert fleet.found(other) == [(Rule.NODE_TWICE.id, "alpha", 1, 7)]


def test_partitions_of_a_topic_are_its_owners_to_state(fleet: TestFleet) -> None:
    fleet.add("alpha", partitions=6)
    subscribe = "{topic: onex.evt.alpha.results.v1, partitions: %d}"
    fleet.add("beta", subscribe=subscribe % 12, extra=ON_RESULTS.format("alpha"))
    assert fleet.found() == [(Rule.TOPIC_SETTINGS.id, "beta", 6, 62)]
    fleet.add("beta", subscribe=subscribe % 6, extra=ON_RESULTS.format("alpha"))
    assert fleet.found() == []


def test_versions_of_a_node_agree_on_partitions(fleet: TestFleet) -> None:
    fleet.add("alpha", partitions=6)
    fleet.add("alpha", version=(1, 1), partitions=12)
    assert [rule for rule, *_ in fleet.found()] == [Rule.TOPIC_SETTINGS.id]


def test_the_partition_budget_counts_derived_topics(fleet: TestFleet) -> None:
    fleet.add("alpha", partitions=2)
    fleet.add("beta", partitions=10)
    total = (2 * 3 + 3) + (10 * 3 + 3)
    assert fleet.found(policy=FleetPolicy(partition_budget=total)) == []
    assert fleet.found(policy=FleetPolicy(partition_budget=total - 1)) == [(Rule.PARTITION_BUDGET.id, "beta", 8, 15)]


def test_a_broken_contract_hides_no_problem_of_the_others(fleet: TestFleet) -> None:
    fleet.add("alpha").replace(("node_type: effect", "node_type: efect"))
    fleet.add("beta", subscribe="onex.evt.alpha.results.v1", extra=ON_RESULTS.format("alpha"))
    fleet.add("gamma")
    fleet.add("gamma", version=(2, 0))
    assert [(rule, node) for rule, node, *_ in fleet.found()] == [
        (Rule.WRONG_CHOICE.id, "alpha"),
        (Rule.COMMAND_CONSUMERS.id, "gamma"),
    ]


def test_no_contracts_are_no_problem() -> None:
    assert check_fleet([], FleetPolicy()) == []
