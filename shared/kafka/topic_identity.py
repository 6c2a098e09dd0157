"""Which topics stand behind the names: a topic that is deleted and made anew has another id, and offsets of its own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.sasl_login import SaslLogin
from omnibase_infra.shared.kafka.security import security_config

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient, TopicDescription

TIMEOUT_SECONDS: Final = 5.0
# A future is set by the client's own time-out; this is for a client that does not keep it.
_GRACE_SECONDS: Final = 1.0
_NO_ID: Final = "A" * 22
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_ID})


class TopicIdentity:
    """Asks for the ids of topics, each time the same ones. One call at a time; it blocks, so call it in a thread."""

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        *,
        log: LogFunction,
        timeout_seconds: float = TIMEOUT_SECONDS,
        login: SaslLogin | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            settings: of the cluster.
            topics: their names on it.
            log: where the client's own lines go.
            timeout_seconds: of each look.
            login: asked when a client is made, so that the look after a failure has the password of now.

        Raises:
            SettingsError: no broker is set.
        """
        self._topics = list(topics)
        self._timeout = timeout_seconds
        self._login = login
        self._client_log = ClientLog(log, "topic-identity")
        self._config: dict[str, Any] = {
            "bootstrap.servers": require_kafka(settings),
            "client.id": "topic-identity",
            "allow.auto.create.topics": False,
            "enable.metrics.push": False,
            "log.connection.close": False,
            "socket.timeout.ms": round(timeout_seconds * 1000),
            **security_config(settings),
            "logger": self._client_log,
            "error_cb": self._client_log.error,
        }
        self._client: AdminClient | None = None

    def look(self) -> dict[str, str | None]:
        """Return the id of each topic as Kafka prints it, or None for one that does not exist.

        Brokers older than 2.8 have no ids: their topics are `""`. Never creates a topic.

        Raises:
            SettingsError: the client refuses the settings.
            DependencyUnavailableError: no broker said it in time, or it may not say it to us.
        """
        asked = self._open().describe_topics(TopicCollection(self._topics), request_timeout=self._timeout)
        ids: dict[str, str | None] = {}
        reason = ""
        for topic, future in asked.items():
            answer = self._answer(future)
            if answer is None:
                reason = "no answer"
            elif not isinstance(answer, KafkaError):
                ids[topic] = "" if str(answer.topic_id) == _NO_ID else str(answer.topic_id)
            elif answer.code() in _GONE:
                ids[topic] = None
            else:
                reason = answer.str()
        if reason:
            # A client may lose its brokers for good, see `runtime.client_watch`: the next look has a new one. Nothing
            # may keep this one alive, threads and sockets and all, until the collector comes by.
            self._client = None
            del asked, future
            raise DependencyUnavailableError(
                f"no Kafka broker said the ids of topics within {self._timeout:g} s: {reason}", dependency="kafka"
            )
        return ids

    def _open(self) -> AdminClient:
        if self._client is None:
            # Here, since a worker must not wait for it at its start.
            from confluent_kafka.admin import AdminClient

            try:
                self._client = AdminClient(self._config | (self._login.properties() if self._login else {}))
            except KafkaException as error:
                raise SettingsError(f"the Kafka client refuses the settings: {error}") from error
        return self._client

    def _answer(self, future: Future[TopicDescription]) -> TopicDescription | KafkaError | None:
        """Return what a future holds, None when it is late.

        Raising the error that it holds would tie it to our frames, and so the client to itself.
        """
        try:
            error = future.exception(self._timeout + _GRACE_SECONDS)
        except FutureTimeoutError:
            return None
        if error is None:
            return future.result()
        return error.args[0] if isinstance(error, KafkaException) else KafkaError(KafkaError._FAIL, str(error))
