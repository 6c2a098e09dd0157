"""What a PostgreSQL error stands for in our error tree, by SQLSTATE and class, never by its text.

Messages name conditions, constraints and tables and hold no values: DETAIL is left out, and so are the texts of
data exceptions, which quote what was sent.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Final, NoReturn

import asyncpg

from omnibase_infra.shared.core.errors import (
    BusinessError,
    DependencyUnavailableError,
    OmnibaseError,
    SettingsError,
    TransientError,
)
from omnibase_infra.shared.core.redaction import sanitised
from omnibase_infra.shared.postgres.tls import TlsProblem, file_problem, handshake_problem

DEPENDENCY: Final = "postgres"
DSN_FORM: Final = "postgresql://user:password@host:port/database?sslmode=…; percent-encode special characters"
MIGRATE_HINT: Final = "run `omninode migrate`"

# The tables or columns a statement was written for are missing: a release is rolling out, no record is to blame.
_SCHEMA_STATES: Final = frozenset({"42P01", "42703", "3F000", "42883", "42704", "42P10"})
# Down, starting, full, read-only after a fail-over, or not letting us in.
_UNAVAILABLE_STATES: Final = frozenset({"53100", "53300", "25006", "3D000"})
_UNAVAILABLE_CLASSES: Final = frozenset({"08", "28", "57", "58"})
# Deadlocks, serialisation, locks, memory; 26 and 42P05 are prepared statements a connection pooler has lost.
_TRANSIENT_STATES: Final = frozenset({"55P03", "57014", "25P03", "25P04", "42P05"})
_TRANSIENT_CLASSES: Final = frozenset({"40", "53", "26"})
_BUSINESS_CODES: Final = {
    "42501": "permission-denied",
    "P0001": "raised",
    "P0002": "not-found",
    "P0003": "too-many-rows",
}
_BUSINESS_CLASSES: Final = {
    "21": "cardinality-violated",
    "22": "invalid-data",
    "23": "constraint-violated",
    "44": "constraint-violated",
    "54": "limit-exceeded",
}
_NETWORK_ERRNOS: Final = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT, errno.EPIPE}
)
_WORDS: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


def classify(error: BaseException, *, connection_lost: bool = False) -> BaseException:
    """Return the error of our tree that a driver's error stands for; `error` itself when it is unknown or ours.

    Args:
        error: what was raised.
        connection_lost: the connection it was raised on is closed, so that the driver's complaints about its state
            are the outage's and not a mistake of ours.
    """
    if isinstance(error, OmnibaseError) or not isinstance(error, Exception):
        return error
    if isinstance(error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError):
        return TransientError("the schema changed under a prepared statement", dependency=DEPENDENCY)
    if isinstance(error, asyncpg.PostgresError):
        return _classify_state(error)
    if _is_network_error(error):
        return DependencyUnavailableError(f"PostgreSQL does not answer: {_reason(error)}", dependency=DEPENDENCY)
    if connection_lost and isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return DependencyUnavailableError("the connection to PostgreSQL was lost", dependency=DEPENDENCY)
    return error


def raise_classified(error: BaseException, *, connection_lost: bool = False) -> NoReturn:
    """Raise what `classify` says; call it while handling `error`."""
    classified = classify(error, connection_lost=connection_lost)
    if classified is error:
        raise error
    # The driver's own text quotes values when it is about data.
    raise classified from (None if isinstance(classified, BusinessError) else error)


def classify_connect(error: Exception, dsn: str = "") -> BaseException:
    """Return what an error met while connecting stands for: nearly all of them mean "not available".

    Args:
        error: what was raised.
        dsn: the address, so that TLS failures can name the file or host that is wrong; never shown.
    """
    if isinstance(error, OmnibaseError):
        return error
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return DependencyUnavailableError(
            f"PostgreSQL refused the login ({error.sqlstate})",
            dependency=DEPENDENCY,
            hint="check user, password and database of OMNIBASE_POSTGRES_DSN",
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return DependencyUnavailableError(
            "the database of OMNIBASE_POSTGRES_DSN does not exist", dependency=DEPENDENCY, hint="create it"
        )
    if (found := _tls_or_address(error, dsn)) is not None:
        return found
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return DependencyUnavailableError(f"PostgreSQL cannot be reached: {_reason(error)}", dependency=DEPENDENCY)
    return classify(error)


def _tls_or_address(error: Exception, dsn: str) -> OmnibaseError | None:
    malformed = isinstance(error, asyncpg.ClientConfigurationError | ValueError)
    if isinstance(error, ssl.SSLCertVerificationError):  # a ValueError, too
        return _tls_failure(handshake_problem(error, dsn))
    if (malformed or isinstance(error, OSError)) and (problem := file_problem(dsn)) is not None:
        return SettingsError(problem.message, hint=problem.hint)
    if isinstance(error, ssl.SSLError):
        return _tls_failure(handshake_problem(error, dsn))
    return SettingsError("OMNIBASE_POSTGRES_DSN is malformed", hint=f"expected {DSN_FORM}") if malformed else None


def _tls_failure(problem: TlsProblem) -> DependencyUnavailableError:
    return DependencyUnavailableError(problem.message, dependency=DEPENDENCY, hint=problem.hint)


def is_schema_error(error: BaseException) -> bool:
    """Return whether a statement does not fit the live schema."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in _SCHEMA_STATES


