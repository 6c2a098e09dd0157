"""What each worker may do on a cluster, derived from what its contract lists, and nothing more.

Pure: `shared.kafka.acls` brings it to a cluster. Names are physical.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Literal, Protocol

import msgspec

from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.worker_spec import WorkerSpec

Resource = Literal["topic", "group", "transactional-id"]
Pattern = Literal["literal", "prefixed"]
Operation = Literal["read", "write"]

EVERYWHERE: Final = "*"
# The consumer group under whose name people's programs read answers; they never join it.
CLIENT_GROUP: Final = "client"
_OPTIONS: Final = {"topic": "--topic", "group": "--group", "transactional-id": "--transactional-id"}


class AclRule(msgspec.Struct, frozen=True, order=True):
    """One thing that a principal may do.

    Attributes:
        principal: as brokers know it, `User:…`.
        resource / name / pattern: on what; a prefixed name stands for all that begin with it.
        operation: reading and writing include looking at it.
        host: from where; `*` from everywhere.
    """

    principal: str
    resource: str
    name: str
    operation: str
    pattern: str = "literal"
    host: str = EVERYWHERE

    def __str__(self) -> str:
        whole = f"{self.name}*" if self.pattern == "prefixed" else self.name
        origin = "" if self.host == EVERYWHERE else f" from {self.host}"
        return f"{self.principal} may {self.operation} {self.resource} {whole}{origin}"

    def command(self, bootstrap: str = "$BROKERS") -> str:
        """Return the call of Kafka's own tool that grants it, for clusters that others administer."""
        return (
            f"kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal '{self.principal}' "
            f"--operation {self.operation.capitalize()} {_OPTIONS[self.resource]} {self.name} "
            f"--resource-pattern-type {self.pattern}"
        )


class AclPlan(msgspec.Struct, frozen=True):
    """Where the rules of contracts and cluster differ.

    Attributes:
        missing: what contracts need and the cluster does not allow.
        surplus: what the cluster allows workers and no contract needs.
        unchanged: what both say.
    """

    missing: tuple[AclRule, ...] = ()
    surplus: tuple[AclRule, ...] = ()
    unchanged: tuple[AclRule, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether nothing differs."""
        return not (self.missing or self.surplus)


class AclAdmin(Protocol):
    """Administration of access-control lists. Every call blocks, within a time-out.

    Any call raises:
        DependencyUnavailableError: no broker answers.
        KafkaAccessError: one does, to say that we may not come in.
        ClusterRefusedError: the cluster has no authorizer, or this user may not administer it.
    """

    def rules(self) -> Collection[AclRule]:
        """Return everything that is allowed by the cluster's lists; what they forbid is not among it."""
        ...

    def grant(self, rules: Sequence[AclRule]) -> None:
        """Allow these; some may be allowed already."""
        ...

    def revoke(self, rules: Sequence[AclRule]) -> None:
        """Take exactly these away; some may be gone already."""
        ...


def principal(template: str, realm: Realm, worker: str) -> str:
    """Return whom brokers take a worker for; see `Settings.kafka_principal`."""
    return template.replace("{realm}", str(realm)).replace("{worker}", worker)


def worker_rules(specs: Iterable[WorkerSpec], realm: Realm, template: str) -> tuple[AclRule, ...]:
    """Return what the workers need, sorted: all versions of a worker have one principal.

    Each reads its topics and their retry topics, writes what it publishes, its retry and dead-letter topics, is a
    member of its own group, and, where its contract is transactional, runs transactions under ids of its own.
    """
    rules: set[AclRule] = set()
    for spec in specs:
        who = principal(template, realm, spec.worker)
        retries = [str(topic) for topic in spec.retry_topics.values()]
        rules |= {_of_topic(who, name, "read", realm) for name in (*spec.subscribe, *retries)}
        rules |= {_of_topic(who, name, "write", realm) for name in spec.writable_topics()}
        rules.add(AclRule(who, "group", realm.group(spec.worker, spec.major), "read"))
        if spec.guarantee == "transactional":
            ids = realm.transactional_id(spec.worker, f"v{spec.major}.")
            rules.add(AclRule(who, "transactional-id", ids, "write", "prefixed"))
    return tuple(sorted(rules))


def client_rules(specs: Iterable[WorkerSpec], realm: Realm, who: str) -> tuple[AclRule, ...]:
    """Return what a program needs that sends these workers commands and reads their answers, sorted."""
    rules = {AclRule(who, "group", realm.group(CLIENT_GROUP, 1), "read")}
    for spec in specs:
        for operation in spec.operations:
            rules.add(_of_topic(who, operation.topic, "write", realm))
            if operation.answer_topic:
                rules.add(_of_topic(who, operation.answer_topic, "read", realm))
    return tuple(sorted(rules))


def plan(wanted: Collection[AclRule], found: Collection[AclRule], judged: re.Pattern[str]) -> AclPlan:
    """Return where the cluster differs from what is wanted.

    Args:
        wanted: what there should be.
        found: what there is, of everybody.
        judged: matches the principals that may do nothing but what is wanted; all others are left alone.
    """
    wanted, found = set(wanted), set(found)
    surplus = {rule for rule in found - wanted if judged.fullmatch(rule.principal)}
    return AclPlan(tuple(sorted(wanted - found)), tuple(sorted(surplus)), tuple(sorted(wanted & found)))


def worker_principals(template: str, realm: Realm, workers: Collection[str] | None = None) -> re.Pattern[str]:
    """Return what matches the principals of these workers; of all workers there ever were, where none are named."""
    names = "[a-z][a-z0-9-]*" if workers is None else "|".join(map(re.escape, sorted(workers)))
    parts = re.split(r"(\{realm\}|\{worker\})", template)
    known = {"{realm}": re.escape(str(realm)), "{worker}": f"(?:{names})"}
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts))


def _of_topic(who: str, name: str, operation: Operation, realm: Realm) -> AclRule:
    return AclRule(who, "topic", TopicName.parse(name).physical(realm), operation)
