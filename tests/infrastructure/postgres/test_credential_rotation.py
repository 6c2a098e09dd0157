"""Credentials that change while the pool works: nobody loses a request, and nothing stays on the old login."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from omnibase_infra.shared.core.errors import DependencyBusyError, DependencyError, DependencyUnavailableError
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.credentials import Credentials, RotatingCredentials
from omnibase_infra.shared.postgres.transactions import transaction
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

PASSWORDS = ("the first, a secret", "the second, a secret", "the third, a secret")
LOOK_SECONDS = 0.1


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


class Logins:
    """Roles that the test makes and changes, and the place where the pool reads which one is valid."""

    def __init__(self, admin: asyncpg.Connection, database: PostgresDatabase) -> None:
        self.admin = admin
        self.database = database
        self.valid = Credentials(None, None)
        self.reads = 0
        self.source = RotatingCredentials(self._read, "the file /secrets/login")
        self._roles: list[str] = []

    async def _read(self) -> Credentials:
        self.reads += 1
        return self.valid

    async def add(self, password: str) -> str:
        role = f"rotating_{uuid4().hex[:12]}"
        await self.admin.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE pg_read_all_data, pg_write_all_data"
        )
        self._roles.append(role)
        return role

    async def set_password(self, role: str, password: str) -> None:
        await self.admin.execute(f"ALTER ROLE {role} PASSWORD '{password}'")

    async def sessions(self, role: str) -> int:
        return int(
            await self.admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND datname = $2", role, self.database.name
            )
        )

    async def end_sessions(self, role: str) -> None:
        await self.admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)

    async def remove(self) -> None:
        for role in self._roles:
            await self.end_sessions(role)
            await self.admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture
async def logins(postgres_test_db: PostgresDatabase) -> AsyncIterator[Logins]:
    admin = await postgres_test_db.connect()
    await admin.execute("CREATE TABLE done (number int PRIMARY KEY, login name NOT NULL DEFAULT session_user)")
    made = Logins(admin, postgres_test_db)
    try:
        yield made
    finally:
        await made.remove()
        await admin.close()


@asynccontextmanager
async def pool_of(logins: Logins, **options: object) -> AsyncIterator[PostgresConnectionPool]:
    values = {"minimum": 0, "maximum": 8, "credentials_interval": LOOK_SECONDS} | options
    # Whatever the address says of user and password must not matter.
    dsn = re.sub(r"//.*@", "//nobody:nothing@", logins.database.dsn)
    async with PostgresConnectionPool(
        dsn,
        PoolOptions(**values),  # type: ignore[arg-type]
        credentials=logins.source,
    ) as pool:
        yield pool


class Requests:
    """Inserts that are repeated as the runtime repeats records: after what is transient, and never after a refusal."""

    def __init__(self, pool: PostgresConnectionPool) -> None:
        self._pool = pool
        self.errors: list[DependencyError] = []

    async def run(self, number: int) -> None:
        while not await self._attempt(number):
            await asyncio.sleep(0.02)

    async def _attempt(self, number: int) -> bool:
        try:
            async with self._pool.acquire() as connection:
                # A session that is ended under it is no matter of logins.
                with contextlib.suppress(DependencyUnavailableError):
                    async with transaction(connection):
                        await connection.execute(
                            "INSERT INTO done (number) VALUES ($1) ON CONFLICT (number) DO NOTHING", number
                        )
                        await connection.execute("SELECT pg_sleep(0.002)")
                    return True
        except DependencyError as error:
            self.errors.append(error)
        return False

    async def run_all(self, count: int, at_once: int = 12) -> None:
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await self.run(number)

        await asyncio.gather(*(work() for _ in range(at_once)))


async def test_another_login_under_load_loses_nothing_and_the_old_one_is_left(logins: Logins) -> None:
    first, second = await logins.add(PASSWORDS[0]), await logins.add(PASSWORDS[1])
    logins.valid = Credentials(first, PASSWORDS[0])
    with capture_logs() as logs:
        async with pool_of(logins) as pool:
            requests = Requests(pool)
            load = asyncio.create_task(requests.run_all(2_000))
            await eventually(lambda: _at_least(logins, 300))
            logins.valid = Credentials(second, PASSWORDS[1])
            await eventually(lambda: _nobody(logins, first))
            # As a secret store does once it has waited for long enough.
            await logins.admin.execute(f"ALTER ROLE {first} NOLOGIN")
            await load
            assert requests.errors == []
            assert await logins.admin.fetchval("SELECT count(*) FROM done") == 2_000
            assert await logins.admin.fetchval("SELECT count(DISTINCT login) FROM done") == 2
            assert await logins.sessions(second) > 0
    assert [line["source"] for line in logs if line["event"] == "pool_credentials_changed"] == [
        "the file /secrets/login"
    ]
    assert not any(password in str(logs) for password in PASSWORDS)


async def test_a_password_changed_in_place_again_and_again_with_sessions_ended_loses_nothing(logins: Logins) -> None:
    """The worst a store can do: the server changes first, the source a moment later, and every session is ended."""
    role, chance = await logins.add(PASSWORDS[0]), random.Random(5)
    logins.valid = Credentials(role, PASSWORDS[0])
    async with pool_of(logins) as pool:
        requests = Requests(pool)
        load = asyncio.create_task(requests.run_all(2_000))
        await eventually(lambda: _at_least(logins, 100))
        for change in range(1, 9):
            password = PASSWORDS[change % 3]
            await logins.set_password(role, password)
            await logins.end_sessions(role)
            await asyncio.sleep(chance.random() * LOOK_SECONDS)
            logins.valid = Credentials(role, password)
            await asyncio.sleep(LOOK_SECONDS)
        await load
        assert await logins.admin.fetchval("SELECT count(*) FROM done") == 2_000
        # The source was never behind for longer than the grace, so nobody was told of an outage.
        assert {type(error) for error in requests.errors} <= {DependencyBusyError}
        assert pool.state().in_use == 0


async def test_a_refusal_finds_credentials_that_have_changed_meanwhile_without_an_error(logins: Logins) -> None:
    role = await logins.add(PASSWORDS[0])
    logins.valid = Credentials(role, PASSWORDS[0])
    async with pool_of(logins, credentials_interval=60.0) as pool:
        async with pool.acquire():
            pass
        await logins.set_password(role, PASSWORDS[1])
        answers = iter((Credentials(role, PASSWORDS[0]), Credentials(role, PASSWORDS[1])))

        async def late() -> Credentials:
            return next(answers)

        logins.source._read = late
        async with pool.acquire(), contextlib.AsyncExitStack() as stack:
            connection = await stack.enter_async_context(pool.acquire())
            assert await connection.fetchval("SELECT session_user") == role


async def test_a_login_that_stays_refused_is_transient_for_a_moment_and_then_named_once(logins: Logins) -> None:
    role = await logins.add(PASSWORDS[0])
    logins.valid = Credentials(role, PASSWORDS[0])
    with capture_logs() as logs:
        async with pool_of(logins) as pool, pool.acquire() as held:
            await logins.set_password(role, PASSWORDS[1])
            with pytest.raises(DependencyBusyError, match="let us in before"):
                async with pool.acquire():
                    pass
            await asyncio.sleep(2 * LOOK_SECONDS)
            for _ in range(3):
                with pytest.raises(DependencyUnavailableError, match="refused the login") as caught:
                    async with pool.acquire():
                        pass
            assert "the file /secrets/login" in caught.value.hint
            assert role in caught.value.message
            # What is open goes on working.
            assert await held.fetchval("SELECT 1") == 1
            logins.valid = Credentials(role, PASSWORDS[1])
            async with pool.acquire() as connection:
                assert await connection.fetchval("SELECT 1") == 1
    assert len([line for line in logs if line["event"] == "pool_login_refused"]) == 1
    assert not any(password in f"{logs} {caught.value!r}" for password in PASSWORDS)


async def test_a_source_that_cannot_be_read_is_an_outage_by_name(logins: Logins) -> None:
    async def gone() -> Credentials:
        raise FileNotFoundError(2, "No such file or directory", "/secrets/login")

    logins.source._read = gone
    async with pool_of(logins) as pool:
        with pytest.raises(DependencyUnavailableError, match="cannot be read from the file /secrets/login"):
            async with pool.acquire():
                pass


async def test_sessions_that_nobody_uses_leave_the_old_login_too(logins: Logins) -> None:
    first, second = await logins.add(PASSWORDS[0]), await logins.add(PASSWORDS[1])
    logins.valid = Credentials(first, PASSWORDS[0])
    async with pool_of(logins) as pool:
        async with pool.acquire(), pool.acquire(), pool.acquire():
            assert await logins.sessions(first) == 3
        logins.valid = Credentials(second, PASSWORDS[1])
        await eventually(lambda: _nobody(logins, first))


async def _nobody(logins: Logins, role: str) -> bool:
    return await logins.sessions(role) == 0


async def _at_least(logins: Logins, count: int) -> bool:
    return int(await logins.admin.fetchval("SELECT count(*) FROM done")) >= count
