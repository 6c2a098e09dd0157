"""Makes the connections of a pool: with the credentials of the moment, and with one clear error when it cannot.

A login that PostgreSQL refuses is tried again at once with credentials read anew, if they have changed meanwhile. If not,
the refusal is transient for two intervals of looking for new ones, when logins worked before: in a rotation the server's
password may be ahead of ours. After that it is an outage by name, as it is at once for a process that never got in.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg

from omnibase_infra.shared.core.errors import (
    DependencyBusyError,
    DependencyUnavailableError,
    OmnibaseError,
    SettingsError,
    error_code,
)
from omnibase_infra.shared.core.redaction import sanitised
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.postgres.credentials import Credentials, CredentialsSource
from omnibase_infra.shared.postgres.errors import DEPENDENCY, classify_connect
from omnibase_infra.shared.postgres.pool_options import PoolOptions, PoolSink, Retirement
from omnibase_infra.shared.postgres.pooled_connection import ConnectionHistory, MeteredConnection, set_json_codecs
from omnibase_infra.shared.postgres.query_metrics import QueryMetrics

_AGE_SPREAD: Final = 0.1


class Connector:
    """What `asyncpg` calls for each new connection of a pool.

    Attributes:
        generation: connections of an older one are to be retired, for the reason that `generation_began_for` says.
    """

    def __init__(
        self,
        dsn: str,
        options: PoolOptions,
        credentials: CredentialsSource,
        query_metrics: QueryMetrics,
        sink: PoolSink | None,
    ) -> None:
        self._dsn = dsn
        self._options = options
        self._credentials = credentials
        self._query_metrics = query_metrics
        self._sink = sink
        self._current: Credentials | None = None
        self._got_in = False
        self._refused_since: float | None = None
        self._refusal_logged = False
        self.generation = 0
        self.generation_began_for: Retirement = "credentials"

    async def connect(self, *_: Any, **driver: Any) -> asyncpg.Connection:
        """Make a connection, ready for use.

        Args:
            driver: what the driver's pool wants it to be made with.

        Raises:
            DependencyBusyError: the login was refused, and one worked not long ago.
            DependencyUnavailableError: PostgreSQL cannot be reached, let in nobody, or is not who it should be.
            SettingsError: the address, or a file it names, cannot be used; only before the first login.
        """
        try:
            connection = await self._log_in(driver)
        except Exception as error:
            classified = self._classified(error)
            if self._sink is not None:
                self._sink.connect_failed(error_code(classified))
            if classified is error:
                raise
            # The driver's text may quote parts of the address.
            raise classified from (None if isinstance(classified, SettingsError) else error)
        self._got_in = True
        self._settle()
        if self._sink is not None:
            self._sink.connected()
        return connection

    async def look_for_new_credentials(self) -> bool:
        """Read the credentials; return whether they are others than those in use, which starts a new generation.

        Raises:
            DependencyUnavailableError: they cannot be had now.
        """
        before = self._current
        self._adopt(await self._credentials.read())
        return before is not None and before != self._current

    def begin_generation(self, reason: Retirement) -> None:
        """Let every connection that is open now be replaced."""
        self.generation += 1
        self.generation_began_for = reason

    async def _log_in(self, driver: Mapping[str, Any]) -> asyncpg.Connection:
        credentials = await self._credentials.read()
        while True:
            self._adopt(credentials)
            try:
                return await self._open(credentials, driver)
            except asyncpg.InvalidAuthorizationSpecificationError as error:
                fresh = await self._credentials.read()
                if fresh == credentials:
                    raise self._refused(error) from error
                credentials = fresh

    async def _open(self, credentials: Credentials, driver: Mapping[str, Any]) -> asyncpg.Connection:
        options = self._options
        generation = self.generation
        connection = await asyncpg.connect(
            self._dsn,
            user=credentials.user,
            password=credentials.password,
            timeout=options.acquire_timeout,
            command_timeout=options.statement_timeout + options.response_margin,
            server_settings=options.server_settings(),
            **driver,
        )
        assert isinstance(connection, MeteredConnection)
        try:
            connection.query_metrics = self._query_metrics
            connection.history = ConnectionHistory(generation, self._too_old_at())
            await set_json_codecs(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _adopt(self, credentials: Credentials) -> None:
        if self._current is not None and credentials != self._current:
            self.begin_generation("credentials")
            # What is new deserves the benefit of the doubt again.
            self._settle()
            get_logger().info(LogEvent.POOL_CREDENTIALS_CHANGED, dependency=DEPENDENCY, source=self._credentials.name)
        self._current = credentials

    def _too_old_at(self) -> float:
        age = self._options.maximum_age
        if not age:
            return float("inf")
        # Connections opened together must not all go together.
        spread = random.uniform(1 - _AGE_SPREAD, 1)  # noqa: S311 - no secret
        return asyncio.get_running_loop().time() + age * spread

    def _refused(self, error: asyncpg.InvalidAuthorizationSpecificationError) -> OmnibaseError:
        now = asyncio.get_running_loop().time()
        if self._refused_since is None:
            self._refused_since = now
        parts = urlsplit(self._dsn)
        said = sanitised(error.message or "")
        message = (
            f"PostgreSQL at {parts.hostname} refused the login to {parts.path.strip('/')}: {said} ({error.sqlstate})"
        )
        source = self._credentials.name
        if self._got_in and now - self._refused_since < 2 * self._options.credentials_interval:
            return DependencyBusyError(
                message, dependency=DEPENDENCY, hint=f"it let us in before; the credentials of {source} are read again"
            )
        if isinstance(error, asyncpg.InvalidPasswordError):
            hint = f"correct user and password of {source}, or the role's password on the server"
        else:
            hint = f"check user, database and sslmode of {source} against the server's pg_hba.conf"
        refused = DependencyUnavailableError(message, dependency=DEPENDENCY, hint=hint)
        if not self._refusal_logged:
            self._refusal_logged = True
            get_logger().error(LogEvent.POOL_LOGIN_REFUSED, dependency=DEPENDENCY, error=str(refused))
        return refused

    def _classified(self, error: Exception) -> BaseException:
        classified = classify_connect(error, self._dsn)
        if self._got_in and isinstance(classified, SettingsError):
            # It worked before: files that are being replaced must not end the work.
            return DependencyUnavailableError(classified.message, dependency=DEPENDENCY, hint=classified.hint)
        return classified

    def _settle(self) -> None:
        self._refused_since, self._refusal_logged = None, False
