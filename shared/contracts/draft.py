"""A contract under construction: built from whatever part of the file is usable, so that one mistake hides no other.

Parts that the schema refused are left out and their defaults stand in; every part remembers its place in the file.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, Final, Generic, NamedTuple, TypeVar

from omnibase_infra.shared.contracts.kits import KitSchema
from omnibase_infra.shared.contracts.model import (
    CONTROL_EVENT,
    Batch,
    Capability,
    Contract,
    DeadLetterLimit,
    Delivery,
    Dependency,
    EventBus,
    Limits,
    Operation,
    Publication,
    RateLimit,
    Resources,
    RetryPolicy,
    Subscription,
    Version,
)
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.units import parse_duration, parse_rate
from omnibase_infra.shared.contracts.yaml_source import Path, YamlSource
from omnibase_infra.shared.core.errors import InvalidNameError
from omnibase_infra.shared.core.naming import TopicName, operation_type, worker_name

T = TypeVar("T")

CONTRACT_FILE: Final = "contract.yaml"
VERSION_FOLDER: Final = re.compile(r"v(0|[1-9][0-9]{0,3})_(0|[1-9][0-9]{0,3})_(0|[1-9][0-9]{0,3})\Z", re.ASCII)
NODE_FOLDER: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*\Z", re.ASCII)

_CLASS_NAME: Final = re.compile(r"Node([A-Z][A-Za-z0-9]*)(Effect|Compute|Reducer|Orchestrator)\Z", re.ASCII)
_UNNAMED: Final = "unnamed"
_MAX_NODE_LENGTH: Final = 100
_IDENTIFYING: Final = ("name", "topic", "type", "kit", "on", "statement", "statements", "request", "response", "needs")


class Located(NamedTuple, Generic[T]):
    """A part of a contract and its place in the document."""

    item: T
    path: Path


class Draft(NamedTuple):
    """What the checks look at.

    `named` tells whether the worker's own name is known; `unread` holds the paths that were left out or misspelt.
    """

    contract: Contract
    source: YamlSource
    data: Mapping[str, Any]
    kits: Mapping[str, KitSchema]
    unread: frozenset[Path]
    named: bool
    subscriptions: tuple[Located[Subscription], ...]
    publications: tuple[Located[Publication], ...]
    operations: tuple[Located[Operation], ...]
    dependencies: tuple[Located[Dependency], ...]
    capabilities: tuple[Located[Capability], ...]
    rate_limits: tuple[Located[RateLimit], ...]

    def report(self, rule: Rule, message: str, path: Path, *, of_key: bool = False) -> None:
        """Add a problem at a place of the document."""
        self.source.add(rule, message, self.source.position(path, of_key=of_key))

    def has(self, path: Path) -> bool:
        """Return whether the document states a usable value at `path`."""
        value: Any = self.data
        for part in path:
            container: Any = value
            inside = isinstance(container, dict) and part in container
            if not inside and not (isinstance(container, list) and 0 <= int(part) < len(container)):
                return False
            value = container[part]
        return value is not None

    def whole(self, path: Path) -> bool:
        """Return whether the value at `path`, or its absence, is as meant: neither it nor an entry's name was left out.

        Checks ask before they miss something: what is missing may be what could not be read.
        """
        below = (place[len(path) :] for place in self.unread if place[: len(path)] == path)
        entries = any(len(rest) == 1 or (len(rest) == 2 and rest[1] in _IDENTIFYING) for rest in below)
        return self.readable(path) and not entries

    def readable(self, path: Path) -> bool:
        """Return whether neither the value at `path` nor one around it was left out or misspelt."""
        return not any(path[: len(place)] == place for place in self.unread)


def class_name(node: str, node_type: str) -> str:
    """Return the class name that belongs to a folder: `order_store`, `effect` → `NodeOrderStoreEffect`."""
    return f"Node{''.join(part.capitalize() for part in node.split('_'))}{node_type.capitalize()}"


def node_of_class(name: str) -> str:
    """Return the folder that belongs to a class name, or nothing when it is none of a node."""
    match = _CLASS_NAME.match(name)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", match[1]).lower() if match else ""


def versioned_folder(path: FilePath) -> bool:
    """Return whether a contract file lies as `<node>/v<M>_<m>_<p>/contract.yaml`."""
    return path.name == CONTRACT_FILE and bool(VERSION_FOLDER.match(path.parent.name))


def prune(data: Any, unusable: Iterable[Path]) -> dict[str, Any]:
    """Return a copy of the document without the values at `unusable`; list items become None."""
    pruned: Any = copy.deepcopy(data)
    for path in sorted(unusable, key=len, reverse=True):
        if not path:
            return {}
        parent: Any = pruned
        for part in path[:-1]:
            parent = parent[part]
        if isinstance(parent, dict):
            parent.pop(path[-1], None)
        elif isinstance(parent, list):
            parent[int(path[-1])] = None
    return pruned if isinstance(pruned, dict) else {}


def build_draft(source: YamlSource, unusable: set[Path], path: FilePath, kits: Mapping[str, KitSchema]) -> Draft:
    """Build what can be built without the values at `unusable`.

    Never fails; names that break the grammar are reported.
    """
    draft = _DraftBuilder(source, prune(source.data, unusable), path, kits).build()
    return draft._replace(unread=frozenset(unusable | source.misspelt))


class _DraftBuilder:
    """Holds what every part needs to know: the worker's name, its major version and its topics."""

    def __init__(self, source: YamlSource, data: dict[str, Any], path: FilePath, kits: Mapping[str, KitSchema]) -> None:
        self._source = source
        self._data = data
        self._path = path
        self._kits = kits
        version = data.get("version", {})
        self._version = Version(version.get("major", 1), version.get("minor", 0), version.get("patch", 0))
        self._node, self._named = self._find_node()
        self._worker = worker_name(self._node)
        bus = data.get("event_bus", {})
        self._subscriptions = tuple(self._read_subscriptions(bus))
        self._publications = tuple(self._read_publications(bus))

    def build(self) -> Draft:
        data = self._data
        operations = tuple(self._read_operations())
        dependencies = tuple(_located(data, "dependencies", _dependency))
        capabilities = tuple(_located(data, "capabilities", _capability))
        rate_limits = tuple(_located(data, "rate_limits", _rate_limit))
        bus = self._event_bus(data.get("event_bus", {}))
        contract = Contract(
            name=data.get("name", ""),
            node=self._node,
            worker=self._worker,
            version=self._version,
            node_type=data.get("node_type", "effect"),
            description=data.get("description", ""),
            event_bus=bus,
            operations=tuple(located.item for located in operations),
            delivery=_delivery(data.get("delivery", {})),
            path=self._path,
            capabilities=tuple(located.item for located in capabilities),
            dependencies=tuple(located.item for located in dependencies),
            definitions=data.get("definitions", {}),
            idempotency=data.get("idempotency", ""),
            rate_limits=tuple(located.item for located in rate_limits),
            resources=_resources(data.get("resources", {}), bus),
            limits=Limits(**data.get("limits", {})),
        )
        return Draft(
            contract=contract,
            source=self._source,
            data=data,
            kits=self._kits,
            unread=frozenset(),
            named=self._named,
            subscriptions=self._subscriptions,
            publications=self._publications,
            operations=operations,
            dependencies=dependencies,
            capabilities=capabilities,
            rate_limits=rate_limits,
        )

    def _find_node(self) -> tuple[str, bool]:
        """The folder names the node; outside the usual layout the class name does."""
        derived = node_of_class(self._data.get("name", ""))
        if not versioned_folder(self._path):
            return (derived, True) if derived else (_UNNAMED, False)
        folder = self._path.parent.parent.name
        if NODE_FOLDER.match(folder) and len(folder) <= _MAX_NODE_LENGTH:
            return folder, True
        message = f"the folder {folder!r} is not a node name, expected snake case like order_store"
        self._source.add(Rule.NAME_FOLDER, message, self._source.position(("name",)))
        return (derived, True) if derived else (_UNNAMED, False)

    def _topic(self, text: Any, path: Path) -> TopicName | None:
        if not isinstance(text, str):
            return None
        try:
            return TopicName.parse(text)
        except InvalidNameError as error:
            self._source.add(Rule.TOPIC_NAME, str(error), self._source.position(path))
            return None

    def _entries(self, bus: Mapping[str, Any], key: str) -> Iterable[tuple[TopicName, dict[str, Any], Path]]:
        for index, entry in enumerate(bus.get(key, [])):
            path: Path = ("event_bus", key, index)
            settings = entry if isinstance(entry, dict) else {}
            topic = self._topic(settings.get("topic", entry), (*path, "topic"))
            if topic is not None:
                yield topic, settings, path

    def _read_subscriptions(self, bus: Mapping[str, Any]) -> Iterable[Located[Subscription]]:
        for topic, settings, path in self._entries(bus, "subscribe"):
            yield Located(
                Subscription(
                    topic=topic,
                    external=settings.get("external", False),
                    partitions=settings.get("partitions"),
                    retention=_duration(settings.get("retention")),
                ),
                path,
            )

    def _read_publications(self, bus: Mapping[str, Any]) -> Iterable[Located[Publication]]:
        for topic, settings, path in self._entries(bus, "publish"):
            retention = _duration(settings.get("retention"))
            yield Located(Publication(topic, settings.get("partitions"), retention), path)

    def _event_bus(self, bus: Mapping[str, Any]) -> EventBus:
        return EventBus(
            subscribe=tuple(located.item for located in self._subscriptions),
            publish=tuple(located.item for located in self._publications),
            reply_topics=tuple(topic for topic, _, _ in self._entries(bus, "reply_topics")),
            partitions=bus.get("partitions", 6),
            start=bus.get("start", "earliest"),
        )

    def _read_operations(self) -> Iterable[Located[Operation]]:
        for index, entry in enumerate(self._data.get("io_operations", [])):
            if isinstance(entry, dict):
                path: Path = ("io_operations", index)
                yield Located(self._operation(entry, path), path)

    def _operation(self, entry: Mapping[str, Any], path: Path) -> Operation:
        name = entry.get("name", "")
        kit = self._kits.get(entry.get("kit", ""))
        options = {} if kit is None else {key: entry.get(key, option.default) for key, option in kit.options.items()}
        trigger = self._topic(entry.get("on"), (*path, "on"))
        topic = self._topic(entry.get("topic"), (*path, "topic")) or self._default_topic(kit, trigger)
        typed = name or _UNNAMED
        major = self._version.major
        if topic.kind == "cmd" or trigger is None:
            trigger = operation_type("cmd", self._worker, typed, version=major)
        batch = entry.get("batch", {})
        return Operation(
            name=name,
            kit=entry.get("kit", ""),
            topic=topic,
            trigger=trigger,
            completed=operation_type("evt", self._worker, typed, "completed", major),
            failed=operation_type("evt", self._worker, typed, "failed", major),
            description=entry.get("description", ""),
            answer=entry.get("answer", True),
            statements=self._statement_paths(kit, entry),
            request=options.get("request") if kit and kit.states_models else None,
            response=options.get("response") if kit and kit.states_models else None,
            needs=self._needs(kit, options, topic),
            batch=Batch(batch["max"], batch.get("linger_ms", 5) / 1000) if "max" in batch else None,
            concurrency=entry.get("concurrency", 4 if "max" in batch else 16),
            timeout=_duration(entry.get("timeout")) or 10.0,
            ordering=entry.get("ordering", "key"),
            options=options,
        )

    def _needs(self, kit: KitSchema | None, options: Mapping[str, Any], topic: TopicName) -> tuple[str, ...]:
        if kit is None:
            return ()
        stated = (options.get("needs") if kit.states_models else None) or ()
        needs = {*kit.needs, *(item for item in stated if isinstance(item, str))}
        guarantee = self._data.get("delivery", {}).get("guarantee", "effectively_once")
        if guarantee == "effectively_once" and not kit.control and topic.event != CONTROL_EVENT:
            needs.add("postgres")  # the inbox row is written with the effect, whatever the effect is
        return tuple(sorted(needs))

    def _default_topic(self, kit: KitSchema | None, trigger: TopicName | None) -> TopicName:
        """The first subscribed topic that fits; a conventional one where none does, for the checks to refuse."""
        topics = [located.item.topic for located in self._subscriptions]
        if trigger is not None:
            fitting = [topic for topic in topics if topic.kind == trigger.kind]
            return fitting[0] if fitting else trigger
        control = kit is not None and kit.control
        fitting = [topic for topic in topics if topic.kind == "cmd" and (topic.event == CONTROL_EVENT) == control]
        return fitting[0] if fitting else TopicName("cmd", self._worker, CONTROL_EVENT if control else "requests", 1)

    def _statement_paths(self, kit: KitSchema | None, entry: Mapping[str, Any]) -> tuple[str, ...]:
        paths: set[str] = set()
        for key, option in (kit.options if kit else {}).items():
            if option.role == "statement_file" and key in entry:
                paths.add(entry[key])
            elif option.role == "statement_files":
                stated = entry.get(key)
                found = sql_files(self._path.parent, "statements") if stated is None else stated
                paths.update(item for item in found if isinstance(item, str))
        return tuple(sorted(paths))


