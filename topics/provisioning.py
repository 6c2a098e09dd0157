"""Bring a cluster to the catalogue, and say where it differs. Nothing is ever deleted.

`apply` may be killed, run again and run by several processes at once: every step looks before it changes, and one that
somebody else has done meanwhile counts as done. What cannot be done is reported beside what was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Literal

import msgspec

from omnibase_infra.shared.core.errors import ClusterRefusedError, DependencyUnavailableError, OmnibaseError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.topics.catalogue import Catalogue
from omnibase_infra.topics.changes import (
    Action,
    AddPartitions,
    AlterConfig,
    CommitFirstOffsets,
    CreateTopic,
    Plan,
    Refusal,
)
from omnibase_infra.topics.cluster import Partition, TopicAdmin, read_state
from omnibase_infra.topics.planning import plan

# Each round is only needed when somebody else changes the same topics at the same time.
MAX_ROUNDS: Final = 5

Outcome = Literal["done", "already", "failed", "skipped"]

__all__ = ["ApplyReport", "DriftReport", "Failure", "Outcome", "apply", "check", "plan", "plan_cluster", "provision"]


class Failure(msgspec.Struct, frozen=True):
    """An action that was not done, and why."""

    action: Action
    reason: str


class ApplyReport(msgspec.Struct, frozen=True):
    """What an apply did and what it left.

    Attributes:
        done: actions that were done by this call.
        already: actions that somebody else had done since the plan was made.
        failed: actions that the cluster refused.
        skipped: actions that were not tried because the cluster could not be reached any more.
        refusals: what the plan itself left alone.
    """

    done: tuple[Action, ...] = ()
    already: tuple[Action, ...] = ()
    failed: tuple[Failure, ...] = ()
    skipped: tuple[Action, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is left."""
        return not (self.failed or self.skipped or self.refusals)


class DriftReport(msgspec.Struct, frozen=True):
    """Where contracts and cluster differ: what `apply` would do, what it would refuse, and topics nobody declares."""

    plan: Plan
    stray: tuple[str, ...] = ()

    @property
    def has_drift(self) -> bool:
        """Return whether anything differs."""
        return bool(self.stray) or not self.plan.is_empty


def plan_cluster(admin: TopicAdmin, catalogue: Catalogue, realm: Realm, *, allow_repartition: bool = False) -> Plan:
    """Ask a cluster for its state and return the plan; see `plan` for what it holds, `TopicAdmin` for what it raises."""
    return plan(catalogue, read_state(admin, catalogue, realm), realm, allow_repartition=allow_repartition)


def check(admin: TopicAdmin, catalogue: Catalogue, realm: Realm, fleet: Catalogue | None = None) -> DriftReport:
    """Compare a cluster with the catalogue.

    Args:
        admin: of the cluster.
        catalogue: the topics to compare.
        realm: whose topics are looked at.
        fleet: every topic there should be, when `catalogue` holds only some; the rest of the realm is stray.
    """
    declared = {entry.topic.physical(realm) for entry in (fleet or catalogue).entries}
    stray = set(admin.topics(f"{realm}.")) - declared
    return DriftReport(plan_cluster(admin, catalogue, realm), tuple(sorted(stray)))


def provision(
    admin: TopicAdmin,
    catalogue: Catalogue,
    realm: Realm,
    *,
    allow_repartition: bool = False,
    progress: Callable[[Action, Outcome], None] | None = None,
) -> ApplyReport:
    """Plan and apply until nothing is left to do: what somebody else created meanwhile may still differ.

    Returns:
        What all rounds did together, and what is left.
    """
    whole = ApplyReport()
    for _ in range(MAX_ROUNDS):
        planned = plan_cluster(admin, catalogue, realm, allow_repartition=allow_repartition)
        report = apply(admin, planned, progress)
        whole = ApplyReport(
            (*whole.done, *report.done),
            (*whole.already, *report.already),
            report.failed,
            report.skipped,
            report.refusals,
        )
        if not report.already:
            break
    return whole


def apply(admin: TopicAdmin, planned: Plan, progress: Callable[[Action, Outcome], None] | None = None) -> ApplyReport:
    """Do what a plan says, in its order, and report what was done and what is left.

    An action that the cluster refuses keeps back only what builds on it. When the cluster cannot be reached any more,
    the rest is skipped; the next apply carries on from there.

    Args:
        admin: of the cluster the plan was made for.
        planned: what to do.
        progress: told each action and what became of it.
    """
    outcomes: dict[Outcome, list[Action]] = {"done": [], "already": [], "skipped": []}
    failures: list[Failure] = []
    broken: set[str] = set()
    reachable = True
    for action in planned.actions:
        outcome: Outcome = "skipped"
        if reachable:
            try:
                outcome = _attempt(admin, action, broken)
            except OmnibaseError as error:
                outcome = "failed"
                failures.append(Failure(action, str(error)))
                if not isinstance(action, AlterConfig):
                    broken.add(action.topic)
                reachable = not isinstance(error, DependencyUnavailableError)
        if outcome != "failed":
            outcomes[outcome].append(action)
        if progress is not None:
            progress(action, outcome)
    return ApplyReport(
        tuple(outcomes["done"]),
        tuple(outcomes["already"]),
        tuple(failures),
        tuple(outcomes["skipped"]),
        planned.refusals,
    )


def _attempt(admin: TopicAdmin, action: Action, broken: Collection[str]) -> Outcome:
    """Do one action; `broken` are topics on which something failed before."""
    needed = action.after if isinstance(action, CreateTopic) else (action.topic,)
    if base := next((topic for topic in needed if topic in broken), None):
        raise ClusterRefusedError(f"not tried, since something failed on {base} before")
    return "done" if _do(admin, action) else "already"


def _do(admin: TopicAdmin, action: Action) -> bool:
    """Return whether the cluster was changed; False when somebody else had done it meanwhile."""
    match action:
        case CreateTopic():
            return admin.create(action.topic, action.partitions, action.replication, action.config)
        case AddPartitions():
            return admin.add_partitions(action.topic, action.after)
        case AlterConfig():
            admin.alter(action.topic, {key: change.after for key, change in action.changes.items()})
            return True
        case CommitFirstOffsets():
            return _commit(admin, action)


def _commit(admin: TopicAdmin, action: CommitFirstOffsets) -> bool:
    """Commit where there is still nothing; a worker or another apply may have been faster."""
    places = {Partition(action.topic, number): offset for number, offset in action.offsets.items()}
    committed = admin.group(action.group, list(places)).committed
    missing = {partition: offset for partition, offset in places.items() if partition not in committed}
    if not missing:
        return False
    marks = admin.watermarks(list(missing))
    # Retention may have moved the beginning since the plan was made.
    offsets = {partition: max(offset, marks[partition].low) for partition, offset in missing.items()}
    admin.commit(action.group, offsets)
    return True
