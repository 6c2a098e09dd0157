"""Real Kafka, PostgreSQL and OpenBao on this machine, from wheels and jars: no Docker, Java or root.

`up(folder)` starts them and returns the `OMNIBASE_*` variables that reach them; `down(folder)` stops them.
"""

from __future__ import annotations

from omnibase_infra.shared.local_services.fleet import down, env, local_services, log_path, logs, status, up
from omnibase_infra.shared.local_services.kafka_service import KafkaService
from omnibase_infra.shared.local_services.log_reader import follow_log
from omnibase_infra.shared.local_services.openbao_service import OpenBaoService
from omnibase_infra.shared.local_services.postgres_service import PostgresService
from omnibase_infra.shared.local_services.service import LocalService, Progress, ProgressCallback, ServiceStatus
from omnibase_infra.shared.local_services.temporary_services import temporary_services

__all__ = [
    "KafkaService",
    "LocalService",
    "OpenBaoService",
    "PostgresService",
    "Progress",
    "ProgressCallback",
    "ServiceStatus",
    "down",
    "env",
    "follow_log",
    "local_services",
    "log_path",
    "logs",
    "status",
    "temporary_services",
    "up",
]