def sql_files(folder: FilePath, name: str) -> list[str]:
    """Return the SQL files of a subfolder, sorted, as POSIX paths relative to `folder`."""
    return sorted(f"{name}/{path.name}" for path in (folder / name).glob("*.sql") if path.is_file())


def _located(data: Mapping[str, Any], key: str, build: Any) -> Iterable[Located[Any]]:
    for index, entry in enumerate(data.get(key, [])):
        if isinstance(entry, dict):
            yield Located(build(entry), (key, index))


def _dependency(entry: Mapping[str, Any]) -> Dependency:
    return Dependency(
        name=entry.get("name", ""),
        type=entry.get("type", "model"),
        class_name=entry.get("class_name", ""),
        module=entry.get("module"),
        required=entry.get("required", True),
        description=entry.get("description", ""),
    )


def _capability(entry: Mapping[str, Any]) -> Capability:
    return Capability(entry.get("name", ""), entry.get("description", ""))


def _rate_limit(entry: Mapping[str, Any]) -> RateLimit:
    limit = parse_rate(entry.get("limit", "1/second"))
    return RateLimit(
        per=entry.get("per", "client"),
        limit=limit,
        burst=entry.get("burst", limit.count),
        operation=entry.get("operation"),
        on_limit=entry.get("on_limit", "wait"),
    )


