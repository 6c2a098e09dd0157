"""The ahead-of-time cache that starts a broker in under a second: made once by a short training run."""

from __future__ import annotations

import base64
import hashlib
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.core.settings import cache_directory
from omnibase_infra.shared.local_services.file_lock import file_lock
from omnibase_infra.shared.local_services.free_ports import LOOPBACK, choose
from omnibase_infra.shared.local_services.kafka_jars import jars_key
from omnibase_infra.shared.local_services.kafka_java import JAVA_ENVIRONMENT, KafkaJava
from omnibase_infra.shared.local_services.kafka_probe import ask_cluster
from omnibase_infra.shared.local_services.kafka_settings import BrokerAddress, options_key, server_properties
from omnibase_infra.shared.local_services.local_extra import java
from omnibase_infra.shared.local_services.server_process import ServerProcess, wait_until_ready
from omnibase_infra.shared.local_services.service import ProgressCallback, Stopwatch, no_progress, waiting_for
from omnibase_infra.shared.local_services.whole_folders import (
    clear_left_in_progress,
    folder_in_progress,
    left_in_progress,
)

LOCK_TIMEOUT_SECONDS = 180.0
READY_TIMEOUT_SECONDS = 60.0
# The cache is written by a second process after the broker's graceful end.
WRITE_TIMEOUT_SECONDS = 90.0
CLIENT_TIMEOUT_SECONDS = 20.0
RECORDS = 200
TRAINING = "train"


def new_cluster_id() -> str:
    """Return a random id as Kafka writes them: 22 characters, none of them a leading dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def aot_cache_path() -> Path:
    """Return where the cache for the pinned jars, this Java and our options lies, made or not."""
    return cache_directory() / f"kafka-{jars_key()}" / f"broker-{_java_key()}-{options_key()}.aot"


def prepare_aot_cache(jars: Sequence[Path], progress: ProgressCallback = no_progress) -> Path:
    """Return the ahead-of-time cache for this class path and this Java, making it if it is missing.

    Raises:
        LocalServiceError: the training run failed.
    """
    path = aot_cache_path()
    if path.exists():
        return path
    with file_lock(path.with_suffix(".lock"), timeout=LOCK_TIMEOUT_SECONDS, on_wait=waiting_for("kafka", progress)):
        if not path.exists():
            for folder in left_in_progress(path.parent, TRAINING):
                _training_process(folder).kill()
            clear_left_in_progress(path.parent, TRAINING)
            with Stopwatch("kafka", "training the start-up cache (65 MB, once per user)", progress):
                _train(jars, path)
    return path


def _java_key() -> str:
    # A cache fits one build of the virtual machine in one place; another copy of it makes its own.
    home = java().parent.parent
    modules = (home / "lib" / "modules").stat()
    release = (home / "release").read_text(encoding="utf-8")
    text = f"{home}\n{release}\n{modules.st_size}\n{modules.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _train(jars: Sequence[Path], target: Path) -> None:
    with folder_in_progress(target.parent, TRAINING) as folder:
        output = folder / "cache.aot"
        properties = folder / "server.properties"
        client_port, controller_port = choose(2)
        address = BrokerAddress(client_port, controller_port)
        properties.write_text(server_properties(1, [address], "data"), encoding="utf-8")
        kafka = KafkaJava(jars)
        kafka.format(properties, new_cluster_id())
        process = _training_process(folder)
        command = kafka.broker_command(properties, [f"-XX:AOTCacheOutput={output}"])
        process.spawn(command, environment=JAVA_ENVIRONMENT, cwd=folder)
        try:
            wait_until_ready(
                [process],
                lambda: ask_cluster(LOOPBACK, address.client_port, timeout=1.0) is not None,
                timeout=READY_TIMEOUT_SECONDS,
            )
            _exercise(f"{LOOPBACK}:{address.client_port}")
            process.stop()
        finally:
            process.kill()
        if not output.exists():
            raise process.failure("wrote no start-up cache")
        output.replace(target)


def _training_process(folder: Path) -> ServerProcess:
    return ServerProcess(
        "kafka training run",
        pid_file=folder / "broker.pid",
        log_path=folder / "kafka.log",
        marker=str(folder / "server.properties"),
        stop_signals=((signal.SIGTERM, WRITE_TIMEOUT_SECONDS),),
    )


def _exercise(bootstrap: str) -> None:
    """Use the broker as workers do, so that the cache holds the classes they need."""
    from confluent_kafka import Consumer, KafkaException, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    common: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap, "log_level": 0}
    consumer = Consumer({**common, "group.id": "training", "auto.offset.reset": "earliest"})
    try:
        admin = AdminClient(common)
        for created in admin.create_topics([NewTopic("training", 2, 1)]).values():
            created.result(CLIENT_TIMEOUT_SECONDS)
        producer = Producer({**common, "enable.idempotence": True})
        consumer.subscribe(["training"])
        for number in range(RECORDS):
            producer.produce("training", key=str(number), value=b"x" * 100)
        producer.flush(CLIENT_TIMEOUT_SECONDS)
        deadline = time.monotonic() + CLIENT_TIMEOUT_SECONDS
        seen = 0
        while seen < RECORDS and time.monotonic() < deadline:
            seen += len(consumer.consume(RECORDS, timeout=0.5))
        consumer.commit(asynchronous=False)
    except KafkaException as error:
        raise LocalServiceError(f"kafka training run: {error}") from error
    finally:
        consumer.close()
