"""Names on a cluster: the public face of `shared.core.naming`, for people and for packages above `core`.

    physical   <realm>.onex.<kind>.<producer>.<event>.v<N>      dev.onex.cmd.postgres-adapter.requests.v1
    logical            onex.<kind>.<producer>.<event>.v<N>      what contracts and code write
    realm      <env>[-<tenant>]                                 dev, prod-acme
    group      <realm>.omnibase-infra.<worker>.<purpose>.v<M>   dev.omnibase-infra.postgres-adapter.consume.v1

Every refusal is an `InvalidNameError` that names the segment, what was expected, and a suggestion where one is close.
The grammar lies in the lowest layer since contracts and settings are below this package.
"""

from __future__ import annotations

from omnibase_infra.shared.core.naming import (
    ENVIRONMENTS,
    MAX_NAME_LENGTH,
    ORGANISATION,
    PURPOSES,
    SERVICE,
    TOPIC_KINDS,
    Environment,
    GroupPurpose,
    Realm,
    TopicKind,
    TopicName,
    dead_letter_actions_topic,
    dead_letter_topic,
    operation_type,
    resolutions_topic,
    retry_topic,
    worker_name,
)

__all__ = [
    "ENVIRONMENTS",
    "MAX_NAME_LENGTH",
    "ORGANISATION",
    "PURPOSES",
    "SERVICE",
    "TOPIC_KINDS",
    "Environment",
    "GroupPurpose",
    "Realm",
    "TopicKind",
    "TopicName",
    "dead_letter_actions_topic",
    "dead_letter_topic",
    "operation_type",
    "resolutions_topic",
    "retry_topic",
    "worker_name",
]
