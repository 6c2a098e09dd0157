"""What a process of a transactional worker needs: its one transactional producer, and a look at the group's offsets."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from confluent_kafka import TopicPartition

from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.client_log import LogFunction
from omnibase_infra.shared.kafka.committed_offsets import committed_offset
from omnibase_infra.shared.kafka.outbound_topics import OutboundTopics
from omnibase_infra.shared.kafka.sasl_login import SaslLogin
from omnibase_infra.shared.kafka.transaction_client import transaction_config
from omnibase_infra.shared.kafka.transactional_producer import TransactionalProducer
from omnibase_infra.shared.runtime.transactional_commits import TransactionSupport


def open_transactions(
    spec: WorkerSpec,
    settings: Settings,
    *,
    client_id: str,
    log: LogFunction,
    allowed: Collection[str],
    contract: str,
    login: SaslLogin | None = None,
) -> tuple[TransactionSupport, TransactionalProducer]:
    """Start the producer of a process; the caller closes it.

    Its transactional id is the process's own: partitions move between processes, so an id per partition or per pod
    would have to move with them, and would fence whoever is slow. What keeps a zombie out is the consumer group.

    Raises:
        SettingsError: no broker is set, or the client library refuses a property.
    """
    group = settings.realm.group(spec.worker, spec.major)
    identity = settings.realm.transactional_id(spec.worker, f"v{spec.major}.{uuid.uuid4().hex}")
    topics = OutboundTopics(settings.realm, allowed, contract)
    config = transaction_config(settings, transactional_id=identity, client_id=f"{client_id}-0")
    login = login or SaslLogin(settings)
    producer = TransactionalProducer(config, topics, log=log, login=login)
    producer.start()

    def read(partition: TopicPartition) -> TopicPartition:
        return committed_offset(login.settings, group, partition, client_id=f"{client_id}-look", log=log)

    return TransactionSupport(producer, topics.of, read), producer
