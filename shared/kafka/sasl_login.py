"""The user and password of a process's Kafka clients, which may change while they run.

A client proves them anew with each connection, and where brokers ask for it again. One that was given another password
keeps the connections it has, so a change loses nothing: what is refused meanwhile waits and is tried again.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.security import security_config

# The settings that a login consists of.
LOGIN_SETTINGS: Final = ("kafka_sasl_username", "kafka_sasl_password")


class _Client(Protocol):
    def set_sasl_credentials(self, username: str, password: str) -> None: ...


class SaslLogin:
    """Holds the login of the settings; `renew` replaces it for all clients that were made with this object.

    Safe to use from any thread. Clients look here by themselves, on the threads that serve them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._login = _login_of(settings)

    @property
    def settings(self) -> Settings:
        """Return the settings with the login of now, for clients that are made now."""
        return self._settings

    @property
    def login(self) -> tuple[str, str] | None:
        """Return user and password, both secret enough; None where the settings have no such login."""
        return self._login

    def properties(self) -> dict[str, Any]:
        """Return the librdkafka properties of a client that is made now, as they differ from the first ones."""
        return {} if self._login is None else {"sasl.username": self._login[0], "sasl.password": self._login[1]}

    async def renew(self, settings: Settings) -> None:
        """Take the login of these settings, for clients as they look here; what `RotatingSecrets.on_change` calls.

        Everything else in the settings stays as it was: authorities and client certificates are read once per client,
        so that a change of those needs a restart.

        Raises:
            SettingsError: they do not fit together.
        """
        renewed = _login_of(settings)
        if renewed is None or renewed == self._login:
            return
        update = {name: getattr(settings, name) for name in LOGIN_SETTINGS}
        self._settings = self._settings.model_copy(update=update)
        self._login = renewed


class LoginFollower:
    """Gives one client the login of now. Called from one thread, the one that serves the client."""

    def __init__(self, login: SaslLogin | None) -> None:
        self._login = login
        self._given = login.login if login is not None else None

    def apply(self, client: _Client) -> None:
        """Hand the client another login, if there is one."""
        if self._login is None or (now := self._login.login) is self._given or now is None:
            return
        client.set_sasl_credentials(*now)
        self._given = now


def _login_of(settings: Settings) -> tuple[str, str] | None:
    config = security_config(settings)
    if "sasl.password" not in config:
        return None
    return config["sasl.username"], config["sasl.password"]
