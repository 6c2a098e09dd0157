"""A client of an OpenBao or Vault server: log-in, reading secrets of any engine, leases. Synchronous, as hvac is.

Calls block up to the time-out, come from any thread, one at a time each; asyncio code makes them in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import hvac
import msgspec
import requests
from hvac import exceptions as hvac_errors

from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.settings import Settings, secret_value
from omnibase_infra.shared.observability.http_spans import traced_session
from omnibase_infra.shared.vault.errors import (
    DEPENDENCY,
    VaultLeaseEndedError,
    VaultRefusedError,
    VaultSecretMissingError,
)

T = TypeVar("T")

_UNAVAILABLE: Final = (
    hvac_errors.VaultDown,
    hvac_errors.VaultNotInitialized,
    hvac_errors.InternalServerError,
    hvac_errors.BadGateway,
    hvac_errors.RateLimitExceeded,
    requests.RequestException,
)
_REASONS: Final = {
    hvac_errors.VaultDown: "it is sealed, or under maintenance",
    hvac_errors.VaultNotInitialized: "it is not initialised",
    hvac_errors.RateLimitExceeded: "it is asked too often",
    requests.exceptions.SSLError: "its certificate cannot be verified",
    requests.exceptions.ConnectTimeout: "it does not answer",
    requests.exceptions.ReadTimeout: "it does not answer",
    requests.exceptions.ConnectionError: "it cannot be reached",
}


class VaultOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a server and who we are there: a token, or an AppRole.

    Attributes:
        address: https://host:port.
        token / role_id / secret_id: secrets.
        approle_mount: where the AppRole method is mounted.
        namespace: of everything that is asked; None for the root.
        ca_location: CA bundle of the server; None for the system's.
        timeout_seconds: longest wait for a connection, and for an answer.
    """

    address: str
    token: str | None = None
    role_id: str | None = None
    secret_id: str | None = None
    approle_mount: str = "approle"
    namespace: str | None = None
    ca_location: Path | None = None
    timeout_seconds: float = 5.0

    def __repr__(self) -> str:
        return f"<VaultOptions {self.address} {'token' if self.token else 'AppRole'}>"

    @classmethod
    def from_settings(cls, settings: Settings) -> VaultOptions:
        """Return the options that the process settings ask for.

        Raises:
            SettingsError: they do not fit together; lists everything that is wrong.
        """
        values = {name: secret_value(settings, f"vault_{name}") for name in ("token", "role_id", "secret_id")}
        if problems := list(_problems(settings, values)):
            raise SettingsError("the settings of the Vault server do not fit together:\n  " + "\n  ".join(problems))
        return cls(
            address=settings.vault_addr or "",
            approle_mount=settings.vault_approle_mount,
            namespace=settings.vault_namespace,
            ca_location=settings.vault_ca_location,
            timeout_seconds=settings.vault_timeout_seconds,
            **values,
        )


class Lease(msgspec.Struct, frozen=True):
    """How long something from the server is good for. An empty id is the token's own lease."""

    id: str
    seconds: float
    renewable: bool


class VaultSecret(msgspec.Struct, frozen=True):
    """The values of one secret, by key, and the lease they come with, if any."""

    values: Mapping[str, str]
    lease: Lease | None = None

    def __repr__(self) -> str:
        return f"<VaultSecret of {len(self.values)} values, lease {self.lease}>"


