"""Names on a cluster: one grammar for topics, realms, workers and consumer groups, one error.

Logical names are what contracts and code write; physical names carry the realm and exist only on the wire.
`topics.naming` is the public face of this module.
"""

from __future__ import annotations

import difflib
import re
from typing import Final, Literal, Self, cast, get_args

import msgspec

from omnibase_infra.shared.core.errors import InvalidNameError

TopicKind = Literal["cmd", "evt", "intent", "snapshot", "retry", "dlq", "changelog"]
Environment = Literal["local", "dev", "test", "staging", "prod"]
GroupPurpose = Literal["consume", "replay", "audit", "introspection"]

TOPIC_KINDS: Final = get_args(TopicKind)
ENVIRONMENTS: Final = get_args(Environment)
PURPOSES: Final = get_args(GroupPurpose)
MAX_NAME_LENGTH: Final = 249
ORGANISATION: Final = "onex"
SERVICE: Final = "omnibase-infra"

_KEBAB: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")
_VERSION: Final = re.compile(r"v[1-9][0-9]*\Z")
_TENANT: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
# The longest realm in use decides whether a logical name fits everywhere.
LONGEST_TENANT: Final = 24
LONGEST_REALM: Final = max(map(len, ENVIRONMENTS)) + 1 + LONGEST_TENANT


def check_kebab(value: str, what: str, whole: str) -> None:
    """Refuse `value` unless it is kebab case.

    Raises:
        InvalidNameError: names the segment, what it is and a suggestion.
    """
    if _KEBAB.match(value):
        return
    if not value:
        raise InvalidNameError(f"{whole!r}: the {what} is empty, expected kebab case like 'postgres-adapter'")
    suggestion = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", value).lower()).strip("-")
    hint = f"did you mean {suggestion!r}?" if _KEBAB.match(suggestion) else ""
    raise InvalidNameError(
        f"{whole!r}: the {what} {value!r} is not kebab case ([a-z][a-z0-9]*(-[a-z0-9]+)*)", hint=hint
    )


def _check_choice(value: str, choices: tuple[str, ...], what: str, whole: str) -> None:
    if value not in choices:
        close = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
        raise InvalidNameError(
            f"{whole!r}: the {what} {value!r} is not one of {', '.join(choices)}",
            hint=f"did you mean {close[0]!r}?" if close else "",
        )


