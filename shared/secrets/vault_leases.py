"""Keeps what comes from the Vault server: each secret by a task of its own, and our log-in there by another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.core.secret_references import SecretReference
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.resilience.process_wide import process_resilience
from omnibase_infra.shared.resilience.retry_policy import RETRY_PRESETS, RetryOptions, retrying
from omnibase_infra.shared.secrets import resolution
from omnibase_infra.shared.secrets.renewal_schedule import is_running_out, refresh_delay, renewal_delay, retry_delay
from omnibase_infra.shared.vault.errors import DEPENDENCY, VaultRefusedError
from omnibase_infra.shared.vault.vault_client import Lease, VaultClient, VaultSecret

if TYPE_CHECKING:
    from omnibase_infra.shared.secrets.rotating_secrets import RotatingSecrets

T = TypeVar("T")

# The process has not begun: whoever started it starts it again, so this need not wait for long.
_AT_START: Final = msgspec.structs.replace(RETRY_PRESETS["vault"], attempts=3)


class VaultLeases:
    """The secrets of one process that lie in the Vault server.

    A lease is renewed after about two thirds of its time; one that nears its longest time is replaced by reading the
    secret anew, and then left to end by itself, so that what was begun with it can be finished. What has no lease is
    read again on an interval. Leases end with the token they were got by: after a new log-in they are read anew, too.
    """

    def __init__(self, owner: RotatingSecrets, wanted: Mapping[str, SecretReference]) -> None:
        self._owner = owner
        self._wanted = wanted
        self._vault: VaultClient = resolution.open_vault(owner.settings, wanted)
        self._secrets: dict[str, VaultSecret] = {}
        self._leases: dict[str, Lease] = {}
        self._read_anew: dict[str, asyncio.Event] = {}
        self._token: Lease | None = None
        self._token_anew = asyncio.Event()
        self._log_ins = 0

    async def open(self) -> dict[str, str]:
        """Read everything and return the values by field.

        Raises:
            SettingsError: as of `read_vault`.
            DependencyUnavailableError: likewise.
        """
        try:
            self._secrets = await self._ask_again(lambda vault: resolution.read_vault(vault, self._wanted))
            self._token = await self._ask_again(lambda vault: vault.token_lease())
        except BaseException:
            self._vault.close()
            raise
        self._log_ins = self._vault.log_ins
        self._read_anew = {path: asyncio.Event() for path in self._secrets}
        for path, secret in self._secrets.items():
            self._note_lease(path, secret.lease)
        return resolution.values_of(self._wanted, self._secrets)

    async def _ask_again(self, call: Callable[[VaultClient], T]) -> T:
        """Ask, some more times while the server is away: one that changes its leader is back within a second."""
        process = process_resilience()
        options = RetryOptions(budget=process.budget(DEPENDENCY), metrics=process.retry_metrics(DEPENDENCY))
        return await retrying(lambda: self._ask(call), _AT_START, dependency=DEPENDENCY, options=options)

    def tasks(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Yield what has to run until the process ends, with names."""
        for path in self._secrets:
            yield f"secret {path}", self._keep(path)
        yield "vault token", self._keep_token()

    async def log_in_anew(self) -> None:
        """Use the token or the AppRole that the settings hold now."""
        old, self._vault = self._vault, resolution.open_vault(self._owner.settings, self._wanted)
        old.close()
        self._log_ins = self._vault.log_ins
        self._token_anew.set()
        self._wake_all()

    async def close(self, timeout_seconds: float) -> None:
        """Give leases back, within a bound, and close the connections."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._owner.in_thread(partial(self._vault.give_back, list(self._leases.values())))
        except (OmnibaseError, TimeoutError) as error:
            text = error.message if isinstance(error, OmnibaseError) else "the server did not answer in time"
            get_logger().warning(LogEvent.SECRETS_NOT_GIVEN_BACK, error=text, leases=len(self._leases))
        finally:
            self._vault.close()

    async def _keep(self, path: str) -> None:
        clock = asyncio.get_running_loop().time
        names = [name for name, reference in self._wanted.items() if reference.path == path]
        lease = self._secrets[path].lease
        first, since, failures = lease, clock(), 0
        while True:
            left = lease.seconds - (clock() - since) if lease else None
            await _wait(self._read_anew[path], self._delay(lease, failures, left))
            try:
                renewed = None if self._read_anew[path].is_set() else await self._renew(lease, first)
                if renewed is not None:
                    lease = renewed
                    self._owner.status.renewed(names, "renewed", lease.seconds)
                else:
                    self._read_anew[path].clear()
                    lease = first = await self._read(path, names)
            except OmnibaseError as error:
                failures += 1
                left = lease.seconds - (clock() - since) if lease else None
                self._owner.status.renewal_failed(names, error, left)
            else:
                since, failures = clock(), 0
                self._note_lease(path, lease)
                self._look_at_log_ins(path)

    def _delay(self, lease: Lease | None, failures: int, left: float | None) -> float:
        chance = self._owner.chance()
        if failures:
            return retry_delay(failures, left, chance)
        if lease is None:
            return refresh_delay(self._owner.settings.secrets_refresh_seconds, chance)
        return renewal_delay(lease.seconds, chance)

    async def _renew(self, lease: Lease | None, first: Lease | None) -> Lease | None:
        """Return the renewed lease, None when the secret has to be read anew."""
        if lease is None or first is None or not lease.renewable:
            return None
        try:
            renewed = await self._ask(lambda vault: vault.renew(lease))
        except VaultRefusedError:
            return None  # it has ended or may not be renewed; if reading is refused, too, that is told
        return None if is_running_out(renewed.seconds, first.seconds) else renewed

    async def _read(self, path: str, names: list[str]) -> Lease | None:
        wanted = {name: self._wanted[name] for name in names}
        secrets = await self._ask(lambda vault: resolution.read_vault(vault, wanted))
        changed = await self._owner.take(resolution.values_of(wanted, secrets))
        lease = secrets[path].lease
        self._owner.status.renewed(names, "replaced" if changed else "renewed", lease.seconds if lease else None)
        return lease

    async def _keep_token(self) -> None:
        clock = asyncio.get_running_loop().time
        names = ["vault_secret_id"] if self._owner.settings.vault_role_id else ["vault_token"]
        lease, first, since, failures = self._token, self._token, clock(), 0
        while True:
            left = lease.seconds - (clock() - since) if lease else None
            await _wait(self._token_anew, None if lease is None else self._delay(lease, failures, left))
            try:
                if self._token_anew.is_set():
                    self._token_anew.clear()
                    lease = first = await self._ask(lambda vault: vault.token_lease())
                elif first is not None:
                    lease = await self._renew_token(first)
            except OmnibaseError as error:
                failures += 1
                left = lease.seconds - (clock() - since) if lease else None
                self._owner.status.renewal_failed(names, error, left)
            else:
                since, failures = clock(), 0
                self._owner.status.renewed(names, "renewed", lease.seconds if lease else None)
                self._look_at_log_ins(None)

    async def _renew_token(self, first: Lease) -> Lease:
        lease = await self._ask(lambda vault: vault.renew_token())
        if is_running_out(lease.seconds, first.seconds) and self._owner.settings.vault_role_id:
            return await self._ask(lambda vault: vault.log_in())
        return lease

    def _look_at_log_ins(self, just_read: str | None) -> None:
        """Have everything read anew that was got by a token before this one."""
        if self._vault.log_ins != self._log_ins:
            self._log_ins = self._vault.log_ins
            self._wake_all(just_read)

    def _wake_all(self, but: str | None = None) -> None:
        for path, event in self._read_anew.items():
            if path != but and path in self._leases:
                event.set()

    def _note_lease(self, path: str, lease: Lease | None) -> None:
        if lease is None:
            self._leases.pop(path, None)
            return
        self._leases[path] = lease
        for name, reference in self._wanted.items():
            if reference.path == path:
                self._owner.status.lasts(name, lease.seconds)

    async def _ask(self, call: Callable[[VaultClient], T]) -> T:
        vault = self._vault
        return await self._owner.in_thread(lambda: call(vault))


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
