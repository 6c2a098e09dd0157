"""The proxy of the fault tests: forwards whole, and does what it is switched to, on connections that are open already."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from omnibase_infra.shared.testing.kafka_proxy import is_coordinator, mark_coordinators
from omnibase_infra.shared.testing.tcp_proxy import Connection, TcpProxy, Traffic

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[TcpProxy], Awaitable[Streams]]


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    """A server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects to a proxy; closed after the test."""
    opened: list[Streams] = []

    async def to(proxy: TcpProxy) -> Streams:
        opened.append(await asyncio.open_connection("127.0.0.1", proxy.port))
        return opened[-1]

    yield to
    for _, writer in opened:
        writer.transport.abort()
    await asyncio.sleep(0)


async def say(streams: Streams, text: bytes, seconds: float = 2.0) -> bytes:
    reader, writer = streams
    writer.write(text)
    async with asyncio.timeout(seconds):
        return await reader.readexactly(len(text))


async def is_cut(streams: Streams) -> bool:
    try:
        async with asyncio.timeout(2):
            return await streams[0].read(1) == b""
    except OSError:
        return True


async def test_it_forwards_both_ways_whole_and_ends_with_either_end(echo_port: int, connect: Connect) -> None:
    with TcpProxy(echo_port) as proxy:
        streams = await connect(proxy)
        content = os.urandom(3_000_000)
        writing = asyncio.create_task(drain(streams[1], content))
        assert await streams[0].readexactly(len(content)) == content
        await writing
        streams[1].close()
        async with asyncio.timeout(2):
            while proxy.connections:
                await asyncio.sleep(0.01)


async def drain(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(content)
    await writer.drain()


async def test_a_delay_and_a_bound_of_bandwidth_slow_open_connections_until_it_is_restored(
    echo_port: int, connect: Connect
) -> None:
    with TcpProxy(echo_port) as proxy:
        streams = await connect(proxy)
        assert await say(streams, b"quick", 0.5) == b"quick"
        proxy.delay(0.2)
        began = time.monotonic()
        assert await say(streams, b"late") == b"late"
        assert time.monotonic() - began >= 0.4
        proxy.set(up=Traffic(bytes_per_second=10_000), down=Traffic())
        began = time.monotonic()
        assert await say(streams, bytes(5_000)) == bytes(5_000)
        assert time.monotonic() - began >= 0.4
        proxy.restore()
        assert await say(streams, b"quick", 0.15) == b"quick"


async def test_a_blackhole_keeps_connections_open_and_silent_and_resets_them_when_it_ends(
    echo_port: int, connect: Connect
) -> None:
    with TcpProxy(echo_port) as proxy:
        streams = await connect(proxy)
        await say(streams, b"before")
        proxy.blackhole("down")
        with pytest.raises(TimeoutError):
            await say(streams, b"lost", 0.3)
        assert proxy.connections == 1
        proxy.restore()
        assert await is_cut(streams)
        assert await say(await connect(proxy), b"after") == b"after"


async def test_a_cut_resets_connections_and_refuses_new_ones_until_it_is_restored(
    echo_port: int, connect: Connect
) -> None:
    with TcpProxy(echo_port) as proxy:
        streams = await connect(proxy)
        await say(streams, b"before")
        proxy.cut()
        assert await is_cut(streams)
        assert await is_cut(await connect(proxy))
        proxy.restore()
        assert await say(await connect(proxy), b"after") == b"after"


async def test_only_the_connections_that_are_chosen_are_hit(echo_port: int, connect: Connect) -> None:
    with TcpProxy(echo_port, watch=mark_coordinators) as proxy:
        fetching, grouping = await connect(proxy), await connect(proxy)
        await say(fetching, kafka_request(1))
        await say(grouping, kafka_request(18) + kafka_request(12))
        proxy.blackhole(where=is_coordinator)
        assert await say(fetching, b"flows") == b"flows"
        with pytest.raises(TimeoutError):
            await say(grouping, b"silent", 0.3)
        proxy.cut(is_coordinator)
        assert await is_cut(grouping)
        assert await say(fetching, b"flows") == b"flows"


def test_a_group_request_is_recognised_however_its_bytes_arrive() -> None:
    others, join = kafka_request(1, 300) + kafka_request(3), kafka_request(11)
    for size in (1, 2, 3, 7, 1_000):
        watch, connection = mark_coordinators(), Connection.__new__(Connection)
        connection.marks = set()
        for start in range(0, len(others), size):
            watch(connection, others[start : start + size])
        assert not is_coordinator(connection)
        for start in range(0, len(join), size):
            watch(connection, join[start : start + size])
        assert is_coordinator(connection), size


def kafka_request(number: int, size: int = 20) -> bytes:
    """Return a request of that API key."""
    return struct.pack(">ih", size, number) + bytes(size - 2)


async def test_a_server_that_is_away_looks_so_through_it(connect: Connect) -> None:
    with TcpProxy(1) as proxy:
        assert await is_cut(await connect(proxy))
