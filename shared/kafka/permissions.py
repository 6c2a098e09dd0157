"""May this process do its work? Asked of the brokers once, so that a right that lacks is one line at the start."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from omnibase_infra.shared.core.errors import ClusterRefusedError, DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.security import GRANT_HINT, security_config

TIMEOUT_SECONDS: Final = 10.0
# A future is set by the client's own time-out; this is for a client that does not keep it.
_GRACE_SECONDS: Final = 5.0
_REFUSED: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})


def require_permissions(
    settings: Settings,
    *,
    sees: Collection[str] = (),
    reads: Collection[str] = (),
    writes: Collection[str] = (),
    group: str | None = None,
    log: LogFunction,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Make sure that the brokers let this process see, read and write topics, and be a member of a group.

    Blocks for at most about twice the time-out: call it in a thread where an event loop runs. Topics that do not exist
    are not its business. Brokers without an authorizer allow everything.

    Args:
        settings: of the process.
        sees / reads / writes: physical topics; to read or to write one is to see it.
        group: whose member it is to be.
        log: where the client's own lines go.
        timeout_seconds: for each of two requests.

    Raises:
        ClusterRefusedError: names everything that this user may not do.
        SettingsError: no broker is set, or the settings do not fit together.
        DependencyUnavailableError: no broker answered in time.
    """
    client = _client(settings, log)
    topics = _operations_on_topics(client, {*sees, *reads, *writes}, timeout_seconds)
    wanted = (
        (sees, AclOperation.DESCRIBE, "see"),
        (reads, AclOperation.READ, "read"),
        (writes, AclOperation.WRITE, "write"),
    )
    lacking = [
        f"{verb} {topic}"
        for names, operation, verb in wanted
        for topic in sorted(names)
        if operation not in topics.get(topic, {operation})
    ]
    if group is not None and AclOperation.READ not in _operations_on_group(client, group, timeout_seconds):
        lacking.append(f"be a member of group {group}")
    if lacking:
        raise ClusterRefusedError(
            f"the brokers at {settings.kafka_bootstrap_servers} do not let {who(settings)} {', '.join(lacking)}",
            hint=GRANT_HINT,
        )


def who(settings: Settings) -> str:
    """Return how errors call whoever the brokers take this process for."""
    return f"user {settings.kafka_sasl_username!r}" if settings.kafka_sasl_username else "this client's user"


def _client(settings: Settings, log: LogFunction) -> AdminClient:
    client_log = ClientLog(log, "permission-check")
    config: dict[str, Any] = {
        "bootstrap.servers": require_kafka(settings),
        "client.id": "permission-check",
        "enable.metrics.push": False,
        "log.connection.close": False,
        **security_config(settings),
        "logger": client_log,
        "error_cb": client_log.error,
    }
    try:
        return AdminClient(config)
    except KafkaException as error:
        raise SettingsError(f"the Kafka client refuses the settings: {error}") from error


def _operations_on_topics(
    client: AdminClient, topics: Collection[str], seconds: float
) -> dict[str, frozenset[AclOperation]]:
    """Return what is allowed on each topic that exists; nothing on one that may not even be seen."""
    if not topics:
        return {}
    asked = client.describe_topics(
        TopicCollection(sorted(topics)), include_authorized_operations=True, request_timeout=seconds
    )
    allowed: dict[str, frozenset[AclOperation]] = {}
    for topic, future in asked.items():
        try:
            found = future.result(seconds + _GRACE_SECONDS)
        except FutureTimeoutError as error:
            raise _unavailable("no answer") from error
        except KafkaException as error:
            if error.args[0].code() in _REFUSED:
                allowed[topic] = frozenset()
            elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise _unavailable(error.args[0].str()) from error
        else:
            allowed[topic] = frozenset(found.authorized_operations or AclOperation)
    return allowed


def _operations_on_group(client: AdminClient, group: str, seconds: float) -> frozenset[AclOperation]:
    """Return what is allowed on a group; everything where the broker does not say, as of one that has no members yet."""
    asked = client.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=seconds)
    try:
        found = asked[group].result(seconds + _GRACE_SECONDS)
    except FutureTimeoutError as error:
        raise _unavailable("no answer") from error
    except KafkaException as error:
        if error.args[0].code() in _REFUSED:
            return frozenset()
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return frozenset(AclOperation)
        raise _unavailable(error.args[0].str()) from error
    return frozenset(found.authorized_operations or AclOperation)


def _unavailable(reason: str) -> DependencyUnavailableError:
    return DependencyUnavailableError(f"no Kafka broker said what this process may do: {reason}", dependency="kafka")