def _delivery(entry: Mapping[str, Any]) -> Delivery:
    retry = entry.get("retry", {})
    tiers = retry.get("tiers", ["5s", "1m", "10m"])
    return Delivery(
        guarantee=entry.get("guarantee", "effectively_once"),
        retry=RetryPolicy(
            in_lane=retry.get("in_lane", 3),
            tiers=tuple(parse_duration(tier) for tier in tiers if isinstance(tier, str)),
            jitter=retry.get("jitter", "full"),
        ),
        dead_letter_limit=_dead_letter_limit(entry.get("dlq", {}).get("limit", {})),
        on_dead_letter=entry.get("on_dead_letter", "continue"),
    )


def _dead_letter_limit(entry: Mapping[str, Any]) -> DeadLetterLimit:
    return DeadLetterLimit(entry.get("consecutive", 100), float(entry.get("ratio", 0.2)), entry.get("window", 1000))


def _resources(entry: Mapping[str, Any], bus: EventBus) -> Resources:
    requests, limits, replicas = entry.get("requests", {}), entry.get("limits", {}), entry.get("replicas", {})
    cpu_limit = limits.get("cpu")
    least = replicas.get("min", 1)
    widest = max((item.partitions or bus.partitions for item in bus.subscribe), default=bus.partitions)
    return Resources(
        cpu_request=str(requests.get("cpu", "100m")),
        memory_request=requests.get("memory", "128Mi"),
        cpu_limit=None if cpu_limit is None else str(cpu_limit),
        memory_limit=limits.get("memory", "512Mi"),
        replicas_min=least,
        replicas_max=replicas.get("max", max(least, widest)),
    )


def _duration(text: str | None) -> float | None:
    return None if text is None else parse_duration(text)