class Realm(msgspec.Struct, frozen=True):
    """Environment and tenant: the prefix of everything on a cluster."""

    environment: Environment
    tenant: str = ""

    def __post_init__(self) -> None:
        _check_choice(self.environment, ENVIRONMENTS, "environment", self.environment)
        if self.tenant and not _TENANT.match(self.tenant):
            raise InvalidNameError(
                f"{self.tenant!r}: the tenant is not kebab case ([a-z0-9]+(-[a-z0-9]+)*)",
                hint="set OMNIBASE_TENANT to lower-case letters, digits and single hyphens",
            )
        if len(self.tenant) > LONGEST_TENANT:
            raise InvalidNameError(f"{self.tenant!r}: the tenant has more than {LONGEST_TENANT} characters")

    def __str__(self) -> str:
        return f"{self.environment}-{self.tenant}" if self.tenant else self.environment

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `<env>` or `<env>-<tenant>`.

        Raises:
            InvalidNameError: says which part is wrong.
        """
        environment, _, tenant = text.partition("-")
        if "-" in text and not tenant:
            raise InvalidNameError(f"{text!r}: the tenant is empty")
        return cls(cast("Environment", environment), tenant)

    def group(self, worker: str, major: int, purpose: GroupPurpose = "consume") -> str:
        """Return the consumer group `<realm>.<service>.<worker>.<purpose>.v<major>`.

        Raises:
            InvalidNameError: a part breaks the grammar or the whole is longer than 249 characters.
        """
        name = f"{self}.{SERVICE}.{worker}.{purpose}.v{major}"
        check_kebab(worker, "worker", name)
        _check_choice(purpose, PURPOSES, "purpose", name)
        if major < 1 or len(name) > MAX_NAME_LENGTH:
            raise InvalidNameError(f"{name!r}: the major version is at least 1, the name at most 249 characters long")
        return name

    def transactional_id(self, worker: str, member: str) -> str:
        """Return the transactional id of one member of a worker."""
        check_kebab(worker, "worker", worker)
        return f"{self}.{SERVICE}.{worker}.{member}"

    def source(self, worker: str) -> str:
        """Return the CloudEvents `source` of a worker of this realm."""
        return f"/omnibase/{self}/{worker}"


class TopicName(msgspec.Struct, frozen=True, order=True):
    """A logical topic or message type name: `onex.<kind>.<producer>.<event>.v<version>`."""

    kind: TopicKind
    producer: str
    event: str
    version: int

    def __post_init__(self) -> None:
        _check_choice(self.kind, TOPIC_KINDS, "kind", self._text())
        check_kebab(self.producer, "producer", self._text())
        check_kebab(self.event, "event", self._text())
        if self.version < 1:
            raise InvalidNameError(f"{self._text()!r}: the version is {self.version}, expected 1, 2, 3 …")
        if (length := len(self._text()) + 1 + LONGEST_REALM) > MAX_NAME_LENGTH:
            raise InvalidNameError(
                f"{self._text()!r}: with the longest realm the name has {length} characters, Kafka allows 249"
            )

    def _text(self) -> str:
        return f"{ORGANISATION}.{self.kind}.{self.producer}.{self.event}.v{self.version}"

    def __str__(self) -> str:
        return self._text()

    def physical(self, realm: Realm) -> str:
        """Return the name on the cluster: `<realm>.onex.….v<N>`."""
        return f"{realm}.{self._text()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a logical name.

        Raises:
            InvalidNameError: says which segment is wrong and what was expected.
        """
        if len(text) > MAX_NAME_LENGTH:
            raise InvalidNameError(f"{text[:60] + '…'!r}: the name has {len(text)} characters, Kafka allows 249")
        segments = text.split(".")
        if len(segments) == 6 and segments[1] == ORGANISATION:
            raise InvalidNameError(
                f"{text!r}: a realm prefix has no place in a logical name",
                hint=f"write {'.'.join(segments[1:])!r}; the realm is added from OMNIBASE_ENV and OMNIBASE_TENANT",
            )
        if len(segments) != 5:
            raise InvalidNameError(
                f"{text!r}: {len(segments)} segments, expected 5: onex.<kind>.<producer>.<event>.v<N>"
            )
        organisation, kind, producer, event, version = segments
        if organisation != ORGANISATION:
            raise InvalidNameError(f"{text!r}: the first segment is {organisation!r}, expected 'onex'")
        if not _VERSION.match(version):
            raise InvalidNameError(f"{text!r}: the version is {version!r}, expected v1, v2, v3 … without leading zeros")
        return cls(cast("TopicKind", kind), producer, event, int(version[1:]))

    @classmethod
    def parse_physical(cls, text: str, realm: Realm) -> Self:
        """Parse a name as it is on the cluster, which must belong to `realm`.

        Raises:
            InvalidNameError: another realm's topic, or not a topic of this grammar.
        """
        prefix = f"{realm}."
        if not text.startswith(prefix):
            raise InvalidNameError(f"{text!r}: not in the realm {str(realm)!r}")
        return cls.parse(text[len(prefix) :])


def worker_name(node: str) -> str:
    """Return the worker's kebab-case name of a node folder: `postgres_adapter` → `postgres-adapter`."""
    return node.replace("_", "-")


def operation_type(kind: TopicKind, worker: str, operation: str, suffix: str = "", version: int = 1) -> TopicName:
    """Return the CloudEvents type of an operation's command or answer.

    `operation_type("cmd", "postgres-adapter", "execute_statement")` is
    `onex.cmd.postgres-adapter.execute-statement.v1`; with suffix `completed` it is
    `….execute-statement-completed.v1`.
    """
    event = operation.replace("_", "-")
    return TopicName(kind, worker, f"{event}-{suffix}" if suffix else event, version)


def dead_letter_topic(worker: str, major: int) -> TopicName:
    """Return the one dead-letter topic of a worker's major version."""
    return TopicName("dlq", worker, "dead-letters", major)


def resolutions_topic(worker: str, major: int) -> TopicName:
    """Return the topic that says which dead letters of a worker's major version were redriven or discarded."""
    return TopicName("dlq", worker, "resolutions", major)


def dead_letter_actions_topic(worker: str, major: int) -> TopicName:
    """Return the topic of the events that tell what people did to a worker's dead letters."""
    return TopicName("evt", worker, "dead-letter-actions", major)


def retry_topic(worker: str, source: TopicName) -> TopicName:
    """Return the retry topic of a worker for one of its source topics.

    A worker's own command topic gives `onex.retry.<worker>.<event>.v<N>`. Other sources keep kind and producer in
    the event, since several producers call their topic `results`: two sources in one retry topic would mix keys.
    """
    own = source.kind == "cmd" and source.producer == worker
    event = source.event if own else f"{source.kind}-{source.producer}-{source.event}"
    return TopicName("retry", worker, event, source.version)
