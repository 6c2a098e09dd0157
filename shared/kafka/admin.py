"""Administration of a real cluster: the `TopicAdmin` port on confluent-kafka's AdminClient, every wait bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)

from omnibase_infra.shared.core.errors import (
    ClusterRefusedError,
    DependencyUnavailableError,
    GroupInUseError,
    OmnibaseError,
    SettingsError,
)
from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.security import security_config
from omnibase_infra.shared.kafka.security_diagnosis import access_error, ask_for_topics, telling
from omnibase_infra.shared.resilience.deadline import Deadline
from omnibase_infra.shared.resilience.retry_policy import RetryOptions, RetryPolicy, retrying_in_thread
from omnibase_infra.topics.cluster import GroupState, Partition, TopicState, Watermarks

T = TypeVar("T")
K = TypeVar("K")

TIMEOUT_SECONDS: Final = 10.0
# A new cluster first makes the topic that keeps committed offsets, and changes wait for other brokers.
PATIENCE: Final = 3
# How long a broker may not yet know a topic that another one has created.
SETTLING_SECONDS: Final = 3.0
# How long a created topic or partition may take to reach every broker and get its leader.
VISIBLE_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05
# A cluster that is busy with itself is so for tens of milliseconds, or for seconds; time bounds it, not attempts.
_SETTLING_POLICY: Final = RetryPolicy(attempts=10_000, base=0.05, cap=0.5, jitter="equal")
# After a failure, reasons are already queued in the client; this is only for the last of them.
_REASON_SECONDS: Final = 0.1
# A future is set by the client's own time-out; this is for a client that does not keep it.
_GRACE_SECONDS: Final = 5.0

_EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]

# Answers of a cluster that is busy with itself: asked again until the time-out.
_TRANSIENT: Final = frozenset(
    (
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_CONTROLLER,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError._WAIT_COORD,
    )
)
_SETTLING: Final = frozenset((KafkaError._NOENT, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_LEADER_EPOCH))
_UNREACHABLE: Final = _TRANSIENT | {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
}
_UNAUTHORISED: Final = frozenset(
    (
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    )
)
_IN_USE: Final = frozenset(
    (
        KafkaError.NON_EMPTY_GROUP,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    )
)


class KafkaTopicAdmin:
    """Administers one cluster; see `TopicAdmin` for the promises. Safe to use from several threads."""

    def __init__(self, settings: Settings, *, log: LogFunction, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            settings: of the cluster.
            log: where the client's own lines go.
            timeout_seconds: of questions about topics; those about groups, and changes, take up to three times as long.

        Raises:
            SettingsError: no broker is set, or the settings do not fit together.
        """
        self._settings = settings
        self._address = require_kafka(settings)
        self._timeout = timeout_seconds
        self._patient_timeout = PATIENCE * timeout_seconds
        self._reasons: list[KafkaError] = []
        self._client_log = ClientLog(log, "topic-admin")
        self._config: dict[str, Any] = {
            "bootstrap.servers": self._address,
            "allow.auto.create.topics": False,
            "enable.metrics.push": False,
            "log.connection.close": False,
            "socket.timeout.ms": round(timeout_seconds * 1000),
            **security_config(settings),
            "logger": self._client_log,
            "error_cb": self._note,
        }
        try:
            self._client = AdminClient(self._config | {"client.id": "topic-admin"})
        except KafkaException as error:
            raise SettingsError(f"the Kafka client refuses the settings: {error}") from error

    def topics(self, prefix: str) -> Mapping[str, int]:
        """Return the partition counts of every topic whose name starts with `prefix`."""
        found = self._metadata().topics
        return {
            name: len(topic.partitions)
            for name, topic in sorted(found.items())
            if name.startswith(prefix) and topic.error is None
        }

    def describe(self, topics: Collection[str]) -> Mapping[str, TopicState]:
        """Return the state of those of the topics that exist."""
        found = {name: topic for name, topic in self._metadata().topics.items() if topic.error is None}
        names = sorted(name for name in topics if name in found)
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = self._answers(
            lambda: self._client.describe_configs(resources, request_timeout=self._timeout), "the settings of topics"
        )
        return {
            resource.name: TopicState(
                partitions=len(found[resource.name].partitions),
                replication=min(len(partition.replicas) for partition in found[resource.name].partitions.values()),
                config={key: entry.value for key, entry in config.items() if entry.value is not None},
            )
            for resource, config in answers.items()
        }

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """Create a topic; return False when it already exists. When it returns, the topic can be used."""
        wanted = NewTopic(topic, num_partitions=partitions, replication_factor=replication, config=dict(config))
        created = self._change(
            lambda: self._client.create_topics([wanted], request_timeout=self._patient_timeout),
            f"creating {topic}",
            already=KafkaError.TOPIC_ALREADY_EXISTS,
        )
        self._wait_until_usable(topic, partitions if created else 1)
        return created

    def add_partitions(self, topic: str, total: int) -> bool:
        """Grow a topic; return False when it already has that many. When it returns, they can be used."""
        if self.topics(topic).get(topic, 0) >= total:
            return False
        wanted = NewPartitions(topic, total)
        created = self._change(
            lambda: self._client.create_partitions([wanted], request_timeout=self._patient_timeout),
            f"adding partitions to {topic}",
            already=KafkaError.INVALID_PARTITIONS,
        )
        if not created and self.topics(topic).get(topic, 0) < total:
            raise ClusterRefusedError(f"the cluster at {self._address} does not grow {topic} to {total} partitions")
        self._wait_until_usable(topic, total)
        return created

    def alter(self, topic: str, config: Mapping[str, str]) -> None:
        """Set these settings and leave all others."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self._answers(
            lambda: self._client.incremental_alter_configs([resource], request_timeout=self._patient_timeout),
            f"changing settings of {topic}",
        )

    def group(self, group: str, partitions: Collection[Partition]) -> GroupState:
        """Return what a consumer group has committed on these partitions, and how many members it has."""
        described = self._answers(
            lambda: self._client.describe_consumer_groups([group], request_timeout=self._patient_timeout),
            f"the members of {group}",
            absent=KafkaError.GROUP_ID_NOT_FOUND,
        )
        committed = self._committed(group, partitions) if partitions else {}
        found = described.get(group)
        if found is None or found.state is ConsumerGroupState.DEAD:  # older brokers call a group so that never was
            return GroupState(committed)
        return GroupState(committed, len(found.members), found.state.name.lower().replace("_", "-"))

    def _committed(self, group: str, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Ask as a consumer that never joins the group.

        `AdminClient.list_consumer_group_offsets` ends the process by a segmentation fault when the group's coordinator
        is just moving, as on a new cluster (librdkafka issue 5040).
        """
        what = f"the offsets of {group}"
        asked = [TopicPartition(partition.topic, partition.number) for partition in partitions]
        consumer = Consumer(self._config | {"client.id": "topic-admin-offsets", "group.id": group})
        try:
            places = self._retried(
                lambda: _without_errors(consumer.committed(asked, timeout=self._patient_timeout)), what
            )
        finally:
            consumer.close()
        return {
            Partition(place.topic, place.partition): place.offset for place in places if place.offset != OFFSET_INVALID
        }

    def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets for a group without members."""
        places = [TopicPartition(partition.topic, partition.number, offset) for partition, offset in offsets.items()]
        self._answers(
            lambda: self._client.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, places)], request_timeout=self._patient_timeout
            ),
            f"committing offsets of {group} on {', '.join(sorted(map(str, offsets)))}",
        )

    def watermarks(self, partitions: Collection[Partition]) -> Mapping[Partition, Watermarks]:
        """Return the first and next offsets of partitions that exist."""
        low = self._list_offsets(partitions, _EARLIEST)
        high = self._list_offsets(partitions, _LATEST)
        return {partition: Watermarks(low[partition], high[partition]) for partition in partitions}

    def offsets_at(self, partitions: Collection[Partition], unix_milliseconds: int) -> Mapping[Partition, int]:
        """Return the offset of the first record at or after a time; the next offset where there is none."""
        found = self._list_offsets(partitions, OffsetSpec.for_timestamp(unix_milliseconds))
        if absent := [partition for partition, offset in found.items() if offset < 0]:
            found |= self._list_offsets(absent, _LATEST)
        return found

    def _list_offsets(self, partitions: Collection[Partition], spec: OffsetSpec) -> dict[Partition, int]:
        asked = {TopicPartition(partition.topic, partition.number): spec for partition in partitions}
        if not asked:
            return {}
        answers = self._answers(
            lambda: self._client.list_offsets(asked, request_timeout=self._timeout), "the offsets of topics"
        )
        return {Partition(place.topic, place.partition): info.offset for place, info in answers.items()}

    def _metadata(self) -> ClusterMetadata:
        """Ask for all topics: asking for one by name would have some brokers create it."""
        self._forget_reasons()
        try:
            return ask_for_topics(self._client, self._settings, self._reasons, self._timeout)
        except KafkaException as error:
            raise self._classified(error.args[0], "the list of topics") from error

    def _wait_until_usable(self, topic: str, partitions: int) -> None:
        deadline = Deadline.after(VISIBLE_SECONDS)
        while not _is_usable(self._metadata().topics.get(topic), partitions):
            if deadline.expired:
                raise DependencyUnavailableError(
                    f"{topic} was created, but not all of its partitions got a leader within {VISIBLE_SECONDS:g} s",
                    dependency="kafka",
                    hint="look at the brokers, then apply again",
                )
            time.sleep(deadline.within(_POLL_SECONDS))

    def _change(self, request: Callable[[], Mapping[str, Future[Any]]], what: str, *, already: int) -> bool:
        """Return whether the request changed something; False when the cluster says it was `already` so."""
        return bool(self._answers(request, what, absent=already))

    def _answers(
        self, request: Callable[[], Mapping[K, Future[Any]]], what: str, *, absent: int | None = None
    ) -> dict[K, Any]:
        """Send a request and return its answers; leave out those that failed with the code `absent`."""
        return self._retried(lambda: self._collect(request(), absent), what)

    def _retried(self, ask: Callable[[], T], what: str) -> T:
        """Return what is asked for; ask again while the cluster is busy with itself, up to the time-out."""
        self._forget_reasons()
        started = time.monotonic()

        def again(error: BaseException) -> bool:
            # Other errors are answers. No budget: somebody waits for this, and a cluster that settles is not overloaded.
            waited = time.monotonic() - started
            return isinstance(error, KafkaException) and waited < _retry_seconds(
                error.args[0].code(), self._patient_timeout
            )

        try:
            return retrying_in_thread(
                ask,
                _SETTLING_POLICY,
                dependency="kafka",
                total_seconds=self._patient_timeout + _GRACE_SECONDS,
                options=RetryOptions(when=again, quiet=True),
            )
        except FutureTimeoutError as error:
            raise self._unreachable(what, "no answer") from error
        except KafkaException as error:
            raise self._classified(error.args[0], what) from error

    def _collect(self, futures: Mapping[K, Future[T]], absent: int | None) -> dict[K, T]:
        answers: dict[K, T] = {}
        for key, future in futures.items():
            try:
                answer = future.result(self._patient_timeout + _GRACE_SECONDS)
            except KafkaException as error:
                if error.args[0].code() != absent:
                    raise
                continue
            if isinstance(answer, ConsumerGroupTopicPartitions):
                _without_errors(answer.topic_partitions or [])
            answers[key] = answer
        return answers

    def _forget_reasons(self) -> None:
        """Drop what the client noted before, so that an error is explained by what happened during its request."""
        self._client.poll(0)
        self._reasons.clear()

    def _note(self, error: KafkaError) -> None:
        self._client_log.error(error)
        self._reasons.append(error)

    def _classified(self, error: KafkaError, what: str) -> OmnibaseError:
        """Return the error of our tree that the client's error stands for."""
        if error.code() in _UNREACHABLE:
            return self._unreachable(what, error.str())
        if error.code() in _IN_USE:
            return GroupInUseError(f"{what}: the group has live members", hint="stop its workers first")
        message = f"the cluster at {self._address} refuses {what}: {error.name()}, {error.str()}"
        if error.code() in _UNAUTHORISED:
            return ClusterRefusedError(message, hint="give this client's user the right to do it")
        if error.code() == KafkaError.POLICY_VIOLATION:
            return ClusterRefusedError(message, hint="a policy of the cluster forbids it: change the contract")
        return ClusterRefusedError(message)

    def _unreachable(self, what: str, reason: str) -> OmnibaseError:
        # What the client itself noted, such as a refused connection, says more than "timed out".
        self._client.poll(_REASON_SECONDS)
        if refused := access_error(self._settings, self._reasons):
            return refused
        noted = telling(self._reasons, reason)
        return DependencyUnavailableError(
            f"no Kafka broker at {self._address} answered {what} in time: {noted}",
            dependency="kafka",
            hint="check OMNIBASE_KAFKA_BOOTSTRAP_SERVERS and the security settings, or run `omninode infra status`",
        )


def _retry_seconds(code: int, patient: float) -> float:
    """Return for how long an answer is no answer yet."""
    if code in _TRANSIENT:
        return patient
    return SETTLING_SECONDS if code in _SETTLING else 0.0


def _without_errors(places: list[TopicPartition]) -> list[TopicPartition]:
    """Return the partitions of an answer that succeeded as a whole; single ones in it may have failed."""
    for place in places:
        if place.error is not None:
            raise KafkaException(place.error)
    return places


def _is_usable(topic: TopicMetadata | None, partitions: int) -> bool:
    return (
        topic is not None
        and topic.error is None
        and len(topic.partitions) >= partitions
        and all(partition.error is None and partition.leader >= 0 for partition in topic.partitions.values())
    )
