from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import free_ports


@pytest.fixture
def taken_port() -> Iterator[int]:
    (port,) = free_ports.choose(1)
    with socket.create_server((free_ports.LOOPBACK, port)):
        yield port


def test_chosen_ports_differ_and_lie_below_those_of_outgoing_connections() -> None:
    ports = free_ports.choose(20)

    assert len(set(ports)) == 20
    assert min(ports) >= free_ports.LOWEST
    assert max(ports) < free_ports._ephemeral_start()


def test_a_port_with_a_listener_is_not_free(taken_port: int) -> None:
    assert not free_ports.is_free(taken_port)


def test_a_port_that_a_server_just_left_is_free_though_connections_linger() -> None:
    (port,) = free_ports.choose(1)
    with socket.create_server((free_ports.LOOPBACK, port)) as server:
        client = socket.create_connection((free_ports.LOOPBACK, port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the address in TIME_WAIT
        client.close()

    assert free_ports.is_free(port)


def test_remembered_ports_are_kept_unless_taken(taken_port: int) -> None:
    (free,) = free_ports.choose(1)

    assert free_ports.keep_or_choose([free], 1) == [free]
    first, second = free_ports.keep_or_choose([taken_port, free], 2)
    assert first not in (taken_port, free)
    assert second == free


def test_ports_to_avoid_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_ports, "_ephemeral_start", lambda: free_ports.LOWEST + 1)

    with pytest.raises(LocalServiceError, match="no free port"):
        free_ports.choose(1, avoid=[free_ports.LOWEST])


def test_a_system_that_does_not_tell_its_range_has_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(free_ports, "EPHEMERAL_RANGE", tmp_path / "missing")

    assert free_ports._ephemeral_start() == free_ports.USUAL_EPHEMERAL_START
