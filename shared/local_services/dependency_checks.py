"""Real questions to servers, ours and others': does it answer a client that logs in?"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

CHECK_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        problem: why the server does not answer, without secrets; empty when it does.
        version: of the server, empty when it does not tell.
    """

    problem: str = ""
    version: str = ""


def check_postgres(dsn: str) -> CheckResult:
    """Log in and ask for the version."""
    import asyncpg

    async def ask() -> str:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            connection = await asyncpg.connect(dsn, timeout=CHECK_TIMEOUT_SECONDS)
            try:
                return str(await connection.fetchval("SHOW server_version"))
            finally:
                await connection.close(timeout=CHECK_TIMEOUT_SECONDS)

    try:
        return CheckResult(version=_run(ask()).split()[0])
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # A malformed address comes back in the error's text, with its password.
        malformed = isinstance(error, (ValueError, asyncpg.InterfaceError))
        text = "the address is malformed" if malformed else str(error)
        return CheckResult(problem=f"{type(error).__name__}: {text}" if text else type(error).__name__)


def check_kafka(configuration: dict[str, Any]) -> CheckResult:
    """Ask for the brokers with a client of that configuration (librdkafka's names)."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        admin = AdminClient({**configuration, "log_level": 0})
        admin.list_topics(timeout=CHECK_TIMEOUT_SECONDS)
    except KafkaException as error:
        return CheckResult(problem=str(error.args[0].str()) if error.args else "no answer")
    return CheckResult()


def check_vault(address: str) -> CheckResult:
    """Ask a Vault or OpenBao server for its health: it must be initialised and unsealed."""
    # These answer codes are standby nodes that do answer clients.
    content = _get(f"{address.rstrip('/')}/v1/sys/health?standbyok=true&perfstandbyok=true")
    if isinstance(content, CheckResult):
        return content
    return CheckResult(version=str(content.get("version", "")) if isinstance(content, dict) else "")


def check_consul(address: str) -> CheckResult:
    """Ask a Consul agent whether its servers have a leader."""
    base = address if "://" in address else f"http://{address}"
    content = _get(f"{base.rstrip('/')}/v1/status/leader")
    if isinstance(content, CheckResult):
        return content
    return CheckResult(problem="" if content else "its servers have no leader")


def _get(url: str) -> Any:
    """Return the JSON that was answered, or the problem there was."""
    try:
        with urllib.request.urlopen(url, timeout=CHECK_TIMEOUT_SECONDS) as response:  # noqa: S310 - configured
            return json.loads(response.read(65536))
    except urllib.error.HTTPError as error:
        with error:
            return CheckResult(problem=f"HTTP {error.code}")
    except (OSError, ValueError) as error:
        return CheckResult(problem=f"{type(error).__name__}: {error}")


def _run(coroutine: Coroutine[Any, Any, str]) -> str:
    # In a thread of its own: the caller may be inside an event loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
