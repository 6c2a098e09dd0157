"""A login that changes reaches the clients that were made with it, once each, and everything else stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.kafka.consumer_factory import create_consumer
from omnibase_infra.shared.kafka.sasl_login import LoginFollower, SaslLogin
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog

NOWHERE = "127.0.0.1:1"


def settings(password: str = "first", user: str = "worker", **values: Any) -> Settings:
    given = {
        "env": "test",
        "kafka_bootstrap_servers": NOWHERE,
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": user,
        "kafka_sasl_password": password,
    }
    return load_settings(Path("no-such-file"), **(given | values))


class Client:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.logins: list[tuple[str, str]] = []

    def set_sasl_credentials(self, username: str, password: str) -> None:
        self.logins.append((username, password))


async def test_a_client_is_given_another_login_once() -> None:
    login, client = SaslLogin(settings()), Client()
    follower = LoginFollower(login)
    follower.apply(client)
    assert client.logins == []

    await login.renew(settings("second", "newcomer"))
    follower.apply(client)
    follower.apply(client)
    assert client.logins == [("newcomer", "second")]
    assert login.properties() == {"sasl.username": "newcomer", "sasl.password": "second"}


async def test_the_same_login_again_is_no_change() -> None:
    login, client = SaslLogin(settings()), Client()
    follower = LoginFollower(login)
    await login.renew(settings())
    follower.apply(client)
    assert client.logins == []


async def test_only_the_login_is_taken_over() -> None:
    login = SaslLogin(settings())
    await login.renew(settings("second", kafka_bootstrap_servers="elsewhere:9092"))
    assert login.settings.kafka_bootstrap_servers == NOWHERE
    assert login.settings.kafka_sasl_password is not None
    assert login.settings.kafka_sasl_password.get_secret_value() == "second"


async def test_settings_that_do_not_fit_together_leave_the_login_as_it_is() -> None:
    login = SaslLogin(settings())
    with pytest.raises(SettingsError, match="OMNIBASE_KAFKA_SASL_PASSWORD is not set"):
        await login.renew(settings(""))
    assert login.login == ("worker", "first")


async def test_without_a_password_there_is_nothing_to_follow() -> None:
    plain = load_settings(Path("no-such-file"), env="test", kafka_bootstrap_servers=NOWHERE)
    login, client = SaslLogin(plain), Client()
    LoginFollower(login).apply(client)
    LoginFollower(None).apply(client)
    assert (login.login, login.properties(), client.logins) == (None, {}, [])


async def test_a_consumer_takes_the_login_at_its_next_poll_also_after_it_reported_errors() -> None:
    login, log = SaslLogin(settings()), RecordedLog()
    consumer = create_consumer(
        login.settings, group="readers", purpose="answers", client_id="reader", log=log, login=login
    )
    given: list[tuple[str, str]] = []
    consumer.set_sasl_credentials = lambda *one: given.append(one)  # type: ignore[method-assign]
    try:
        consumer.poll(0.2)
        await login.renew(settings("second"))
        consumer.consume(1, 0.2)
        consumer.poll(0)
    finally:
        consumer.close()
    assert given == [("worker", "second")]
