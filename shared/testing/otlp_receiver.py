"""A real OTLP receiver for tests, over gRPC or HTTP, that keeps the spans it was sent and can be stopped and started again."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Literal

import grpc  # type: ignore[import-untyped]  # ships no types
import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

if TYPE_CHECKING:  # needs a library for certificates, which only tests with TLS have to have
    from omnibase_infra.shared.testing.certificates import ServerCertificate

_STOP_SECONDS: Final = 5.0


class ReceivedSpan(msgspec.Struct, frozen=True):
    """A span as it arrived. Ids are hex; `parent_id` is empty for a root.

    Attributes:
        kind: as OpenTelemetry counts: 1 internal, 3 client, 5 consumer.
        failed: whether its status is an error; `message` says which.
        links: (trace id, span id) of the spans it has to do with.
        resource: facts about the process.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    message: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    resource: dict[str, Any]
    tracestate: str


class OtlpReceiver:
    """Listens on a loopback port of its own. Safe from any thread."""

    def __init__(self, protocol: Literal["grpc", "http"], certificate: ServerCertificate | None = None) -> None:
        """Prepare it; `start` listens, with a certificate for TLS only."""
        self.protocol: Final = protocol
        self._certificate = certificate
        self.port = 0
        self.headers: list[dict[str, str]] = []
        self._spans: list[ReceivedSpan] = []
        self._arrived = threading.Condition()
        self._server: _GrpcServer | _HttpServer | None = None

    @property
    def endpoint(self) -> str:
        """Return the address, as `OMNIBASE_OTLP_ENDPOINT` takes it."""
        return f"http://127.0.0.1:{self.port}" if self._certificate is None else f"https://localhost:{self.port}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Return the spans that have arrived."""
        with self._arrived:
            return list(self._spans)

    def start(self) -> None:
        """Listen; after a stop on the same port as before."""
        make = _GrpcServer if self.protocol == "grpc" else _HttpServer
        self._server = make(self._take, self.port, self._certificate)
        self.port = self._server.port

    def stop(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def wait_for(self, count: int, seconds: float = 20.0, name: str = "") -> list[ReceivedSpan]:
        """Return the spans, of that name if one is given, once there are so many.

        Raises:
            AssertionError: they did not come in time.
        """

        def found() -> list[ReceivedSpan]:
            return [span for span in self._spans if not name or span.name == name]

        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(found()) >= count, seconds)
            if not arrived:
                raise AssertionError(f"{len(found())} of {count} spans within {seconds:g} s: {self._spans}")
            return found()

    def _take(self, request: ExportTraceServiceRequest, headers: Iterable[tuple[str, str]]) -> None:
        with self._arrived:
            self.headers.append({name.lower(): value for name, value in headers})
            self._spans.extend(_received(request))
            self._arrived.notify_all()


@contextmanager
def otlp_receiver(
    protocol: Literal["grpc", "http"], certificate: ServerCertificate | None = None
) -> Iterator[OtlpReceiver]:
    """Provide a receiver that listens for the length of the block; with a certificate for TLS only."""
    receiver = OtlpReceiver(protocol, certificate)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


class _GrpcServer:
    def __init__(self, take: Any, port: int, certificate: ServerCertificate | None) -> None:
        class Servicer(TraceServiceServicer):
            def Export(  # noqa: N802 - the service's own name
                self, request: ExportTraceServiceRequest, context: Any
            ) -> ExportTraceServiceResponse:
                take(request, context.invocation_metadata())
                return ExportTraceServiceResponse()

        self._server = grpc.server(ThreadPoolExecutor(4))
        add_TraceServiceServicer_to_server(Servicer(), self._server)  # type: ignore[no-untyped-call]
        address = f"127.0.0.1:{port}"
        if certificate is None:
            self.port: int = self._server.add_insecure_port(address)
        else:
            pair = (certificate.key.read_bytes(), certificate.chain.read_bytes())
            self.port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait(_STOP_SECONDS)


class _HttpServer:
    def __init__(self, take: Any, port: int, certificate: ServerCertificate | None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path != "/v1/traces":
                    self.send_error(404)
                    return
                take(ExportTraceServiceRequest.FromString(body), self.headers.items())
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate.chain, certificate.key)
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_STOP_SECONDS)


def _received(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    failed=span.status.code == 2,
                    message=span.status.message,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    resource=resource,
                    tracestate=span.trace_state,
                )


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
