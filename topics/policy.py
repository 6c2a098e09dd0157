"""What a fleet may ask of a cluster, in one value, and where it asks for too much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from omnibase_infra.shared.contracts.units import format_duration
from omnibase_infra.shared.core.errors import ContractError, Problem
from omnibase_infra.shared.core.naming import TopicName, dead_letter_actions_topic
from omnibase_infra.topics.catalogue import DAY, Catalogue, TopicEntry
from omnibase_infra.topics.declarations import Declaration

HOUR: Final = 3600.0


class TopicPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on topics. Retention in seconds.

    Attributes:
        max_partitions: of one topic; each costs memory and recovery time on every broker that has a copy.
        partition_budget: of all topics of a fleet together, retry and dead-letter topics included.
        min_retention: shorter would lose records in an outage of ordinary length.
        max_retention: longer is an archive, which a topic is not.
        max_message_bytes: of one record with its headers; larger ones belong in a store, with a reference on the wire.
    """

    max_partitions: int = 200
    partition_budget: int = 4000
    min_retention: float = 1 * HOUR
    max_retention: float = 400 * DAY
    max_message_bytes: int = 65 * 1024 * 1024


class Violation(msgspec.Struct, frozen=True, order=True):
    """A topic, or the fleet as a whole, beyond the policy.

    Attributes:
        worker: whose contract states it.
        topic: None for the fleet as a whole.
        setting: the contract's key that decides it.
    """

    worker: str
    topic: TopicName | None
    setting: str
    message: str
    rule: str


DEFAULT_POLICY: Final = TopicPolicy()


def violations(catalogue: Catalogue, policy: TopicPolicy = DEFAULT_POLICY) -> list[Violation]:
    """Return everything beyond the policy, sorted. External topics are other people's business."""
    found = [item for entry in catalogue.entries if _is_stated(entry) for item in _of_topic(entry, policy)]
    return sorted([*found, *_of_fleet(catalogue, policy)], key=lambda item: (item.worker, str(item.topic), item.rule))


def require_policy(
    catalogue: Catalogue, declarations: Iterable[Declaration], policy: TopicPolicy = DEFAULT_POLICY
) -> None:
    """Refuse a catalogue beyond the policy, naming each contract. `omninode topics lint` also finds the line.

    Raises:
        ContractError: holds every violation.
    """
    if found := violations(catalogue, policy):
        files = {item.worker: item.contract for item in sorted(declarations, key=lambda item: item.version)}
        raise ContractError([Problem(files[item.worker], 1, 1, item.message, item.rule) for item in found])


def _is_stated(entry: TopicEntry) -> bool:
    """Retry topics follow their sources, and topics about dead letters have nothing a contract could change."""
    actions = dead_letter_actions_topic(entry.owner, entry.topic.version)
    return not entry.external and entry.kind not in ("retry", "dlq") and entry.topic != actions


def _of_topic(entry: TopicEntry, policy: TopicPolicy) -> Iterable[Violation]:
    if entry.partitions > policy.max_partitions:
        message = f"{entry.topic} has {entry.partitions} partitions, at most {policy.max_partitions} are allowed"
        yield Violation(entry.owner, entry.topic, "partitions", message, "TP001")
    retention = entry.retention_seconds
    if retention is not None and not policy.min_retention <= retention <= policy.max_retention:
        message = (
            f"{entry.topic} keeps records for {format_duration(retention)}, between "
            f"{format_duration(policy.min_retention)} and {format_duration(policy.max_retention)} are allowed"
        )
        yield Violation(entry.owner, entry.topic, "retention", message, "TP002")
    size = int(entry.config["max.message.bytes"])
    if size > policy.max_message_bytes:
        message = f"{entry.topic} takes records of {size} bytes, at most {policy.max_message_bytes} are allowed"
        yield Violation(entry.owner, entry.topic, "max_record_bytes", message, "TP003")


def _of_fleet(catalogue: Catalogue, policy: TopicPolicy) -> Sequence[Violation]:
    shares: dict[str, int] = {}
    for entry in catalogue.entries:
        if not entry.external:
            shares[entry.owner] = shares.get(entry.owner, 0) + entry.partitions
    total = sum(shares.values())
    if total <= policy.partition_budget:
        return []
    worker = max(sorted(shares), key=lambda name: shares[name])
    message = (
        f"the fleet has {total} partitions, retry and dead-letter topics included, at most "
        f"{policy.partition_budget} are allowed; {worker} has most, {shares[worker]}"
    )
    return [Violation(worker, None, "partitions", message, "TP004")]
