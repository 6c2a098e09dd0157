"""A server of somebody else, for tests: an HTTP server on this machine that answers, fails, hangs or is gone, as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

HOST: Final = "127.0.0.1"
_LARGEST_BODY: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class ReceivedRequest:
    """One request that arrived whole. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


@dataclass
class MockExternalService:
    """What the server does from now on, and what it was asked. Change it at any time from the test's event loop.

    Attributes:
        url: its address, `http://127.0.0.1:<port>`; stays the same while it is gone.
        requests: those that arrived, in order, whatever became of them.
    """

    url: str = ""
    requests: list[ReceivedRequest] = field(default_factory=list)
    _status: int = 200
    _body: bytes = b"{}"
    _hanging: bool = False
    _cutting: bool = False
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[Any]] = field(default_factory=set)
    _port: int = 0

    def answers(self, body: Any = None, *, status: int = 200) -> None:
        """Answer with JSON, `{}` by default, and this status."""
        self._status, self._body = status, json.dumps({} if body is None else body).encode()
        self._hanging = self._cutting = False

    def fails(self, status: int = 503) -> None:
        """Answer with an error."""
        self.answers({"error": HTTPStatus(status).phrase}, status=status)

    def hangs(self) -> None:
        """Take requests and never answer."""
        self._hanging, self._cutting = True, False

    def cuts(self) -> None:
        """Take requests and close the connection without an answer."""
        self._hanging, self._cutting = False, True

    async def is_gone(self) -> None:
        """Refuse connections, and close those that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    async def is_back(self) -> None:
        """Listen again, at the same address."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, HOST, self._port)
            self._port = self._server.sockets[0].getsockname()[1]
            self.url = f"http://{HOST}:{self._port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                if self._hanging:
                    await reader.read()  # until the client gives up
                    return
                if self._cutting:
                    return
                head = f"HTTP/1.1 {self._status} {HTTPStatus(self._status).phrase}\r\n"
                head += f"content-type: application/json\r\ncontent-length: {len(self._body)}\r\n\r\n"
                writer.write(head.encode() + self._body)
                await writer.drain()
        except (asyncio.CancelledError, ConnectionError):
            return
        finally:
            self._connections.discard(task)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> ReceivedRequest | None:
    """Return the next request of a connection, None at its end."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:]) if name
        }
        length = int(headers.get("content-length", "0"))
        if length > _LARGEST_BODY:
            return None
        body = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = lines[0].split(" ", 2)
    return ReceivedRequest(method, path, headers, body)


@asynccontextmanager
async def mock_external_service() -> AsyncIterator[MockExternalService]:
    """Run an HTTP server for the length of the block. It answers `{}` with 200 until told otherwise.

    async with mock_external_service() as carrier:
        carrier.hangs()
        ...
        assert carrier.requests[0].path == "/labels"
    """
    service = MockExternalService()
    await service.is_back()
    try:
        yield service
    finally:
        await service.is_gone()
