"""Outgoing HTTP requests continue the trace: a session of `requests`, as hvac takes it, on a real server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.observability.http_spans import traced_session
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.tracer_factory import create_tracing
from omnibase_infra.shared.testing.otlp_receiver import otlp_receiver


class Server:
    """Answers 404 and keeps the `traceparent` of each request."""

    def __init__(self) -> None:
        seen = self.seen = list[str | None]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers.get("traceparent"))
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join(10)


async def test_a_request_of_traced_work_is_a_span_and_names_it_to_the_server(server: Server) -> None:
    with otlp_receiver("http") as receiver, traced_session(requests.Session()) as session:
        settings = load_settings(Path(os.devnull), env="test", otlp_endpoint=receiver.endpoint, otlp_protocol="http")
        tracing = create_tracing(settings, service="a", registry=MetricsRegistry(process_metrics=False))
        assert tracing is not None
        span = tracing.start("process", "consumer")
        with tracing.active(span):
            session.get(f"{server.url}/v1/secret/data/x?token=hunter2", timeout=10)
        span.end()
        session.get(server.url, timeout=10)
        await tracing.aclose(10.0)
        request = receiver.wait_for(1, name="GET")[0]
    process = span.get_span_context()
    assert request.parent_id == f"{process.span_id:016x}"
    assert server.seen == [f"00-{process.trace_id:032x}-{request.span_id}-01", None]
    assert request.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "server.address": "127.0.0.1",
        "server.port": server.http.server_address[1],
        "url.full": f"{server.url}/v1/secret/data/x",
        "error.type": "404",
    }


async def test_a_server_that_is_away_is_a_failed_span(server: Server) -> None:
    with otlp_receiver("http") as receiver, traced_session(requests.Session()) as session:
        settings = load_settings(Path(os.devnull), env="test", otlp_endpoint=receiver.endpoint, otlp_protocol="http")
        tracing = create_tracing(settings, service="a", registry=MetricsRegistry(process_metrics=False))
        assert tracing is not None
        span = tracing.start("process", "consumer")
        with tracing.active(span), pytest.raises(requests.ConnectionError):
            session.get("http://127.0.0.1:1/", timeout=10)
        span.end()
        await tracing.aclose(10.0)
        assert receiver.wait_for(1, name="GET")[0].failed
