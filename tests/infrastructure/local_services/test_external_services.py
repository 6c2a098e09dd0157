from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from omnibase_infra.shared.local_services import dependency_checks, free_ports
from omnibase_infra.shared.local_services.dependency_checks import (
    check_consul,
    check_kafka,
    check_postgres,
    check_vault,
)
from omnibase_infra.shared.local_services.external_service import ExternalService, external_services
from omnibase_infra.shared.local_services.kafka_probe import ask_cluster

Answer = tuple[int, object]


@pytest.fixture
def answering() -> Iterator[Callable[[Answer], str]]:
    """Start an HTTP server that gives one answer to everything; returns its address."""
    servers: list[tuple[HTTPServer, threading.Thread]] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(answer[0])
                self.end_headers()
                self.wfile.write(json.dumps(answer[1]).encode())

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def nobody_listens() -> str:
    (port,) = free_ports.choose(1)
    return f"127.0.0.1:{port}"


class TestChecks:
    def test_a_vault_answers_when_it_is_unsealed(self, answering: Callable[[Answer], str]) -> None:
        assert check_vault(answering((200, {"sealed": False, "version": "2.7.2"}))).version == "2.7.2"
        assert check_vault(answering((503, {"sealed": True}))).problem == "HTTP 503"

    def test_a_consul_needs_a_leader(self, answering: Callable[[Answer], str]) -> None:
        assert check_consul(answering((200, "127.0.0.1:8300")).removeprefix("http://")).problem == ""
        assert check_consul(answering((200, ""))).problem == "its servers have no leader"
        assert check_consul(answering((500, "no cluster leader"))).problem == "HTTP 500"

    def test_silence_is_a_problem(self, nobody_listens: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dependency_checks, "CHECK_TIMEOUT_SECONDS", 0.5)
        assert "refused" in check_vault(f"http://{nobody_listens}").problem
        assert "refused" in check_consul(nobody_listens).problem
        assert "Refused" in check_postgres(f"postgresql://me:secret@{nobody_listens}/db").problem
        assert check_kafka({"bootstrap.servers": nobody_listens}).problem

    @pytest.mark.parametrize(
        "dsn", ["postgresql://me:secret@127.0.0.1:notaport/db", "nonsense://me:secret@x", "me:secret"]
    )
    def test_a_malformed_address_is_reported_without_its_secret(self, dsn: str) -> None:
        problem = check_postgres(dsn).problem

        assert "malformed" in problem
        assert "secret" not in problem


class TestProbe:
    def test_nobody_is_not_a_broker(self, nobody_listens: str) -> None:
        host, _, port = nobody_listens.partition(":")

        assert ask_cluster(host, int(port), timeout=1) is None

    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\4\0\0\0\1", b"\0\0\0\0"])
    def test_something_else_is_not_a_broker(self, answer: bytes) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                assert ask_cluster("127.0.0.1", server.getsockname()[1], timeout=5) is None
            finally:
                thread.join()


def test_the_environment_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert external_services() == {}

    monkeypatch.setenv("OMNIBASE_VAULT_ADDR", "http://vault.example:8200")
    monkeypatch.setenv("OMNIBASE_CONSUL_ADDR", "")

    assert external_services() == {
        "vault": ExternalService("vault", "OMNIBASE_VAULT_ADDR", "http://vault.example:8200")
    }


def test_their_status_says_where_the_address_came_from_and_shows_no_secret(nobody_listens: str) -> None:
    dsn = f"postgresql://me:secret@{nobody_listens}/db?password=secret"

    status = ExternalService("postgres", "OMNIBASE_POSTGRES_DSN", dsn).status()

    assert not status.healthy
    assert status.address == nobody_listens
    assert status.detail.startswith("given by OMNIBASE_POSTGRES_DSN: ")
    assert "secret" not in repr(status)


def test_a_malformed_setting_of_the_client_is_shown_as_its_problem(
    nobody_listens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIBASE_KAFKA_SECURITY_PROTOCOL", "TLS")

    status = ExternalService("kafka", "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS", nobody_listens).status()

    assert "OMNIBASE_KAFKA_SECURITY_PROTOCOL" in status.detail
