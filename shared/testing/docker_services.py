"""Kafka and PostgreSQL in containers, for tests that run with `--services=docker`. testcontainers is loaded only then."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services.free_ports import choose

if TYPE_CHECKING:
    import pytest
    from testcontainers.core.container import DockerContainer

SERVICES: Final = ("local", "docker")
# Other images for a registry of one's own, or an engine that pulls nothing.
KAFKA_IMAGE: Final = "OMNIBASE_TEST_KAFKA_IMAGE"
POSTGRES_IMAGE: Final = "OMNIBASE_TEST_POSTGRES_IMAGE"
DEFAULT_IMAGES: Final = {KAFKA_IMAGE: "apache/kafka:4.1.0", POSTGRES_IMAGE: "postgres:17"}
START_SECONDS: Final = 90.0
_LOOK_SECONDS: Final = 0.2
_LOG_LINES: Final = 15


def in_docker(config: pytest.Config) -> bool:
    """Return whether servers of tests run in containers."""
    return bool(config.getoption("--services", default="local") == "docker")


@contextmanager
def docker_postgres() -> Iterator[str]:
    """Run PostgreSQL in a container for the length of the block; give its address, whose user may create databases.

    Raises:
        LocalServiceError: no Docker engine answers, the image cannot be had, or the server does not come up.
    """
    password = secrets.token_hex(12)
    container = _container(POSTGRES_IMAGE)
    container.with_env("POSTGRES_USER", "omnibase").with_env("POSTGRES_PASSWORD", password)
    container.with_env("POSTGRES_DB", "omnibase").with_exposed_ports(5432)
    # fsync is for data that is to survive; these tests' is not.
    container.with_command("-c fsync=off -c max_connections=200")
    with _running(container, "PostgreSQL") as running:
        address = f"{running.get_container_host_ip()}:{running.get_exposed_port(5432)}"
        dsn = f"postgresql://omnibase:{password}@{address}/omnibase"
        _wait(running, "PostgreSQL", lambda: _postgres_problem(dsn))
        yield dsn


@contextmanager
def docker_kafka() -> Iterator[str]:
    """Run a broker in a container for the length of the block; give its address.

    Raises:
        LocalServiceError: no Docker engine answers, the image cannot be had, or the broker does not come up.
    """
    container = _container(KAFKA_IMAGE)
    # The broker tells clients its address, so the port must be known before it starts.
    (port,) = choose(1)
    host = os.environ.get("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    for name, value in {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }.items():
        container.with_env(name, value)
    container.with_bind_ports(port, port)
    with _running(container, "Kafka") as running:
        address = f"{host}:{port}"
        _wait(running, "Kafka", lambda: _kafka_problem(address))
        yield address


def _container(variable: str) -> DockerContainer:
    try:
        from testcontainers.core.container import DockerContainer
    except ImportError as error:
        raise LocalServiceError(
            "--services=docker needs testcontainers", hint="install omnibase-infra-fleet[dev], or leave the option out"
        ) from error
    try:
        return DockerContainer(os.environ.get(variable, DEFAULT_IMAGES[variable]))
    except Exception as error:
        raise _no_engine(error) from error


@contextmanager
def _running(container: DockerContainer, name: str) -> Iterator[DockerContainer]:
    try:
        container.start()
    except Exception as error:
        container.stop()
        raise LocalServiceError(
            f"{name} could not be started from the image {container.image}: {error}",
            hint=f"pull it first, or name another one in {KAFKA_IMAGE} or {POSTGRES_IMAGE}",
        ) from error
    try:
        yield container
    finally:
        container.stop()


def _wait(container: DockerContainer, name: str, problem: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while (reason := problem()) is not None:
        if time.monotonic() > deadline:
            output = b"".join(container.get_logs()).decode(errors="replace").splitlines()[-_LOG_LINES:]
            raise LocalServiceError(
                f"{name} in its container did not answer within {START_SECONDS:g} s: {reason}",
                hint="its last lines:\n  " + "\n  ".join(output),
            )
        time.sleep(_LOOK_SECONDS)


def _postgres_problem(dsn: str) -> str | None:
    from omnibase_infra.shared.local_services.dependency_checks import check_postgres

    return check_postgres(dsn).problem or None


def _kafka_problem(address: str) -> str | None:
    from omnibase_infra.shared.local_services.dependency_checks import check_kafka

    return check_kafka({"bootstrap.servers": address}).problem or None


def _no_engine(error: Exception) -> LocalServiceError:
    return LocalServiceError(
        f"no Docker engine answers at {os.environ.get('DOCKER_HOST', 'its default address')}: {error}",
        hint="start it or set DOCKER_HOST, or leave --services=docker out: local servers need no Docker",
    )
