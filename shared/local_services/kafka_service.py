"""A real Kafka cluster of one to three brokers on this machine, without Docker and without an installed Java."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import free_ports
from omnibase_infra.shared.local_services.free_ports import LOOPBACK
from omnibase_infra.shared.local_services.kafka_aot import new_cluster_id, prepare_aot_cache
from omnibase_infra.shared.local_services.kafka_broker import KafkaBroker
from omnibase_infra.shared.local_services.kafka_jars import KAFKA_VERSION, fetch_kafka_jars
from omnibase_infra.shared.local_services.kafka_java import KafkaJava
from omnibase_infra.shared.local_services.kafka_security import SECURED_HOST, KafkaSecurity
from omnibase_infra.shared.local_services.kafka_settings import BrokerAddress
from omnibase_infra.shared.local_services.private_files import write_private
from omnibase_infra.shared.local_services.server_process import stop_together, wait_until_ready
from omnibase_infra.shared.local_services.service import (
    Progress,
    ProgressCallback,
    ServiceState,
    ServiceStatus,
    Stopwatch,
    no_progress,
)
from omnibase_infra.shared.local_services.whole_folders import remove_whole

READY_TIMEOUT_SECONDS = 60.0
START_ATTEMPTS = 3
MOST_BROKERS = 3
DELETE_DATA_HINT = "`omninode infra down --delete-data` removes its data"
PORT_TAKEN = "Address already in use"


class KafkaCluster(msgspec.Struct, frozen=True):
    """What belongs to a data folder for good, and the addresses it was last reached under."""

    cluster_id: str
    brokers: tuple[BrokerAddress, ...]


class KafkaService:
    """Kafka 4.1 in KRaft mode; brokers listen on the loopback address only.

    Args:
        folder: everything it keeps: data, logs, configuration, pid files.
        brokers: 1 to 3. None takes what the data folder was made with, 1 for a new one. With 3, topics default
            to 3 replicas of which 2 must be in sync.
        proxied: give a new data folder's brokers a second listener each, for clients that come through a proxy.
        security: give a new data folder's brokers listeners with TLS and passwords, and an authorizer. Asked for again
            with each service on that folder, since it is not kept there.
    """

    name = "kafka"
    version = KAFKA_VERSION

    def __init__(
        self,
        folder: Path,
        *,
        brokers: int | None = None,
        proxied: bool = False,
        security: KafkaSecurity | None = None,
    ) -> None:
        if brokers is not None and not 1 <= brokers <= MOST_BROKERS:
            raise LocalServiceError(f"kafka: {brokers} brokers asked for, 1 to {MOST_BROKERS} are possible")
        self._folder = folder.resolve()
        self._asked_for = brokers
        self._proxied = proxied
        self._security = security
        self._cluster_file = self._folder / "cluster.json"
        self._brokers: list[KafkaBroker] = []
        self._prepared_java: KafkaJava | None = None

    @property
    def log_path(self) -> Path:
        """Return the log of the first broker; the others' lie beside it."""
        return self._folder / "kafka.log"

    @property
    def brokers(self) -> list[KafkaBroker]:
        """Return the brokers, for tests that stop, kill or start one of several."""
        cluster = self._cluster()
        count = len(cluster.brokers) if cluster else self._asked_for or 1
        for number in range(len(self._brokers) + 1, count + 1):
            self._brokers.append(KafkaBroker(self._folder, number, self._security))
        return self._brokers[:count]

    def prepare(self, progress: ProgressCallback = no_progress) -> None:
        """Fetch the jars, train the start-up cache, format the data folders: what is missing of it.

        Raises:
            LocalServiceError: says which of it failed.
        """
        java = self._java(progress)
        self._end_missing()
        cluster = self._cluster()
        if cluster is None:
            # Remembered before anything is formatted: all brokers must get the same id, also after a crash.
            cluster = KafkaCluster(new_cluster_id(), self._new_addresses())
            self._remember(cluster)
        elif self._asked_for not in (None, len(cluster.brokers)):
            raise LocalServiceError(
                f"kafka: {self._folder} holds the data of {len(cluster.brokers)} brokers, not of {self._asked_for}",
                hint=DELETE_DATA_HINT,
            )
        missing = [broker for broker in self.brokers if not broker.is_formatted]
        if missing:
            with Stopwatch(self.name, "formatting its data folder", progress):
                for broker in missing:
                    broker.format(java, cluster.cluster_id, cluster.brokers)

    def start(self, progress: ProgressCallback = no_progress) -> None:
        """Start the brokers that do not run and wait until all answer.

        Raises:
            LocalServiceError: one ended or did not answer; those that were started here are ended again.
        """
        if self.is_running():
            try:
                self._wait()
            except LocalServiceError:
                if self.is_running():
                    raise  # not started by this call, so it is left alive
            else:
                return
        self._start_missing(progress)

    def _start_missing(self, progress: ProgressCallback) -> None:
        java = self._java(progress)
        for attempt in range(1, START_ATTEMPTS + 1):
            missing = self._end_missing()
            self._settle_ports(missing, progress)
            cluster = self._known_cluster()
            try:
                with Stopwatch(self.name, f"starting Apache Kafka {self.version}", progress):
                    for broker in missing:
                        broker.spawn(java, cluster.brokers)
                    self._wait()
            except BaseException as error:
                for broker in missing:
                    broker.process.kill()
                # Between the choice of a port and its use another process may have taken it.
                port_taken = any(broker.process.said(PORT_TAKEN) for broker in missing)
                if not (isinstance(error, LocalServiceError) and port_taken and attempt < START_ATTEMPTS):
                    raise
            else:
                return

    def stop(self) -> bool:
        """End all brokers gracefully."""
        return stop_together([broker.process for broker in self.brokers])

    def kill(self) -> bool:
        """End all brokers at once, as a power cut would."""
        ended = [broker.process.kill() for broker in self.brokers]
        return any(ended)

    def is_running(self) -> bool:
        """Return whether the process of every broker lives."""
        return self._cluster() is not None and all(broker.process.is_running() for broker in self.brokers)

    def status(self) -> ServiceStatus:
        """Ask every broker for its view of the cluster."""
        running = [broker for broker in self.brokers if broker.process.is_running()]
        uptimes = [uptime for broker in running if (uptime := broker.process.uptime_seconds()) is not None]
        state: ServiceState
        detail = ""
        if not running:
            state = "stopped"
        elif len(running) < len(self.brokers):
            state, detail = "unhealthy", f"{len(running)} of {len(self.brokers)} brokers run"
        elif not self._answers():
            state, detail = "unhealthy", f"it runs but does not answer; see {self.log_path}"
        else:
            state = "running"
        return ServiceStatus(
            name=self.name,
            state=state,
            address=self._bootstrap_servers() if running else "",
            version=self.version if running else "",
            uptime_seconds=min(uptimes, default=None),
            detail=detail,
            log_path=self.log_path,
        )

    def variables(self) -> dict[str, str]:
        """Return the broker addresses.

        Raises:
            LocalServiceError: it was never prepared.
        """
        return {"OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": self._bootstrap_servers()}

    def proxies(self) -> list[tuple[int, int]]:
        """Return for each broker the port that its proxy must listen on, and the one it must forward to.

        Raises:
            LocalServiceError: it was never prepared, or not to be reached through proxies.
        """
        pairs = [(item.proxy_port, item.proxied_port) for item in self._known_cluster().brokers if item.proxied_port]
        if not pairs:
            raise LocalServiceError(f"kafka: {self._folder} was not prepared for proxies")
        return pairs

    def secured_address(self, listener: str) -> str:
        """Return the brokers' addresses by one of the secured listeners.

        Raises:
            LocalServiceError: it was never prepared.
        """
        place = self._security.names.index(listener) if self._security else 0
        ports = [item.secured_ports[place] for item in self._known_cluster().brokers]
        return ",".join(f"{SECURED_HOST}:{port}" for port in ports)

    def delete_data(self) -> None:
        """Remove its folder.

        Raises:
            LocalServiceError: a broker runs.
        """
        if any(broker.process.is_running() for broker in self.brokers):
            raise LocalServiceError("kafka: a broker runs; its data is not removed", hint="stop it first")
        remove_whole(self._folder)

    def _new_addresses(self) -> tuple[BrokerAddress, ...]:
        plain = 4 if self._proxied else 2
        each = plain + (len(self._security.names) if self._security else 0)
        ports = free_ports.choose(each * (self._asked_for or 1))
        shares = [tuple(ports[start : start + each]) for start in range(0, len(ports), each)]
        return tuple(_address(few[:plain], few[plain:]) for few in shares)

    def _java(self, progress: ProgressCallback) -> KafkaJava:
        if self._prepared_java is None:
            jars = fetch_kafka_jars(progress)
            cache = None
            try:
                cache = prepare_aot_cache(jars, progress)
            except LocalServiceError as error:
                # The cache saves seconds and changes nothing else.
                progress(Progress(self.name, f"starting without a start-up cache: {error}", done=True))
            self._prepared_java = KafkaJava(jars, cache)
        return self._prepared_java

    def _end_missing(self) -> list[KafkaBroker]:
        """Return the brokers that do not run, after what is left of them is gone: it would use the same folder."""
        missing = [broker for broker in self.brokers if not broker.process.is_running()]
        stop_together([broker.process for broker in missing])
        return missing

    def _settle_ports(self, missing: list[KafkaBroker], progress: ProgressCallback) -> None:
        """Give brokers whose ports are taken by others new ones; only while no broker of the cluster runs."""
        cluster = self._known_cluster()
        if len(missing) < len(cluster.brokers):
            return  # the others know these addresses
        ports = [port for item in cluster.brokers for port in (item.client_port, item.controller_port)]
        settled = free_ports.keep_or_choose(ports, len(ports))
        if settled == ports:
            return
        progress(Progress(self.name, "choosing another port: the one it had is taken by another process", done=True))
        moved = tuple(
            msgspec.structs.replace(item, client_port=client, controller_port=controller)
            for item, client, controller in zip(cluster.brokers, settled[::2], settled[1::2], strict=True)
        )
        self._remember(KafkaCluster(cluster.cluster_id, moved))

    def _wait(self) -> None:
        wait_until_ready([broker.process for broker in self.brokers], self._answers, timeout=READY_TIMEOUT_SECONDS)

    def _answers(self) -> bool:
        """Return whether every broker answers, is of this cluster and sees all the others."""
        cluster = self._known_cluster()
        everyone = frozenset(broker.node_id for broker in self.brokers)
        views = (broker.ask(cluster.brokers[broker.node_id - 1]) for broker in self.brokers)
        return all(
            view is not None and view.cluster_id == cluster.cluster_id and view.broker_ids == everyone for view in views
        )

    def _bootstrap_servers(self) -> str:
        return ",".join(f"{LOOPBACK}:{item.client_port}" for item in self._known_cluster().brokers)

    def _known_cluster(self) -> KafkaCluster:
        cluster = self._cluster()
        if cluster is None:
            raise LocalServiceError(f"kafka: {self._folder} was never prepared", hint="run `omninode infra up`")
        return cluster

    def _cluster(self) -> KafkaCluster | None:
        try:
            return msgspec.json.decode(self._cluster_file.read_bytes(), type=KafkaCluster)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise LocalServiceError(f"kafka: {self._cluster_file} is damaged: {error}", hint=DELETE_DATA_HINT) from None

    def _remember(self, cluster: KafkaCluster) -> None:
        write_private(self._cluster_file, msgspec.json.encode(cluster).decode() + "\n")


def _address(plain: Sequence[int], secured: tuple[int, ...]) -> BrokerAddress:
    client, controller, proxied, proxy = (*plain, 0, 0)[:4]
    return BrokerAddress(client, controller, proxied, proxy, secured)