def business_error(error: asyncpg.PostgresError, code: str, details: Mapping[str, str] | None = None) -> BusinessError:
    """Return a refusal that names SQLSTATE, constraint, table and column, and whatever else `details` holds."""
    facts = {
        "constraint": error.constraint_name,
        "table": error.table_name,
        "column": error.column_name,
        "sqlstate": error.sqlstate,
    }
    known = {name: str(value) for name, value in facts.items() if value}
    return BusinessError(_refusal(error), code=code, details=known | dict(details or {}), dependency=DEPENDENCY)


def condition(error: asyncpg.PostgresError) -> str:
    """Return the condition's name in words, for example `numeric value out of range`."""
    return _WORDS.sub(" ", type(error).__name__.removesuffix("Error")).lower()


def _classify_state(error: asyncpg.PostgresError) -> BaseException:
    state = error.sqlstate or ""
    group = state[:2]
    if state in _SCHEMA_STATES:
        return DependencyUnavailableError(
            f"a statement does not fit the database's schema: {sanitised(error.message or condition(error))} ({state})",
            dependency=DEPENDENCY,
            hint=MIGRATE_HINT,
        )
    if state in _TRANSIENT_STATES:
        return TransientError(f"PostgreSQL: {condition(error)} ({state})", dependency=DEPENDENCY)
    if state in _UNAVAILABLE_STATES or group in _UNAVAILABLE_CLASSES:
        return DependencyUnavailableError(f"PostgreSQL: {condition(error)} ({state})", dependency=DEPENDENCY)
    if group in _TRANSIENT_CLASSES:
        return TransientError(f"PostgreSQL: {condition(error)} ({state})", dependency=DEPENDENCY)
    code = _BUSINESS_CODES.get(state) or _BUSINESS_CLASSES.get(group)
    return error if code is None else business_error(error, code)


def _refusal(error: asyncpg.PostgresError) -> str:
    # These two texts are written by people or hold names only; all others may quote values.
    if error.sqlstate in ("P0001", "42501"):
        return sanitised(error.message or condition(error))
    place = " of ".join(
        f"{kind} {name}"
        for kind, name in (
            ("constraint", error.constraint_name),
            ("column", error.column_name),
            ("table", error.table_name),
        )
        if name
    )
    return f"PostgreSQL: {condition(error)}" + (f", {place}" if place else "")


def _is_network_error(error: Exception) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror | ssl.SSLError | asyncio.IncompleteReadError):
        return True
    return isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "time-out"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return sanitised(str(error)) or type(error).__name__
