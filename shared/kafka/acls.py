"""Access-control lists of a real cluster: the `AclAdmin` port on confluent-kafka's AdminClient, every wait bounded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from omnibase_infra.shared.core.errors import (
    ClusterRefusedError,
    DependencyUnavailableError,
    OmnibaseError,
    SettingsError,
)
from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.kafka.client_log import ClientLog, LogFunction
from omnibase_infra.shared.kafka.permissions import who
from omnibase_infra.shared.kafka.security import security_config
from omnibase_infra.shared.kafka.security_diagnosis import access_error, ask_for_topics, telling
from omnibase_infra.topics.acls import AclRule

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 10.0
# A future is set by the client's own time-out; this is for a client that does not keep it.
_GRACE_SECONDS: Final = 5.0
_RESOURCES: Final[Mapping[str, ResourceType]] = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,  # what the protocol calls cluster has the client's number for a broker
}
_NAMES: Final[Mapping[ResourceType, str]] = {value: name for name, value in _RESOURCES.items()}


class KafkaAclAdmin:
    """Administers the lists of one cluster; see `AclAdmin` for the promises."""

    def __init__(self, settings: Settings, *, log: LogFunction, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            settings: of the cluster, with the login of a user who may administer it.
            log: where the client's own lines go.
            timeout_seconds: of each request.

        Raises:
            SettingsError: no broker is set, or the settings do not fit together.
        """
        self._settings = settings
        self._address = require_kafka(settings)
        self._timeout = timeout_seconds
        self._reasons: list[KafkaError] = []
        self._brokers: tuple[int, ...] = ()
        client_log = ClientLog(log, "acl-admin")

        def note(error: KafkaError) -> None:
            client_log.error(error)
            self._reasons.append(error)

        config: dict[str, Any] = {
            "bootstrap.servers": self._address,
            "client.id": "acl-admin",
            "enable.metrics.push": False,
            "log.connection.close": False,
            "socket.timeout.ms": round(timeout_seconds * 1000),
            **security_config(settings),
            "logger": client_log,
            "error_cb": note,
        }
        try:
            self._client = AdminClient(config)
        except KafkaException as error:
            raise SettingsError(f"the Kafka client refuses the settings: {error}") from error

    def rules(self) -> Collection[AclRule]:
        """Return everything that is allowed by the cluster's lists."""
        anything: Any = None
        everything = AclBindingFilter(
            ResourceType.ANY,
            anything,
            ResourcePatternType.ANY,
            anything,
            anything,
            AclOperation.ANY,
            AclPermissionType.ALLOW,
        )
        found = self._ask(
            lambda: [self._client.describe_acls(everything, request_timeout=self._timeout)], "the access-control lists"
        )
        rules = [_rule(binding) for bindings in found for binding in bindings]
        if not rules and not self._has_authorizer():
            raise self._without_authorizer()
        return rules

    def grant(self, rules: Sequence[AclRule]) -> None:
        """Allow these; some may be allowed already."""
        if rules:
            bindings = [AclBinding(*_parts(rule)) for rule in rules]
            self._ask(
                lambda: self._client.create_acls(bindings, request_timeout=self._timeout).values(), "a grant of rights"
            )

    def revoke(self, rules: Sequence[AclRule]) -> None:
        """Take exactly these away; some may be gone already."""
        if rules:
            filters = [AclBindingFilter(*_parts(rule)) for rule in rules]
            self._ask(
                lambda: self._client.delete_acls(filters, request_timeout=self._timeout).values(),
                "a revocation of rights",
            )

    def _has_authorizer(self) -> bool:
        """Return whether lists are obeyed: a cluster that knows none answers as one whose lists are empty."""
        broker = ConfigResource(ResourceType.BROKER, str(min(self._brokers)))
        what = "the settings of its brokers"
        (settings,) = self._ask(
            lambda: self._client.describe_configs([broker], request_timeout=self._timeout).values(), what
        )
        return bool(settings["authorizer.class.name"].value)

    def _without_authorizer(self) -> ClusterRefusedError:
        return ClusterRefusedError(
            f"the cluster at {self._address} has no authorizer: everybody may do everything",
            hint="set authorizer.class.name on its brokers",
        )

    def _ask(self, request: Callable[[], Iterable[Future[T]]], what: str) -> list[T]:
        """Send a request and return its answers, all of them or none."""
        try:
            if not self._brokers:
                # It says sooner than a request whether we are let in.
                found = ask_for_topics(self._client, self._settings, self._reasons, self._timeout)
                self._brokers = tuple(found.brokers)
            return [future.result(self._timeout + _GRACE_SECONDS) for future in request()]
        except FutureTimeoutError as error:
            raise self._unreachable(what, "no answer") from error
        except KafkaException as error:
            raise self._classified(error.args[0], what) from error

    def _classified(self, error: KafkaError, what: str) -> OmnibaseError:
        if error.code() == KafkaError.SECURITY_DISABLED:
            return self._without_authorizer()
        if error.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            return ClusterRefusedError(
                f"the cluster at {self._address} refuses {who(self._settings)} {what}",
                hint="log in as one of its super.users, or give this user Alter and Describe on the cluster",
            )
        if error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT):
            return self._unreachable(what, error.str())
        return ClusterRefusedError(f"the cluster at {self._address} refuses {what}: {error.name()}, {error.str()}")

    def _unreachable(self, what: str, reason: str) -> OmnibaseError:
        if refused := access_error(self._settings, self._reasons):
            return refused
        noted = telling(self._reasons, reason)
        return DependencyUnavailableError(
            f"no Kafka broker at {self._address} answered {what} in time: {noted}",
            dependency="kafka",
            hint="check OMNIBASE_KAFKA_BOOTSTRAP_SERVERS and the security settings",
        )


def _rule(binding: AclBinding) -> AclRule:
    # The client has names for all that it knows, and numbers for what a newer broker may say.
    resource: Any = binding.restype
    operation: Any = binding.operation
    pattern: Any = binding.resource_pattern_type
    return AclRule(
        binding.principal,
        _NAMES.get(resource, str(resource)),
        binding.name,
        operation.name.lower().replace("_", "-"),
        pattern.name.lower(),
        binding.host,
    )


def _parts(rule: AclRule) -> tuple[Any, ...]:
    return (
        _RESOURCES[rule.resource],
        rule.name,
        ResourcePatternType[rule.pattern.upper()],
        rule.principal,
        rule.host,
        AclOperation[rule.operation.upper().replace("-", "_")],
        AclPermissionType.ALLOW,
    )
