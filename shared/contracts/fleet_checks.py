"""Contracts against one another: producers and consumers, names, partitions."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from omnibase_infra.shared.contracts.discovery import NodeLocation
from omnibase_infra.shared.contracts.kits import BUILT_IN_KITS, KitSchema
from omnibase_infra.shared.contracts.loader import load_contract, shown_path
from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.schema_check import did_you_mean
from omnibase_infra.shared.contracts.yaml_source import Path, YamlSource, read_yaml
from omnibase_infra.shared.core.errors import ContractError, Problem
from omnibase_infra.shared.core.naming import TopicName, dead_letter_actions_topic, resolutions_topic


class FleetPolicy(msgspec.Struct, frozen=True):
    """What a fleet may use of a cluster.

    Attributes:
        partition_budget: partitions of all topics of the fleet together, retry and dead-letter topics included.
    """

    partition_budget: int = 4000


class Fleet(msgspec.Struct, frozen=True):
    """What could be loaded, and every problem of the contracts and between them."""

    contracts: tuple[Contract, ...]
    problems: tuple[Problem, ...]

    def require(self) -> tuple[Contract, ...]:
        """Return the contracts.

        Raises:
            ContractError: there are problems; it holds all of them.
        """
        if self.problems:
            raise ContractError(self.problems)
        return self.contracts


def load_fleet(
    locations: Iterable[NodeLocation],
    kits: Mapping[str, KitSchema] = BUILT_IN_KITS,
    policy: FleetPolicy | None = None,
) -> Fleet:
    """Load contracts and check them, each by itself and all together."""
    contracts: list[Contract] = []
    problems: list[Problem] = []
    for location in locations:
        try:
            contracts.append(load_contract(location.path, kits))
        except ContractError as error:
            problems.extend(error.problems)
    problems.extend(check_fleet(contracts, policy or FleetPolicy(), complete=not problems))
    return Fleet(tuple(contracts), tuple(sorted(problems)))


def check_fleet(contracts: Sequence[Contract], policy: FleetPolicy, *, complete: bool = True) -> list[Problem]:
    """Return every problem between contracts, sorted.

    Args:
        contracts: contracts that passed their own checks.
        policy: what the fleet may use.
        complete: whether these are all contracts; else absent producers are nobody's mistake.
    """
    checker = _FleetChecker(contracts)
    checker.check_nodes()
    checker.check_command_topics()
    checker.check_topic_settings()
    if complete:
        checker.check_producers()
        checker.check_budget(policy)
    return sorted(checker.problems)


class _FleetChecker:
    """Collects problems; a contract's file is read again only to locate one."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self._contracts = contracts
        self.problems: list[Problem] = []

    def _report(self, rule: Rule, message: str, contract: Contract, path: Path) -> None:
        source = _source_of(contract)
        position = source.position(path)
        self.problems.append(Problem(source.file, position.line, position.column, message, rule.id))

    def check_nodes(self) -> None:
        """Two contracts of one node and version would be one worker."""
        seen: dict[tuple[str, str], Contract] = {}
        for contract in self._contracts:
            other = seen.setdefault((contract.worker, str(contract.version)), contract)
            if other is not contract:
                message = f"{contract.node} {contract.version} is also in {shown_path(other.path)}; rename one of them"
                self._report(Rule.NODE_TWICE, message, contract, ("name",))

    def check_command_topics(self) -> None:
        """Minor versions of a node share a consumer group; other versions and nodes would both do a command."""
        consumers: dict[TopicName, Contract] = {}
        for contract in self._contracts:
            for index, subscription in enumerate(contract.event_bus.subscribe):
                if subscription.topic.kind != "cmd":
                    continue
                other = consumers.setdefault(subscription.topic, contract)
                if (other.worker, other.version.major) != (contract.worker, contract.version.major):
                    message = (
                        f"{subscription.topic} is already consumed by {other.node} {other.version}; "
                        "a command must be done once, so use a topic of another version"
                    )
                    self._report(Rule.COMMAND_CONSUMERS, message, contract, ("event_bus", "subscribe", index))

    def check_topic_settings(self) -> None:
        """Whoever names partitions of a topic agrees with its owner."""
        owners = self._owners()
        for contract in self._contracts:
            for index, item in enumerate(contract.event_bus.subscribe):
                owner = owners.get(item.topic)
                if owner is None or owner is contract:
                    continue
                path: Path = ("event_bus", "subscribe", index)
                owned = owner.worker == contract.worker
                stated = contract.partitions_of(item.topic) if owned else item.partitions
                wanted = owner.partitions_of(item.topic)
                if stated is not None and stated != wanted:
                    message = f"{item.topic} has {wanted} partitions by {owner.node} {owner.version}, not {stated}"
                    self._report(Rule.TOPIC_SETTINGS, message, contract, (*path, "partitions"))

    def _owners(self) -> dict[TopicName, Contract]:
        """The contract that speaks for a topic: of its producer's versions the newest."""
        owners: dict[TopicName, Contract] = {}
        for contract in sorted(self._contracts, key=lambda contract: contract.version):
            commands = [item.topic for item in contract.event_bus.subscribe if item.topic.kind == "cmd"]
            for topic in (*commands, *(item.topic for item in contract.event_bus.publish)):
                if topic.producer == contract.worker:
                    owners[topic] = contract
        return owners

    def check_producers(self) -> None:
        """Events somebody waits for are published by somebody, in this fleet or outside."""
        published: dict[TopicName, Contract] = {
            item.topic: contract for contract in self._contracts for item in contract.event_bus.publish
        }
        for contract in self._contracts:
            for index, item in enumerate(contract.event_bus.subscribe):
                path: Path = ("event_bus", "subscribe", index)
                producer = published.get(item.topic)
                if item.topic.kind != "cmd" and producer is None and not item.external:
                    hint = did_you_mean(str(item.topic), map(str, published))
                    message = (
                        f"no contract publishes {item.topic}{hint or '; mark it `external: true` if it is outside'}"
                    )
                    self._report(Rule.PRODUCER_MISSING, message, contract, path)
                elif item.external and producer is not None:
                    message = f"{item.topic} is not external: {producer.node} publishes it"
                    self._report(Rule.PRODUCER_MISSING, message, contract, (*path, "external"))

    def check_budget(self, policy: FleetPolicy) -> None:
        """All partitions together fit the policy; the message names who uses most."""
        shares: dict[str, int] = {}
        counted: set[TopicName] = set()
        for contract in self._contracts:
            for topic, partitions in _topics_of(contract).items():
                if topic not in counted:
                    counted.add(topic)
                    shares[contract.worker] = shares.get(contract.worker, 0) + partitions
        total = sum(shares.values())
        if total > policy.partition_budget:
            worker = max(sorted(shares), key=lambda name: shares[name])
            message = (
                f"the fleet has {total} partitions, retry and dead-letter topics included, at most "
                f"{policy.partition_budget} are allowed; {worker} has most, {shares[worker]}"
            )
            contract = next(contract for contract in self._contracts if contract.worker == worker)
            self._report(Rule.PARTITION_BUDGET, message, contract, ("event_bus", "partitions"))


def _topics_of(contract: Contract) -> dict[TopicName, int]:
    """Partitions of every topic that exists because of this contract."""
    worker, major = contract.worker, contract.version.major
    topics = {
        contract.dead_letter_topic: 1,
        resolutions_topic(worker, major): 1,
        dead_letter_actions_topic(worker, major): 1,
    }
    for subscription in contract.event_bus.subscribe:
        partitions = contract.partitions_of(subscription.topic)
        topics[contract.retry_topic(subscription.topic)] = partitions
        if subscription.topic.kind == "cmd":
            topics[subscription.topic] = partitions
    for publication in contract.event_bus.publish:
        topics[publication.topic] = contract.partitions_of(publication.topic)
    return topics


@functools.lru_cache(maxsize=16)
def _source(content: bytes, shown: str) -> YamlSource:
    return read_yaml(content, shown)


def _source_of(contract: Contract) -> YamlSource:
    return _source(contract.path.read_bytes(), shown_path(contract.path))
