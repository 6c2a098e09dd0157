"""The address of a PostgreSQL server with its parts replaced: libpq's form, so that every client understands it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit, urlunsplit


def with_login(dsn: str, user: str | None, password: str | None) -> str:
    """Return the address with another user or password; None keeps what it has. A malformed one comes back as it is."""
    if user is None and password is None:
        return dsn
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return dsn  # who connects says better what is wrong with it
    login, _, place = parts.netloc.rpartition("@")
    old_user, _, old_password = login.partition(":")
    new_user = old_user if user is None else quote(user, safe="")
    new_password = old_password if password is None else quote(password, safe="")
    return urlunsplit(parts._replace(netloc=f"{new_user}:{new_password}@{place}"))


def with_parameters(dsn: str, parameters: Mapping[str, str]) -> str:
    """Return the address with query parameters set, in place of those it has by these names."""
    if not parameters:
        return dsn
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return dsn
    kept = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] not in parameters]
    return urlunsplit(parts._replace(query="&".join([*kept, urlencode(parameters, quote_via=quote)])))
