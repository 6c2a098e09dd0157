"""A small HTTP/1.1 server for /livez, /readyz, /metrics and /info on the worker's own event loop.

One request a connection. Everything a client can do is bounded: connections, sizes, and the time it takes.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.runtime.health_endpoints import HealthEndpoints, HealthSource, Response, problem

MAX_CONNECTIONS: Final = 32
MAX_REQUEST_BYTES: Final = 8 * 1024
MAX_TARGET_LENGTH: Final = 1024
MAX_DISCARDED_CHUNKS: Final = 32
READ_TIMEOUT_SECONDS: Final = 5.0
WRITE_TIMEOUT_SECONDS: Final = 5.0

_ACCEPT: Final = re.compile(rb"\r\naccept:([^\r\n]*)", re.IGNORECASE)
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.[01]\Z")


class HealthServer:
    """Serves the health endpoints; an async context manager.

    Args:
        source: what is asked; see `HealthSource` for which thread calls it.
        host: address to listen on; loopback unless people ask for more.
        port: 0 picks a free one, see `port` after the start.
        read_timeout_seconds: for a whole request to arrive.
        write_timeout_seconds: for a whole answer to be taken.
        max_connections: further ones are answered 503 at once.
    """

    def __init__(
        self,
        source: HealthSource,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        write_timeout_seconds: float = WRITE_TIMEOUT_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.host: Final = host
        self._wanted_port = port
        self._read_timeout = read_timeout_seconds
        self._write_timeout = write_timeout_seconds
        self._max_connections = max_connections
        self._endpoints = HealthEndpoints(source)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Return the port that is listened on; the wanted one before the start."""
        if self._server is None or not self._server.sockets:
            return self._wanted_port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen.

        Raises:
            SettingsError: the address cannot be listened on, for example because the port is taken.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, self.host, self._wanted_port, limit=MAX_REQUEST_BYTES
            )
        except OSError as error:
            raise SettingsError(
                f"the health endpoints cannot listen on {self.host}:{self._wanted_port}: {error.strerror or error}",
                hint="set OMNIBASE_HEALTH_HOST and OMNIBASE_HEALTH_PORT; port 0 picks a free one",
            ) from error

    async def close(self) -> None:
        """Stop listening and end what is open; may be called twice."""
        if self._server is not None:
            self._server.close()
        connections = tuple(self._connections)
        for task in connections:
            task.cancel()
        if connections:
            # Each ends at its next step: `_serve` waits for nothing once it is cancelled.
            await asyncio.wait(connections, timeout=self._write_timeout)
        self._endpoints.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            # It fits an empty socket buffer, so nothing waits for this client.
            writer.write(
                _encode(
                    problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", code="too-many-connections"),
                    with_body=True,
                )
            )
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await self._receive(reader)
            if isinstance(request, Response):
                response, with_body = request, True
            else:
                method, path, accept = request
                response, with_body = await self._endpoints.answer(method, path, accept), method != "HEAD"
            async with asyncio.timeout(self._write_timeout):
                writer.write(_encode(response, with_body=with_body))
                await writer.drain()
                writer.write_eof()
                if response is request:
                    await _discard(reader)
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError, EOFError):
            # The client is slow or gone: its problem, and nothing it could still be told.
            return
        finally:
            # Also after `close`, which waits for the client to take what is left; nothing may keep the socket.
            writer.transport.abort()

    async def _receive(self, reader: asyncio.StreamReader) -> tuple[str, str, str] | Response:
        try:
            async with asyncio.timeout(self._read_timeout):
                return await _read_request(reader)
        except TimeoutError:
            return problem(
                HTTPStatus.REQUEST_TIMEOUT, f"no whole request within {self._read_timeout:g} s", code="timed-out"
            )


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, str] | Response:
    """Return method, path and what the client accepts, or the answer to a request that cannot be read."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return problem(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"more than {MAX_REQUEST_BYTES} bytes of headers",
            code="request-too-large",
        )
    line = head.split(b"\r\n", 1)[0]
    if len(line) > MAX_TARGET_LENGTH:
        return problem(
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"more than {MAX_TARGET_LENGTH} bytes of request line",
            code="request-too-large",
        )
    match = _REQUEST_LINE.match(line)
    if match is None:
        return problem(HTTPStatus.BAD_REQUEST, "not an HTTP/1.1 request", code="bad-request")
    method, target = match.group(1).decode("ascii"), match.group(2).decode("ascii")
    accepts = b",".join(_ACCEPT.findall(head)).decode("latin-1")
    return method, target.split("?", 1)[0], accepts


async def _discard(reader: asyncio.StreamReader) -> None:
    """Take what a refused client is still sending: closing on unread bytes would reset away the answer."""
    for _ in range(MAX_DISCARDED_CHUNKS):
        if not await reader.read(MAX_REQUEST_BYTES):
            return


def _encode(response: Response, *, with_body: bool) -> bytes:
    status = response.status
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head + response.body if with_body else head
