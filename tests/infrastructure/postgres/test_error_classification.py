from __future__ import annotations

import asyncio
import errno
import socket

import asyncpg
import pytest

from omnibase_infra.shared.core.errors import (
    BusinessError,
    DependencyUnavailableError,
    OmnibaseError,
    TransientError,
)
from omnibase_infra.shared.postgres.errors import classify, classify_connect

SECRET = "value-of-a-payload"


def postgres_error(sqlstate: str, **fields: str) -> asyncpg.PostgresError:
    """Build the error as the driver does from the server's message."""
    letters = {"constraint_name": "n", "table_name": "t", "column_name": "c", "message": "M", "detail": "D"}
    wire = {"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": f"something about {SECRET}"}
    wire |= {letters[name]: value for name, value in fields.items()}
    error = asyncpg.PostgresError.new(wire)
    assert isinstance(error, asyncpg.PostgresError)
    assert error.sqlstate == sqlstate
    return error


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("08006", DependencyUnavailableError),
        ("08003", DependencyUnavailableError),
        ("57P01", DependencyUnavailableError),
        ("57P02", DependencyUnavailableError),
        ("57P03", DependencyUnavailableError),
        ("53300", DependencyUnavailableError),
        ("53100", DependencyUnavailableError),
        ("28P01", DependencyUnavailableError),
        ("25006", DependencyUnavailableError),
        ("42P01", DependencyUnavailableError),
        ("42703", DependencyUnavailableError),
        ("3F000", DependencyUnavailableError),
        ("42883", DependencyUnavailableError),
        ("40001", TransientError),
        ("40P01", TransientError),
        ("55P03", TransientError),
        ("57014", TransientError),
        ("53200", TransientError),
        ("25P03", TransientError),
        ("26000", TransientError),
    ],
)
def test_a_condition_of_the_server_is_told_apart_by_its_sqlstate(sqlstate: str, expected: type[OmnibaseError]) -> None:
    classified = classify(postgres_error(sqlstate))
    assert type(classified) is expected
    assert sqlstate in str(classified)


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [
        ("23505", "constraint-violated"),
        ("23503", "constraint-violated"),
        ("23502", "constraint-violated"),
        ("23514", "constraint-violated"),
        ("23P01", "constraint-violated"),
        ("44000", "constraint-violated"),
        ("22001", "invalid-data"),
        ("22003", "invalid-data"),
        ("22P02", "invalid-data"),
        ("21000", "cardinality-violated"),
        ("54000", "limit-exceeded"),
        ("42501", "permission-denied"),
        ("P0001", "raised"),
        ("P0002", "not-found"),
        ("P0003", "too-many-rows"),
    ],
)
def test_a_refusal_is_a_business_error_with_a_code_to_act_on(sqlstate: str, code: str) -> None:
    classified = classify(postgres_error(sqlstate))
    assert isinstance(classified, BusinessError)
    assert classified.instance_code == code
    assert classified.dependency == "postgres"
    assert classified.details["sqlstate"] == sqlstate
    assert not classified.retryable


def test_a_constraint_violation_names_constraint_and_table_and_no_value() -> None:
    error = postgres_error(
        "23505",
        constraint_name="orders_pkey",
        table_name="orders",
        message=f'duplicate key value violates unique constraint "orders_pkey" {SECRET}',
        detail=f"Key (order_id)=({SECRET}) already exists.",
    )
    classified = classify(error)
    assert isinstance(classified, BusinessError)
    assert classified.details == {"constraint": "orders_pkey", "table": "orders", "sqlstate": "23505"}
    assert str(classified) == "PostgreSQL: unique violation, constraint orders_pkey of table orders"


@pytest.mark.parametrize("sqlstate", ["22P02", "22003", "23505", "23502", "21000", "40001", "57014", "53200", "54000"])
def test_values_in_the_servers_texts_do_not_get_through(sqlstate: str) -> None:
    classified = classify(postgres_error(sqlstate, detail=f"Failing row contains ({SECRET})."))
    assert SECRET not in str(classified)
    assert SECRET not in repr(classified)


def test_what_a_function_raises_is_passed_on() -> None:
    classified = classify(postgres_error("P0001", message="stock is too low"))
    assert str(classified) == "stock is too low"


def test_a_value_that_the_driver_cannot_encode_is_invalid_data() -> None:
    error = asyncpg.DataError(f"invalid input for query argument $1: '{SECRET}' (an integer is required)")
    classified = classify(error)
    assert isinstance(classified, BusinessError)
    assert classified.instance_code == "invalid-data"
    assert SECRET not in str(classified)


def test_a_missing_table_says_what_to_do() -> None:
    classified = classify(postgres_error("42P01", message='relation "orders.orders" does not exist'))
    assert isinstance(classified, DependencyUnavailableError)
    assert "omninode migrate" in str(classified)
    assert "orders.orders" in str(classified)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
        socket.gaierror(-2, "Name or service not known"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        asyncio.IncompleteReadError(b"", 4),
    ],
)
def test_network_errors_are_outages(error: Exception) -> None:
    assert isinstance(classify(error), DependencyUnavailableError)


def test_a_changed_schema_under_a_prepared_statement_is_transient() -> None:
    assert isinstance(classify(asyncpg.InvalidCachedStatementError("cached plan must not change")), TransientError)
    assert isinstance(classify(asyncpg.OutdatedSchemaCacheError("outdated")), TransientError)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a bug"),
        FileNotFoundError(errno.ENOENT, "a file of a custom processor"),
        asyncpg.InterfaceError("another operation is in progress"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        DependencyUnavailableError("ours already", dependency="vault"),
        BusinessError("ours already", code="not-found"),
    ],
)
def test_what_is_unknown_or_ours_stays_as_it_is(error: BaseException) -> None:
    assert classify(error) is error


@pytest.mark.parametrize("sqlstate", ["XX000", "42601", "25P02", "0A000"])
def test_conditions_that_point_at_a_bug_stay_unknown(sqlstate: str) -> None:
    error = postgres_error(sqlstate)
    assert classify(error) is error


def test_the_drivers_complaint_about_a_closed_connection_is_an_outage() -> None:
    error = asyncpg.InterfaceError("connection is closed")
    assert isinstance(classify(error, connection_lost=True), DependencyUnavailableError)


def test_errors_while_connecting_are_outages_with_a_hint() -> None:
    login = classify_connect(postgres_error("28P01", message=f"password authentication failed for user {SECRET}"))
    assert isinstance(login, DependencyUnavailableError)
    assert "OMNIBASE_POSTGRES_DSN" in str(login)
    assert SECRET not in str(login)
    missing = classify_connect(postgres_error("3D000"))
    assert isinstance(missing, DependencyUnavailableError)
    assert "does not exist" in str(missing)
    socket_file = classify_connect(FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert isinstance(socket_file, DependencyUnavailableError)
