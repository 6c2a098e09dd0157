"""A database that exists while statements are analysed: made with the node's migrations, dropped afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from omnibase_infra.shared.core.errors import ContractError, DependencyUnavailableError, Problem

CONNECT_TIMEOUT_SECONDS = 10
MINIMUM_SERVER_VERSION = 160000


@contextmanager
def scratch_database(dsn: str, migrations: Sequence[tuple[str, Path]]) -> Iterator[psycopg.Connection]:
    """Give a connection to a new database in which the migrations have run.

    Args:
        dsn: of a server on which the user may create databases.
        migrations: (name for errors, file), in order.

    Raises:
        DependencyUnavailableError: the server cannot be reached, is too old, or refuses a new database.
        ContractError: a migration fails; located.
    """
    name = f"omnibase_generate_{secrets.token_hex(8)}"
    with _connect(dsn) as maintenance:
        _check_version(maintenance)
        try:
            maintenance.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'").format(
                    sql.Identifier(name)
                )
            )
        except psycopg.Error as error:
            raise DependencyUnavailableError(
                f"cannot create a database for analysing statements: {_first_line(error)}",
                dependency="postgres",
                hint="give a DSN whose user has CREATEDB, or none to use the local server",
            ) from error
        try:
            with _connect(dsn, name) as connection:
                for shown, path in migrations:
                    _migrate(connection, shown, path.read_text(encoding="utf-8"))
                yield connection
        finally:
            maintenance.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _connect(dsn: str, database: str | None = None) -> Iterator[psycopg.Connection]:
    try:
        connection = psycopg.connect(
            make_conninfo(dsn, dbname=database) if database else dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            application_name="omninode-generate",
            options="-c statement_timeout=30s",
        )
    except psycopg.Error as error:
        raise DependencyUnavailableError(
            f"cannot connect to PostgreSQL to analyse statements: {_first_line(error)}", dependency="postgres"
        ) from error
    try:
        yield connection
    finally:
        connection.close()


def _check_version(connection: psycopg.Connection) -> None:
    if (version := connection.info.server_version) < MINIMUM_SERVER_VERSION:
        raise DependencyUnavailableError(
            f"PostgreSQL {version // 10000} cannot explain statements with parameters",
            dependency="postgres",
            hint=f"analyse with PostgreSQL {MINIMUM_SERVER_VERSION // 10000} or later; workers run with older ones",
        )


def _migrate(connection: psycopg.Connection, shown: str, text: str) -> None:
    try:
        # One simple query: PostgreSQL runs its statements as one transaction.
        connection.execute(text.encode())
    except psycopg.Error as error:
        position = error.diag.statement_position
        line, column = line_and_column(text, int(position) - 1) if position else (1, 1)
        message = f"PostgreSQL refuses the migration: {error.diag.message_primary or _first_line(error)}"
        raise ContractError([Problem(shown, line, column, message)]) from error


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of a character offset."""
    line_start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - line_start + 1


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
