"""The settings of the pool's producers: idempotent, acknowledged by all replicas, ordered by key, quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from omnibase_infra.shared.core.settings import Settings, require_kafka
from omnibase_infra.shared.kafka.security import security_config

# Retry and dead-letter records carry the original bytes and headers on top; the topic's own limit decides in the end.
HEADROOM_BYTES: Final = 64 * 1024


class ProducerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may differ between producers without touching order or durability.

    Attributes:
        size: number of producers in a pool. One is enough for about 200,000 records/s.
        linger_ms: how long a record may wait for others to share a request with.
        queue_records / queue_kilobytes: bounds of one producer's queue; senders wait when it is full.
        delivery_timeout_seconds: how long a record may wait for its confirmation, through outages of the broker.
        cut_off_seconds: how long a producer may have work and no connection before it is given up if brokers answer
            others. Needs statistics.
        statistics_seconds: time between statistics reports; 0 for none.
        overrides: librdkafka properties that win over everything else.
    """

    size: int = 1
    linger_ms: float = 2
    queue_records: int = 50_000
    queue_kilobytes: int = 64 * 1024
    delivery_timeout_seconds: float = 300.0
    cut_off_seconds: float = 15.0
    statistics_seconds: float = 5.0
    overrides: Mapping[str, Any] = {}


DEFAULT_OPTIONS: Final = ProducerOptions()


def producer_config(
    settings: Settings,
    *,
    client_id: str,
    options: ProducerOptions = DEFAULT_OPTIONS,
) -> dict[str, Any]:
    """Return the librdkafka properties of a producer. They may hold secrets: log `security.masked(...)` of them.

    Args:
        settings: of the process.
        client_id: shown in the brokers' logs, quotas and metrics.
        options: see there.

    Raises:
        SettingsError: no broker is set, or the security settings do not fit together.
    """
    return {
        "bootstrap.servers": require_kafka(settings),
        "client.id": client_id,
        "enable.idempotence": True,
        "acks": "all",
        # The partitioner of the Java clients; librdkafka's default would send a key elsewhere than they do.
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": options.linger_ms,
        # Of key and value, as librdkafka counts: headers come on top, so a dead letter of the largest record fits.
        "message.max.bytes": settings.max_record_bytes + HEADROOM_BYTES,
        "queue.buffering.max.messages": options.queue_records,
        "queue.buffering.max.kbytes": options.queue_kilobytes,
        "delivery.timeout.ms": int(options.delivery_timeout_seconds * 1000),
        "allow.auto.create.topics": False,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        "enable.metrics.push": False,
        "log.connection.close": False,
        "statistics.interval.ms": int(options.statistics_seconds * 1000),
        **security_config(settings),
        **options.overrides,
    }
