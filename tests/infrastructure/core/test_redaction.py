"""Secrets stay out of what people read, and texts stay fit for headers and log lines."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.redaction import (
    MASK,
    is_secret_key,
    redact_mapping,
    redact_text,
    sanitised,
    without_variable_parts,
)


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "postgres_dsn",
        "kafka_sasl_password",
        "AWS_SECRET_ACCESS_KEY",
        "clientSecret",
        "accessToken",
        "apiKey",
        "X-Api-Key",
        "Authorization",
        "Set-Cookie",
        "passphrase",
        "tls.private_key",
        "credentials",
    ],
)
def test_values_under_secret_names_are_not_shown(name: str) -> None:
    assert is_secret_key(name)
    assert redact_mapping({name: "hunter2"}) == {name: MASK}


@pytest.mark.parametrize("name", ["", "primary_key", "monkey", "topic", "partition_key", "tokenizer", "secretary"])
def test_ordinary_names_are_shown(name: str) -> None:
    assert not is_secret_key(name)


def test_mappings_are_masked_at_every_depth_and_the_original_is_left_alone() -> None:
    values = {
        "user": "ada",
        "nested": {"token": "hunter2", 7: ["postgresql://u:hunter2@h/d", ("password=hunter2",)]},
        "count": 3,
    }

    shown = redact_mapping(values)

    assert "hunter2" not in str(shown)
    assert shown["user"] == "ada"
    assert shown["count"] == 3
    assert "hunter2" in str(values)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ada:hunter2@host:5432/db",
        "postgresql://ada:hunter2@with@ats@host:5432/db",
        "postgresql://ada:hunter2/slash@host:5432/db",
        "amqp://hunter2@host",
        "could not open HTTPS://ADA:hunter2@HOST/path: refused",
        "password=hunter2",
        "password = hunter2 host=db",
        "password=hunter2,more;of)it host=db",
        "Password: hunter2",
        "password='hunter2 with spaces' host=db",
        'password="hunter2 with \\" quote" host=db',
        '{"password": "hunter2"}',
        '{"password":"hunter2","user":"ada"}',
        '{"clientSecret": "hunter2"}',
        "{'token': 'hunter2 and more'}",
        "{'token': b'hunter2'}",
        '"{\\"password\\": \\"hunter2\\"}"',
        "sasl.password=hunter2",
        "--token=hunter2",
        "Key (api_key)=(hunter2) already exists.",
        "Authorization: Bearer hunter2hunter2",
        "authorization: Basic hunter2==",
        "curl -H 'x: Bearer hunter2hunter2'",
        "token hvs.hunter2hunter2 was refused",
        "got eyJhunter2hunter2.eyJodW50ZXIy.hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nhunter2",
    ],
)
def test_secrets_in_texts_are_masked(text: str) -> None:
    shown = redact_text(text)

    assert "hunter2" not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "relation orders does not exist",
        "http://host:8200/v1/path?mail=ada@example.org",
        "connection to postgresql://host:5432/db failed",
        "password authentication failed for user ada",
        "topic dev.onex.cmd.a.requests.v1 is missing",
        "expected 6 partitions: found 3",
    ],
)
def test_ordinary_texts_are_left_as_they_are(text: str) -> None:
    assert redact_text(text) == text


def test_the_rest_of_a_text_with_a_secret_stays_readable() -> None:
    assert redact_text("postgresql://ada:x@host:5432/db refused") == "postgresql://***@host:5432/db refused"
    assert redact_text("user=ada password=x host=db") == "user=ada password=*** host=db"


@pytest.mark.parametrize(
    "text",
    [
        "a." * 250_000,
        "a-" * 250_000 + "://",
        "password" * 60_000,
        "://" * 160_000,
        "password: " * 50_000,
        "'" * 500_001,
    ],
    ids=["dots", "scheme", "names", "slashes", "pairs", "quotes"],
)
def test_long_texts_are_searched_in_linear_time(text: str) -> None:
    started = time.process_time()
    redact_text(text)
    without_variable_parts(text)
    assert time.process_time() - started < 3.0


@given(st.text(max_size=800), st.integers(1, 600))
def test_a_sanitised_text_is_one_line_that_fits_and_can_be_encoded(text: str, limit: int) -> None:
    line = sanitised(text, limit)

    assert len(line) <= limit
    assert line.encode("utf-8").decode() == line
    assert line.splitlines() in ([], [line])
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line)


def test_names_of_files_that_are_not_utf_8_can_be_reported() -> None:
    assert sanitised(b"no such file: caf\xe9".decode("utf-8", "surrogateescape")) == "no such file: caf?"


def test_a_secret_near_the_cut_does_not_show() -> None:
    for padding in range(480, 520):
        assert "hunter2" not in sanitised("x" * padding + " postgresql://ada:hunter2@host/db")


def test_equal_failures_read_equal_without_their_variable_parts() -> None:
    first = "row 17 of 'orders' with id 01a20c6d-d7ba-7b12-9d22-29ae43c4e609 at 0xdeadbeef"
    second = "row 4711 of 'customers' with id 01a20c6d-aaaa-7b12-9d22-29ae43c4e609 at 0xfeedface"

    assert without_variable_parts(first) == without_variable_parts(second)
    assert without_variable_parts(first) != without_variable_parts("row 17 is locked")
