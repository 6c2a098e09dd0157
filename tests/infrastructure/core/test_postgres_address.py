from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from omnibase_infra.shared.core.postgres_address import with_login, with_parameters
from omnibase_infra.shared.core.settings import load_settings, require_postgres

DSN = "postgresql://user:old@db.example:5432/orders?application_name=x&sslmode=prefer"


def test_user_and_password_are_put_in_place_of_those_it_has() -> None:
    assert with_login(DSN, None, None) == DSN
    changed = urlsplit(with_login(DSN, None, "a/b@c:d é"))
    assert (changed.username, unquote(changed.password or "")) == ("user", "a/b@c:d é")
    assert (changed.hostname, changed.port, changed.path) == ("db.example", 5432, "/orders")
    assert with_login("postgresql://db/orders", "u", "p") == "postgresql://u:p@db/orders"


def test_parameters_win_over_those_it_has_and_the_others_stay() -> None:
    assert with_parameters(DSN, {}) == DSN
    query = urlsplit(with_parameters(DSN, {"sslmode": "verify-full", "sslrootcert": "/a b/ca+1.pem"})).query
    assert " " not in query
    assert "+" not in query  # libpq takes it for itself
    assert parse_qs(query) == {
        "application_name": ["x"],
        "sslmode": ["verify-full"],
        "sslrootcert": ["/a b/ca+1.pem"],
    }


@pytest.mark.parametrize("dsn", ["postgresql://u:p@[::1/db", "nonsense"])
def test_a_malformed_address_is_left_to_who_connects(dsn: str) -> None:
    with_login(dsn, "u", "p")
    with_parameters(dsn, {"sslmode": "require"})


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, "prefer"),
        ({"postgres_ssl_ca_location": "/ca.pem"}, "verify-full"),
        ({"postgres_ssl_ca_location": "/ca.pem", "postgres_ssl_mode": "verify-ca"}, "verify-ca"),
        ({"postgres_ssl_mode": "require"}, "require"),
    ],
)
def test_a_ca_means_that_the_server_has_to_prove_who_it_is(tmp_path: Path, given: dict[str, str], mode: str) -> None:
    settings = load_settings(tmp_path / "no-file", env="test", postgres_dsn=DSN, postgres_password="new", **given)
    parts = urlsplit(require_postgres(settings))
    assert parse_qs(parts.query)["sslmode"] == [mode]
    assert parts.password == "new"
    assert "new" not in repr(settings)
