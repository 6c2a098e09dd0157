"""A TCP proxy that delays, throttles, swallows and cuts, per direction and switchable while connections are open.

It runs on a thread of its own, so a test whose event loop is busy or blocked does not slow the traffic down.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, Literal, Self, TypeVar

import msgspec

Direction = Literal["up", "down"]
T = TypeVar("T")

_CHUNK: Final = 64 * 1024
_CALL_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 5.0


class Traffic(msgspec.Struct, frozen=True):
    """What happens to the bytes of one direction.

    Attributes:
        delay: seconds that each chunk is late.
        bytes_per_second: bound of the direction on each connection; None for none.
        swallow: take bytes in and pass none on: the peer sees a connection on which nothing comes any more.
    """

    delay: float = 0.0
    bytes_per_second: float | None = None
    swallow: bool = False


FREE: Final = Traffic()
SWALLOWED: Final = Traffic(swallow=True)


class Connection:
    """One client's connection through the proxy.

    Attributes:
        marks: what `Watch` noted of it, for faults that are to hit some connections only.
    """

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.marks: set[str] = set()
        self._writers = (client, server)

    def cut(self) -> None:
        """Reset both ends."""
        for writer in self._writers:
            writer.transport.abort()


# Told of the bytes a client sends, before they are passed on; may mark the connection.
Watch = Callable[[Connection, bytes], None]
MakeWatch = Callable[[], Watch]
Choose = Callable[[Connection], bool]


class TcpProxy:
    """Forwards one local port to one server: `with TcpProxy(port) as proxy: connect(proxy.port)`.

    Every method may be called from any thread and has taken effect when it returns.
    """

    def __init__(self, target_port: int, *, port: int = 0, host: str = "127.0.0.1", watch: MakeWatch | None = None):
        """Args:
        target_port: of the server.
        port: to listen on; 0 picks a free one.
        host: of both.
        watch: makes, per connection, what is told of the bytes that the client sends.
        """
        self.port = port
        self._host = host
        self._target_port = target_port
        self._watch = watch
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{target_port}", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.Task[Any]] = {}
        self._traffic: dict[Direction, Traffic] = {"up": FREE, "down": FREE}
        self._hit: Choose = _everyone
        self._refusing = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._connections)

    def set(self, *, up: Traffic | None = None, down: Traffic | None = None, where: Choose | None = None) -> None:
        """Let the directions behave so from now on, on open connections too; None leaves one as it is.

        Args:
            up: from client to server.
            down: from server to client.
            where: connections that are hit; the others are left alone. Default: all.
        """
        self._call(self._set({"up": up, "down": down}, where or _everyone))

    def delay(self, seconds: float) -> None:
        """Make both directions late by so much."""
        self.set(up=Traffic(delay=seconds), down=Traffic(delay=seconds))

    def blackhole(self, direction: Direction | None = None, where: Choose | None = None) -> None:
        """Pass nothing on, in one direction or both, while connections stay open."""
        self.set(
            up=SWALLOWED if direction != "down" else None, down=SWALLOWED if direction != "up" else None, where=where
        )

    def cut(self, where: Choose | None = None, *, refuse: bool = True) -> None:
        """Reset connections; with `refuse`, and without `where`, no new ones are accepted until `restore`."""
        self._call(self._cut(where or _everyone, refuse=refuse and where is None))

    def restore(self) -> None:
        """Forward everything again. What was swallowed stays lost, so connections that lost bytes are reset."""
        self._call(self._restore())

    # -- on the proxy's thread ------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, traffic: dict[Direction, Traffic | None], where: Choose) -> None:
        self._hit = where
        self._traffic.update({direction: one for direction, one in traffic.items() if one is not None})

    async def _cut(self, where: Choose, *, refuse: bool) -> None:
        self._refusing = refuse
        for connection in [one for one in self._connections if where(one)]:
            connection.cut()

    async def _restore(self) -> None:
        lossy = any(one.swallow for one in self._traffic.values())
        hit, self._hit, self._refusing = self._hit, _everyone, False
        self._traffic.update({"up": FREE, "down": FREE})
        if lossy:
            for connection in [one for one in self._connections if hit(one)]:
                connection.cut()

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                server_reader, server_writer = await asyncio.open_connection(self._host, self._target_port)
        except (OSError, TimeoutError):
            writer.transport.abort()  # the server is away, and the client sees just that
            return
        connection = Connection(writer, server_writer)
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        watch = self._watch() if self._watch is not None else None
        pumps = [
            asyncio.create_task(self._pump("up", connection, reader, server_writer, watch)),
            asyncio.create_task(self._pump("down", connection, server_reader, writer, None)),
        ]
        try:
            # One end that is gone ends the other.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.cut()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            del self._connections[connection]

    async def _pump(
        self,
        direction: Direction,
        connection: Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        watch: Watch | None,
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            if watch is not None:
                watch(connection, chunk)
            traffic = self._traffic[direction] if self._hit(connection) else FREE
            if traffic.delay:
                await asyncio.sleep(traffic.delay)
            if traffic.bytes_per_second:
                await asyncio.sleep(len(chunk) / traffic.bytes_per_second)
            if not traffic.swallow:
                writer.write(chunk)
                await writer.drain()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(_CALL_SECONDS)


def _everyone(_: Connection) -> bool:
    return True
