"""Effects on a server that knows no transactions happen once, whenever the process that makes them is killed."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

SCRIPT = Path(__file__).with_name("journaled_process.py")
COMMANDS = 150
KILLS = 8


class Server:
    """Puts keys, slowly and at random moments between request and reply; counts how often each was put."""

    def __init__(self, seed: int) -> None:
        self.puts: Counter[str] = Counter()
        self._random = random.Random(seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            word, key = (await reader.readline()).decode().split()
            await asyncio.sleep(self._random.uniform(0.0, 0.02))
            if word == "PUT":
                self.puts[key] += 1
            await asyncio.sleep(self._random.uniform(0.0, 0.02))
            writer.write(b"OK\n" if word == "PUT" else b"THERE\n" if self.puts[key] else b"MISSING\n")
        except (ValueError, ConnectionError):
            return  # the process that asked is gone
        finally:
            writer.close()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[int]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def _start(dsn: str, port: int, looks: bool) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), dsn, str(port), str(COMMANDS), "looks" if looks else "blind"
    )


async def _answers(database: PostgresDatabase) -> Counter[str]:
    connection = await database.connect()
    try:
        rows = await connection.fetch("SELECT value FROM omnibase.outbox")
        left = await connection.fetchval("SELECT count(*) FROM omnibase.effect_intent")
    finally:
        await connection.close()
    assert left == 0
    data = [msgspec.json.decode(row["value"])["data"] for row in rows]
    return Counter(one.get("code", "completed") for one in data)


@pytest.mark.slow
@pytest.mark.demanding
@pytest.mark.parametrize("looks", [True, False], ids=["that can look", "that cannot look"])
async def test_effects_of_processes_that_are_killed_again_and_again(
    postgres_test_db: PostgresDatabase, looks: bool
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments, server = random.Random(seed), Server(seed)
    async with serving(server) as port:
        for _ in range(KILLS):
            process = await _start(postgres_test_db.dsn, port, looks)
            before = server.puts.total()
            async with asyncio.timeout(30):
                while server.puts.total() == before and process.returncode is None:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(moments.uniform(0.0, 0.15))
            if process.returncode is None:
                process.kill()
            await process.wait()
        process = await _start(postgres_test_db.dsn, port, looks)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    answers = await _answers(postgres_test_db)
    assert answers.total() == COMMANDS
    assert max(server.puts.values()) == 1
    if looks:
        assert answers == {"completed": COMMANDS}
        assert server.puts.total() == COMMANDS
    else:
        assert set(answers) <= {"completed", "outcome-unknown"}
        # Each completed one was put, and of the others nobody can say: that is what the answer says.
        assert answers["completed"] <= server.puts.total() <= COMMANDS
