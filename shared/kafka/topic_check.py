"""Are the topics there? One metadata request, so that a worker or a command fails with one clear line at its start."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from omnibase_infra.shared.core.errors import (
    DependencyUnavailableError,
    KafkaAccessError,
    SettingsError,
    TopicMissingError,
)
from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.security import security_config
from omnibase_infra.shared.kafka.security_diagnosis import ask_for_topics, telling

TIMEOUT_SECONDS: Final = 10.0


def missing_topics(
    settings: Settings, topics: Collection[str], *, log: LogFunction, timeout_seconds: float = TIMEOUT_SECONDS
) -> list[str]:
    """Return those of the physical topics that the cluster does not have, or does not let us see; sorted.

    Blocks for at most about `timeout_seconds`: call it in a thread where an event loop runs. Never creates a topic.

    Raises:
        SettingsError: no broker is set, or the settings do not fit together.
        KafkaAccessError: a broker answers and does not let us in.
        DependencyUnavailableError: no broker answered in time; says why.
    """
    reasons: list[KafkaError] = []
    held = _HeldLines()
    client_log = ClientLog(held, "topic-check")

    def note(error: KafkaError) -> None:
        client_log.error(error)
        reasons.append(error)

    config = {
        "bootstrap.servers": require_kafka(settings),
        "client.id": "topic-check",
        "allow.auto.create.topics": False,
        "enable.metrics.push": False,
        "log.connection.close": False,
        **security_config(settings),
    }
    try:
        # A producer without work is the cheapest client that can ask.
        client = Producer(config | {"logger": client_log, "error_cb": note})
    except KafkaException as error:
        raise SettingsError(f"the Kafka client refuses the settings: {error}") from error
    try:
        # Of all topics: asking for one by name would have some brokers create it.
        metadata = ask_for_topics(client, settings, reasons, timeout_seconds)
    except KafkaAccessError:
        raise  # which says all that the client had to say, and more
    except KafkaException as error:
        held.pass_on(log)
        reason = telling(reasons, error.args[0].str())
        raise DependencyUnavailableError(
            f"no Kafka broker at {settings.kafka_bootstrap_servers} answered within {timeout_seconds:g} s: {reason}",
            dependency="kafka",
            hint="check OMNIBASE_KAFKA_BOOTSTRAP_SERVERS and the security settings, or run `omninode infra status`",
        ) from error
    held.pass_on(log)
    found = {name for name, topic in metadata.topics.items() if topic.error is None}
    return sorted(set(topics) - found)


class _HeldLines:
    """Keeps a client's lines until it is known whether anybody needs them."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str, dict[str, Any]]] = []

    def __call__(self, level: int, event: str, /, **fields: Any) -> None:
        self._lines.append((level, event, fields))

    def pass_on(self, log: LogFunction) -> None:
        """Write them."""
        for level, event, fields in self._lines:
            log(level, event, **fields)


def require_topics(
    settings: Settings, topics: Collection[str], *, log: LogFunction, timeout_seconds: float = TIMEOUT_SECONDS
) -> None:
    """Make sure that all physical topics are there. Blocks as `missing_topics` does.

    Raises:
        TopicMissingError: one line that names every missing topic.
        ClusterRefusedError: this user may not see some of them, there or not.
        SettingsError, KafkaAccessError, DependencyUnavailableError: see `missing_topics`.
    """
    if missing := missing_topics(settings, topics, log=log, timeout_seconds=timeout_seconds):
        if settings.kafka_security_protocol != "PLAINTEXT":
            # A topic that one may not see looks like one that is not there. Imported here: it takes a while.
            from omnibase_infra.shared.kafka.permissions import require_permissions

            require_permissions(settings, sees=missing, log=log, timeout_seconds=timeout_seconds)
        raise TopicMissingError(
            f"{len(missing)} of {len(topics)} topics do not exist on {settings.kafka_bootstrap_servers}, "
            f"or are not visible to this client: {', '.join(missing)}",
            hint="run `omninode topics apply`",
        )


async def brokers_let_us_in(settings: Settings, *, log: LogFunction, timeout_seconds: float = TIMEOUT_SECONDS) -> bool:
    """Return whether a broker answers a client that is made for asking.

    Raises:
        KafkaAccessError: one does, to say that we may not come in.
    """
    try:
        await asyncio.to_thread(missing_topics, settings, (), log=log, timeout_seconds=timeout_seconds)
    except DependencyUnavailableError:
        return False
    return True


async def brokers_answer(settings: Settings, *, log: LogFunction, timeout_seconds: float = TIMEOUT_SECONDS) -> bool:
    """Return whether a broker answers a client that is made for asking, and lets it in."""
    try:
        return await brokers_let_us_in(settings, log=log, timeout_seconds=timeout_seconds)
    except KafkaAccessError:
        return False
