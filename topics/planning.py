"""From the catalogue and the state of a cluster to a plan. Pure: nothing is asked and nothing is changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.topics.catalogue import Catalogue, Reader, TopicEntry
from omnibase_infra.topics.changes import (
    Action,
    AddPartitions,
    AlterConfig,
    Change,
    CommitFirstOffsets,
    CreateTopic,
    Plan,
    Refusal,
)
from omnibase_infra.topics.cluster import ClusterState, TopicState
from omnibase_infra.topics.first_offsets import first_offsets


def plan(catalogue: Catalogue, state: ClusterState, realm: Realm, *, allow_repartition: bool = False) -> Plan:
    """Return what brings a cluster to the catalogue.

    Order matters: topics, the first offsets on them, then retry topics and theirs, then dead-letter topics. A retry
    topic so says that a subscription was prepared, and a dead-letter topic that a group was; an apply that dies in
    between is finished by the next one. For the same reason neither is created while what it stands for cannot be done.

    Args:
        catalogue: the topics that there should be.
        state: the topics and groups that there are.
        realm: of both.
        allow_repartition: also grow topics whose readers rely on order by key; their keys then move.
    """
    planner = _Planner(catalogue, state, realm, allow_repartition)
    sources = [entry for entry in catalogue.entries if entry.kind not in ("retry", "dlq")]
    retries = [entry for entry in catalogue.entries if entry.kind == "retry"]
    dead_letters = [entry for entry in catalogue.entries if entry.kind == "dlq"]
    # Sources come first: retry topics take their partition counts from them.
    steps = [[action for entry in part for action in planner.topic(entry)] for part in (sources, retries, dead_letters)]
    commits, lost, unprepared = first_offsets(catalogue, state, realm, planner.partitions)
    steps = [[action for action in part if not _waits_for(action, unprepared)] for part in steps]
    created = {action.topic for part in steps for action in part if isinstance(action, CreateTopic)}
    commits = [commit for commit in commits if commit.topic in created or commit.topic in state.topics]
    of_retries = {entry.topic.physical(realm) for entry in retries}
    actions: list[Action] = [
        *steps[0],
        *(commit for commit in commits if commit.topic not in of_retries),
        *steps[1],
        *(commit for commit in commits if commit.topic in of_retries),
        *steps[2],
    ]
    touched = {action.topic for action in actions} | {refusal.subject for refusal in planner.refusals}
    names = [entry.topic.physical(realm) for entry in catalogue.entries]
    unchanged = tuple(name for name in names if name not in touched)
    return Plan(tuple(actions), (*planner.refusals, *lost), unchanged)


def _waits_for(action: Action, unprepared: Collection[str]) -> bool:
    return isinstance(action, CreateTopic) and any(topic in unprepared for topic in action.after)


class _Planner:
    """Decides topic by topic; sources come before the retry topics that follow them.

    Attributes:
        partitions: how many partitions each physical topic is going to have.
        refusals: what differs and stays.
    """

    def __init__(self, catalogue: Catalogue, state: ClusterState, realm: Realm, allow_repartition: bool) -> None:
        self._catalogue = catalogue
        self._state = state
        self._realm = realm
        self._allow_repartition = allow_repartition
        self.partitions: dict[str, int] = {}
        self.refusals: list[Refusal] = []

    def topic(self, entry: TopicEntry) -> list[Action]:
        """Return the actions for one topic."""
        name = entry.topic.physical(self._realm)
        wanted = self._wanted(entry)
        actual = self._state.topics.get(name)
        if actual is None:
            self.partitions[name] = wanted
            return [CreateTopic(name, wanted, self._catalogue.replication, entry.config, self._before(entry))]
        self.partitions[name] = actual.partitions
        if entry.external:
            return []
        return [*self._growth(entry, name, actual, wanted), *self._alteration(entry, name, actual)]

    def _before(self, entry: TopicEntry) -> tuple[str, ...]:
        """Return the topics that must be prepared before this one is created."""
        if entry.source is not None:
            return (entry.source.physical(self._realm),)
        if entry.kind != "dlq":
            return ()
        group = Reader(entry.owner, entry.topic.version)
        return tuple(item.topic.physical(self._realm) for item in self._catalogue.readers().get(group, ()))

    def _wanted(self, entry: TopicEntry) -> int:
        """A retry topic has the partitions its source really has, so that records keep their partition numbers."""
        return entry.partitions if entry.source is None else self.partitions[entry.source.physical(self._realm)]

    def _growth(self, entry: TopicEntry, name: str, actual: TopicState, wanted: int) -> list[AddPartitions]:
        if wanted == actual.partitions:
            return []
        if wanted < actual.partitions:
            reason = f"has {actual.partitions} partitions, {wanted} are wanted, and Kafka cannot take partitions away"
            hint = "set `partitions` in the contract to what the topic has, or start a new version of the topic"
        # Records go to the same partition number of the retry topic, so its growth moves no key by itself.
        elif entry.keyed and entry.source is None and not self._allow_repartition:
            reason = f"has {actual.partitions} partitions, {wanted} are wanted, and keys would move between partitions"
            hint = "drain the topic, then apply with --allow-repartition"
        else:
            self.partitions[name] = wanted
            return [AddPartitions(name, actual.partitions, wanted)]
        self.refusals.append(Refusal(name, reason, hint))
        return []

    def _alteration(self, entry: TopicEntry, name: str, actual: TopicState) -> list[AlterConfig]:
        wanted: Mapping[str, str] = entry.config
        if actual.replication < self._catalogue.replication:
            copies = counted(actual.replication, "copy", "copies")
            reason = f"has {copies} of a partition, {self._catalogue.replication} are wanted"
            self.refusals.append(Refusal(name, reason, "reassign its partitions with kafka-reassign-partitions.sh"))
            # More copies in sync than there are copies would stop every write.
            wanted = {key: value for key, value in wanted.items() if key != "min.insync.replicas"}
        changes = {
            key: Change(actual.config.get(key), value)
            for key, value in wanted.items()
            if actual.config.get(key) != value
        }
        return [AlterConfig(name, changes)] if changes else []


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 partition`, `3 partitions`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def describe(action: Action) -> str:
    """Return an action as one line for people."""
    match action:
        case CreateTopic(topic, partitions, replication, config, _):
            settings = ", ".join(f"{key}={value}" for key, value in sorted(config.items()))
            counts = f"{counted(partitions, 'partition')}, {counted(replication, 'copy', 'copies')}"
            return f"create {topic}: {counts}, {settings}"
        case AddPartitions(topic, before, after):
            return f"add partitions to {topic}: {before} → {after}"
        case AlterConfig(topic, changes):
            settings = ", ".join(f"{key} {change.before} → {change.after}" for key, change in sorted(changes.items()))
            return f"alter {topic}: {settings}"
        case CommitFirstOffsets(group, topic, offsets):
            places = ", ".join(f"[{numbers}] at {offset}" for numbers, offset in _runs(offsets))
            return f"commit first offsets of {group} on {topic}{places}"


def _runs(offsets: Mapping[int, int]) -> list[tuple[str, int]]:
    """Return neighbouring partitions with one offset as `0-5`, with that offset."""
    runs: list[tuple[int, int, int]] = []
    for number, offset in sorted(offsets.items()):
        if runs and runs[-1][1:] == (number - 1, offset):
            runs[-1] = (runs[-1][0], number, offset)
        else:
            runs.append((number, number, offset))
    return [(f"{first}-{last}" if last > first else f"{first}", offset) for first, last, offset in runs]
