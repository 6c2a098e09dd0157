"""Consumers by purpose: one place for the settings on which order, loss and latency depend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.sasl_login import LoginFollower, SaslLogin
from omnibase_infra.shared.kafka.security import security_config
from omnibase_infra.shared.kafka.statistics import ClientStatistics, parse_statistics

if TYPE_CHECKING:
    from confluent_kafka.admin import ClusterMetadata

ConsumePurpose = Literal["consume", "replay", "tail", "answers"]


class ConsumerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may differ between consumers without touching loss or order.

    Attributes:
        max_poll_interval_seconds: longest time between two polls before the group takes the partitions away.
        statistics_seconds: time between statistics reports; 0 for none.
        fetched_records / fetched_kilobytes: bounds of what is fetched ahead of the application. The defaults keep
            500-record hand-overs at full speed and are small beside a worker's memory budget.
        overrides: librdkafka properties that win over everything else.
    """

    max_poll_interval_seconds: float = 300.0
    statistics_seconds: float = 5.0
    fetched_records: int = 20_000
    fetched_kilobytes: int = 16 * 1024
    overrides: Mapping[str, Any] = {}


DEFAULT_OPTIONS: Final = ConsumerOptions()

_COMMON: Final[Mapping[str, Any]] = {
    # Nothing is committed behind the runtime's back, and a lost position is an error, never a silent jump.
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "isolation.level": "read_committed",
    # The default of 1000 makes the fetcher sleep for a second each time its queue is full.
    "fetch.queue.backoff.ms": 10,
    # Brokers answer at once when there is data; a pause, resume or seek waits for the request under way.
    "fetch.wait.max.ms": 100,
    # Small runs of one partition: with the default of 1 MiB a few thousand records in flight are of one or two
    # partitions, and only the keys of those can be worked on side by side.
    "fetch.message.max.bytes": 128 * 1024,
    # Partitions that are added are found within a minute; the default is five.
    "topic.metadata.refresh.interval.ms": 60_000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 2_000,
    "enable.metrics.push": False,
    "log.connection.close": False,
}


def consumer_config(
    settings: Settings,
    *,
    group: str,
    purpose: ConsumePurpose,
    client_id: str,
    options: ConsumerOptions = DEFAULT_OPTIONS,
) -> dict[str, Any]:
    """Return the librdkafka properties of a consumer. They may hold secrets: log `security.masked(...)` of them.

    Args:
        settings: of the process.
        group: consumer group as `Realm.group` names it. Joined only for `consume`; elsewhere it only names the reader.
        purpose: `consume` is a group member that subscribes and commits by itself. `replay`, `tail` and `answers`
            assign partitions and offsets explicitly, join no group and commit nothing; `replay` is told
            when it reaches the end of a partition.
        client_id: shown in the brokers' logs, quotas and metrics.
        options: see there.

    Raises:
        SettingsError: no broker is set, or the security settings do not fit together.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": require_kafka(settings),
        "client.id": client_id,
        "group.id": group,
        "statistics.interval.ms": int(options.statistics_seconds * 1000),
        "queued.min.messages": options.fetched_records,
        "queued.max.messages.kbytes": options.fetched_kilobytes,
        **_COMMON,
        **security_config(settings),
    }
    if purpose == "consume":
        config |= _membership(settings, options.max_poll_interval_seconds)
    elif purpose == "replay":
        config["enable.partition.eof"] = True
    return config | dict(options.overrides)


def _membership(settings: Settings, max_poll_interval_seconds: float) -> dict[str, Any]:
    session_ms = int(settings.kafka_session_timeout_seconds * 1000)
    poll_ms = int(max_poll_interval_seconds * 1000)
    member: dict[str, Any] = {"group.protocol": settings.kafka_group_protocol}
    if settings.kafka_group_instance_id:
        member["group.instance.id"] = settings.kafka_group_instance_id
    if settings.kafka_group_protocol == "consumer":
        # KIP-848: session, heartbeat and assignor are the broker's business; setting them is an error.
        return member | {"max.poll.interval.ms": poll_ms}
    return member | {
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_ms,
        "heartbeat.interval.ms": min(3_000, session_ms // 3),
        # The client library refuses a poll interval below the session time-out.
        "max.poll.interval.ms": max(poll_ms, session_ms),
    }


def create_consumer(  # noqa: PLR0913 - what may differ between consumers
    settings: Settings,
    *,
    group: str,
    purpose: ConsumePurpose,
    client_id: str,
    log: LogFunction,
    on_statistics: Callable[[ClientStatistics], None] | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
    options: ConsumerOptions = DEFAULT_OPTIONS,
    login: SaslLogin | None = None,
) -> Consumer:
    """Create a consumer; nothing is subscribed yet and no connection is awaited.

    Args:
        settings, group, purpose, client_id, options: see `consumer_config`.
        log: where librdkafka's own lines and errors go, rate-limited.
        on_statistics: called with each report, on the thread that polls the consumer.
        on_error: called with each client-wide error on that thread, after it was logged. What it raises comes out
            of the poll.
        login: followed with each poll, so that a password may change while it runs; None keeps the one of the settings.

    Raises:
        SettingsError: no broker is set, or the client library refuses a property.
    """
    config = consumer_config(settings, group=group, purpose=purpose, client_id=client_id, options=options)
    client_log = ClientLog(log, client_id)

    def report_error(error: KafkaError) -> None:
        client_log.error(error)
        if on_error:
            on_error(error)

    callbacks: dict[str, Any] = {"logger": client_log, "error_cb": report_error}
    if on_statistics is None:
        callbacks["statistics.interval.ms"] = 0
    else:
        callbacks["stats_cb"] = lambda text: on_statistics(parse_statistics(text))
    try:
        if login is None or login.login is None:
            return Consumer(config | callbacks)
        return _FollowingConsumer(login, config | login.properties() | callbacks)
    except KafkaException as error:
        raise SettingsError(f"the Kafka client refuses the settings of consumer {client_id}: {error}") from error


class _FollowingConsumer(Consumer):
    """Takes another login before it asks the brokers for something.

    Not in a callback, which the client library does not survive, and not by another thread, which would wait for the
    call under way: seconds, while brokers refuse the login that is to be replaced.
    """

    def __init__(self, login: SaslLogin, config: dict[str, Any]) -> None:
        self._follower = LoginFollower(login)
        super().__init__(config)

    def poll(self, timeout: float = -1) -> Message | None:
        """Wait for a record or an error."""
        self._follower.apply(self)
        return super().poll(timeout)

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Wait for records or errors."""
        self._follower.apply(self)
        return super().consume(num_messages, timeout)

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> ClusterMetadata:
        """Ask for topics."""
        self._follower.apply(self)
        found: ClusterMetadata = (
            super().list_topics(timeout=timeout) if topic is None else super().list_topics(topic, timeout=timeout)
        )
        return found
