"""A process that copies a topic record by record in transactions: `BOOTSTRAP ENVIRONMENT TENANT`. Ends with 3 when it was fenced."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from confluent_kafka import TopicPartition
from tests.faults.probe import probe_spec

from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
from omnibase_infra.shared.kafka.outbound_topics import OutboundTopics
from omnibase_infra.shared.kafka.transaction_client import transaction_config
from omnibase_infra.shared.kafka.transaction_errors import ProducerFencedError
from omnibase_infra.shared.kafka.transactional_producer import TransactionalProducer

FENCED: Final = 3
_SECONDS: Final = 30.0
_MOST: Final = 20


def main(bootstrap: str, environment: str, tenant: str) -> int:
    """Copy until killed or fenced."""
    settings = load_settings(Path("no-env-file"), env=environment, tenant=tenant, kafka_bootstrap_servers=bootstrap)
    spec, realm = probe_spec(), settings.realm
    producer = TransactionalProducer(
        transaction_config(
            settings, transactional_id=realm.transactional_id(spec.worker, "copier"), client_id="copier"
        ),
        OutboundTopics(realm),
        log=_quiet,
    )
    producer.start()
    # Whoever was before us is fenced by this; only then do the committed offsets stand still.
    producer.submit([]).result(_SECONDS)
    consumer = create_consumer(
        settings,
        group=realm.group(spec.worker, spec.major),
        purpose="tail",
        client_id="copier",
        log=_quiet,
        options=ConsumerOptions(statistics_seconds=0),
    )
    name = TopicName.parse(spec.subscribe[0]).physical(realm)
    partitions = [TopicPartition(name, number) for number in range(spec.partitions)]
    consumer.assign(consumer.committed(partitions, timeout=_SECONDS))
    while True:
        messages = [one for one in consumer.consume(_MOST, 0.2) if one.error() is None]
        if not messages:
            continue
        copies = [OutboundRecord(spec.publish[0], one.value(), one.key(), STRUCTURED_HEADERS) for one in messages]
        nexts = {one.partition(): (one.offset() or 0) + 1 for one in messages}
        offsets = [TopicPartition(name, number or 0, offset) for number, offset in nexts.items()]
        try:
            producer.submit(copies, offsets, consumer.consumer_group_metadata()).result(_SECONDS)
        except ProducerFencedError:
            return FENCED


def _quiet(level: int, event: str, /, **fields: object) -> None:
    """Drop client log lines."""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
