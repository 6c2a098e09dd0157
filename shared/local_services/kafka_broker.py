"""One broker of a local cluster: its data folder, its configuration, its process."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services.free_ports import LOOPBACK
from omnibase_infra.shared.local_services.kafka_java import JAVA_ENVIRONMENT, KafkaJava
from omnibase_infra.shared.local_services.kafka_probe import ClusterView, ask_cluster
from omnibase_infra.shared.local_services.kafka_security import KafkaSecurity
from omnibase_infra.shared.local_services.kafka_settings import BrokerAddress, server_properties
from omnibase_infra.shared.local_services.private_files import write_private
from omnibase_infra.shared.local_services.server_process import ServerProcess
from omnibase_infra.shared.local_services.whole_folders import clear_left_in_progress, folder_in_progress

STOP_TIMEOUT_SECONDS = 10.0
PROBE_TIMEOUT_SECONDS = 2.0


class KafkaBroker:
    """A broker and controller in one process.

    Args:
        folder: folder of the service; each broker has names of its own in it.
        node_id: from 1.
        security: of its secured listeners, None where it has none.
    """

    def __init__(self, folder: Path, node_id: int, security: KafkaSecurity | None = None) -> None:
        self.node_id = node_id
        self._security = security
        self._folder = folder
        self.data = folder / f"data-{node_id}"
        self.properties = folder / f"server-{node_id}.properties"
        self.log_path = folder / ("kafka.log" if node_id == 1 else f"kafka-{node_id}.log")
        self.process = ServerProcess(
            f"kafka broker {node_id}",
            pid_file=folder / f"broker-{node_id}.pid",
            log_path=self.log_path,
            marker=str(self.properties),
            stop_signals=((signal.SIGTERM, STOP_TIMEOUT_SECONDS),),
        )

    @property
    def is_formatted(self) -> bool:
        """Return whether the data folder is there; it appears under its name only when formatting was done."""
        return (self.data / "meta.properties").exists()

    def format(self, java: KafkaJava, cluster_id: str, brokers: Sequence[BrokerAddress]) -> None:
        """Format the data folder beside its place and move it there, so that half of one is never seen.

        Raises:
            LocalServiceError: formatting failed, or what is in its place holds topics and is no Kafka data folder.
        """
        self._remove_half_formatted()
        clear_left_in_progress(self._folder, f"format-{self.node_id}")
        with folder_in_progress(self._folder, f"format-{self.node_id}") as temporary:
            properties = temporary / "server.properties"
            properties.write_text(self._configuration(brokers, "data"), encoding="utf-8")
            java.format(properties, cluster_id)
            (temporary / "data").rename(self.data)

    def _remove_half_formatted(self) -> None:
        partitions = [
            path.name for path in self.data.glob("*-[0-9]*") if not path.name.startswith("__cluster_metadata")
        ]
        if partitions:
            raise LocalServiceError(
                f"kafka: {self.data} holds partitions ({', '.join(partitions[:3])}, ...) but no meta.properties",
                hint="put that file back, or remove the data by `omninode infra down --delete-data`",
            )
        shutil.rmtree(self.data, ignore_errors=True)

    def spawn(self, java: KafkaJava, brokers: Sequence[BrokerAddress]) -> None:
        """Start the process; it does not answer yet.

        Raises:
            LocalServiceError: it ended at once.
        """
        write_private(self.properties, self._configuration(brokers, self.data.name))
        self.process.spawn(java.broker_command(self.properties), environment=JAVA_ENVIRONMENT, cwd=self._folder)

    def _configuration(self, brokers: Sequence[BrokerAddress], data: str) -> str:
        return server_properties(self.node_id, brokers, data, self._security)

    def ask(self, address: BrokerAddress) -> ClusterView | None:
        """Return the cluster as this broker sees it, None when it does not answer."""
        return ask_cluster(LOOPBACK, address.client_port, timeout=PROBE_TIMEOUT_SECONDS)