class VaultClient:
    """A logged-in client. A log-in by AppRole is done again when its token has ended."""

    def __init__(self, options: VaultOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._mounts: dict[str, bool] = {}
        self._logged_in = options.token is not None
        self._log_ins = 0
        self._client = hvac.Client(
            url=options.address,
            # Not None: hvac would look for a token in the environment and in the home folder.
            token=options.token or "",
            verify=str(options.ca_location) if options.ca_location else True,
            timeout=(options.timeout_seconds, options.timeout_seconds),
            namespace=options.namespace,
            allow_redirects=False,
        )
        traced_session(self._client.session)

    def __repr__(self) -> str:
        return f"<VaultClient {self._options.address}>"

    @property
    def address(self) -> str:
        """Return the server's address."""
        return self._options.address

    @property
    def log_ins(self) -> int:
        """Return how often it has logged in. Leases end with the token they were asked for by."""
        return self._log_ins

    def read(self, path: str) -> VaultSecret:
        """Return the newest values of a secret: of a key-value engine, version 1 or 2, or of one that makes them anew.

        Args:
            path: mount first, as `vault kv get` and `vault read` take it: `secret/team/pg`, `database/creds/app`.

        Raises:
            SettingsError: address or token are malformed.
            VaultSecretMissingError: there is none.
            VaultRefusedError: our token may not read it.
            DependencyUnavailableError: the server cannot be reached, is sealed, or failed.
        """
        mount, versioned = self._mount_of(path)
        inside = path[len(mount) :]
        answer = self._ask(lambda: self._get(f"{mount}data/{inside}" if versioned else path))
        data = answer["data"].get("data") if versioned else answer["data"]
        if not data:
            raise VaultSecretMissingError("its newest version is deleted")
        lease = Lease(answer["lease_id"], answer["lease_duration"], answer["renewable"])
        values = {str(key): value if isinstance(value, str) else _as_text(value) for key, value in data.items()}
        return VaultSecret(values, lease if lease.id else None)

    def renew(self, lease: Lease) -> Lease:
        """Ask for the lease's first length again and return what was granted, which may be less.

        Raises:
            VaultLeaseEndedError: there is nothing to renew any more.
            VaultRefusedError: our token may not.
            DependencyUnavailableError: as of `read`.
        """
        try:
            answer = self._ask(lambda: self._client.sys.renew_lease(lease.id))
        except VaultRefusedError as error:
            if isinstance(error.__cause__, hvac_errors.InvalidRequest | hvac_errors.InvalidPath):
                raise VaultLeaseEndedError(error.message) from error
            raise
        return Lease(answer["lease_id"], answer["lease_duration"], answer["renewable"])

    def token_lease(self) -> Lease | None:
        """Return how long our token lives, None for one without an end.

        Raises:
            VaultRefusedError: it has ended, or was never good.
            DependencyUnavailableError: as of `read`.
        """
        data = self._ask(self._client.auth.token.lookup_self)["data"]
        return Lease("", data["ttl"], data["renewable"]) if data["ttl"] else None

    def renew_token(self) -> Lease:
        """Renew our token; where that is not possible any more, log in again by the AppRole if there is one.

        Raises:
            VaultLeaseEndedError: it cannot be renewed, and a token is all we have.
            VaultRefusedError: the log-in was refused.
            DependencyUnavailableError: as of `read`.
        """
        try:
            auth = self._ask(self._client.auth.token.renew_self)["auth"]
        except VaultRefusedError as error:
            if not self._options.role_id:
                raise VaultLeaseEndedError(error.message) from error
            return self.log_in()
        return Lease("", auth["lease_duration"], auth["renewable"])

    def log_in(self) -> Lease:
        """Log in by the AppRole and return the lease of the token.

        Raises:
            VaultRefusedError: role id or secret id is wrong, used up, or has ended.
            DependencyUnavailableError: as of `read`.
        """
        with self._lock:
            answer = self._translated(
                lambda: self._client.auth.approle.login(
                    self._options.role_id, self._options.secret_id, mount_point=self._options.approle_mount
                )
            )
            self._logged_in = True
            self._log_ins += 1
        auth = answer["auth"]
        return Lease("", auth["lease_duration"], auth["renewable"])

    def give_back(self, leases: Iterable[Lease]) -> None:
        """End leases that are not needed any more, and the token too if it is of our own log-in.

        Raises:
            VaultRefusedError: our token may not.
            DependencyUnavailableError: as of `read`; they end by themselves in time.
        """
        for lease in leases:
            self._ask(partial(self._client.sys.revoke_lease, lease.id))
        if self._options.role_id and self._logged_in:
            self._ask(self._client.auth.token.revoke_self)
            self._logged_in = False

    def close(self) -> None:
        """Close the connections. Leases go on; the token does, too."""
        self._client.adapter.close()

    def _mount_of(self, path: str) -> tuple[str, bool]:
        """Return the mount that a path lies in, with its slash, and whether it keeps versions."""
        for mount, versioned in self._mounts.items():
            if path.startswith(mount):
                return mount, versioned
        answer = self._ask(lambda: self._get(f"sys/internal/ui/mounts/{path}"))["data"]
        mount = str(answer["path"])
        self._mounts[mount] = answer["type"] == "kv" and (answer.get("options") or {}).get("version") == "2"
        return mount, self._mounts[mount]

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._client.adapter.get(f"/v1/{quote(path)}")
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
            raise VaultSecretMissingError("the server answered without data")
        return answer

    def _ask(self, call: Callable[[], T]) -> T:
        if not self._logged_in:
            self.log_in()
        try:
            return self._translated(call)
        except VaultRefusedError as error:
            # The token of an AppRole may have ended or been revoked in between.
            if not self._options.role_id or not isinstance(error.__cause__, hvac_errors.Forbidden):
                raise
            self.log_in()
            return self._translated(call)

    def _translated(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL):
            raise SettingsError(
                "the Vault server cannot be asked: its address is malformed, or the token or namespace holds a line break"
            ) from None
        except hvac_errors.InvalidPath as error:
            raise VaultSecretMissingError(_said(error) or "there is no such secret") from error
        except _UNAVAILABLE as error:
            reason = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), "it failed")
            # Not from the error: the text of a connection's error may hold the address with what it was given.
            raise DependencyUnavailableError(
                f"the Vault server at {_shown(self.address)} is not available: {reason}", dependency=DEPENDENCY
            ) from None
        except hvac_errors.VaultError as error:
            raise VaultRefusedError(_said(error) or type(error).__name__) from error


def _said(error: hvac_errors.VaultError) -> str:
    return "; ".join(str(one).strip() for one in error.errors or [])


def _shown(address: str) -> str:
    """Return an address without credentials that somebody may have put there."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _as_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _problems(settings: Settings, values: Mapping[str, str | None]) -> list[str]:
    problems = []
    address = settings.vault_addr
    if not address:
        problems.append("OMNIBASE_VAULT_ADDR is not set")
    elif not address.startswith(("https://", "http://")):
        problems.append("OMNIBASE_VAULT_ADDR is not a URL that starts with https:// (or http://)")
    elif address.startswith("http://") and settings.env in ("staging", "prod"):
        problems.append(
            f"OMNIBASE_VAULT_ADDR is http://, over which {settings.env} must not send secrets: use https://"
        )
    if values["token"] and (values["role_id"] or values["secret_id"]):
        problems.append("OMNIBASE_VAULT_TOKEN has no effect beside an AppRole: unset one of them")
    elif not values["token"] and not (values["role_id"] and values["secret_id"]):
        problems.append("OMNIBASE_VAULT_TOKEN is not set, nor are OMNIBASE_VAULT_ROLE_ID and OMNIBASE_VAULT_SECRET_ID")
    path = settings.vault_ca_location
    if path is not None and not path.is_file():
        problems.append(f"OMNIBASE_VAULT_CA_LOCATION: {path} is no file that can be read")
    return problems
