"""The secrets of a running process: resolved at the start, kept fresh by tasks of their own until `close`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.core.settings import Settings, secret_references, secret_value, variable
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.secrets import resolution
from omnibase_infra.shared.secrets.secret_files import file_stamp
from omnibase_infra.shared.secrets.secret_status import SecretStatus

if TYPE_CHECKING:
    from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
    from omnibase_infra.shared.secrets.vault_leases import VaultLeases

T = TypeVar("T")
# May be a coroutine function or a plain one that does not block.
Taken = Callable[[Settings], object]

_TAKE_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 5.0


class RotatingSecrets:
    """Holds the settings with their secrets, and tells who asked to know when one has another value.

    Methods are the event loop's; servers and files are asked in one thread of its own. Without references it does
    nothing at all.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        worker: str,
        registry: MetricsRegistry,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Args:
        settings: as `load_settings` returns them, with references.
        worker: label of the metrics.
        registry: takes them.
        chance: spreads renewals of many processes; in [0, 1).
        """
        self.references = secret_references(settings)
        self.status = SecretStatus(worker, registry, self.references)
        self.chance = chance
        self._settings = settings
        self._watchers: list[tuple[frozenset[str], Taken]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="secrets")
        self._leases: VaultLeases | None = None

    @property
    def settings(self) -> Settings:
        """Return the settings with the secrets that are valid now."""
        return self._settings

    async def open(self) -> Settings:
        """Resolve everything, start to keep it fresh, and return the settings with the secrets.

        Raises:
            SettingsError: names every setting and reference that cannot be resolved, and why; never a value.
            DependencyUnavailableError: the Vault server cannot be reached now.
        """
        files = resolution.of_scheme(self.references, "file")
        wanted = resolution.of_scheme(self.references, "vault")
        if files:
            stamps = {name: file_stamp(reference.path) for name, reference in files.items()}
            values = await self.in_thread(partial(resolution.read_files, files))
            self._settings = resolution.with_secrets(self._settings, values)
            self._keep(self._watch_files(stamps), "secret-files")
        if wanted:
            from omnibase_infra.shared.secrets.vault_leases import VaultLeases

            self._leases = VaultLeases(self, wanted)
            self._settings = resolution.with_secrets(self._settings, await self._leases.open())
            for name, task in self._leases.tasks():
                self._keep(task, name)
        if self.references:
            get_logger().info(LogEvent.SECRETS_RESOLVED, settings=[variable(name) for name in self.references])
        return self._settings

    def on_change(self, names: Iterable[str], taken: Taken) -> None:
        """Call `taken` with the new settings when one of these fields has another value.

        One call at a time, at most 10 s each; a raise is logged and counted, and the others are called all the same.
        """
        self._watchers.append((frozenset(names), taken))

    async def close(self) -> None:
        """Stop looking after them and give leases back. Repeatable; bounded by a few seconds."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        leases, self._leases = self._leases, None
        if leases is not None:
            await leases.close(_CLOSE_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run what blocks; such calls come one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def take(self, values: dict[str, str]) -> bool:
        """Put new values in place, tell who wants to know, and return whether any differs from what was there."""
        changed = {name: value for name, value in values.items() if secret_value(self._settings, name) != value}
        if not changed:
            return False
        self._settings = resolution.with_secrets(self._settings, changed)
        get_logger().info(LogEvent.SECRET_CHANGED, settings=[variable(name) for name in changed])
        for names, taken in self._watchers:
            if not names.isdisjoint(changed):
                await self._tell(taken, changed)
        return True

    async def _tell(self, taken: Taken, changed: Iterable[str]) -> None:
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                if isawaitable(done := taken(self._settings)):
                    await done
        except Exception as error:  # noqa: BLE001 - of whoever uses the secret; the others must learn of it
            for name in changed:
                self.status.failed(name)
            get_logger().error(
                LogEvent.SECRET_CHANGE_NOT_TAKEN,
                settings=[variable(name) for name in changed],
                error=error.message if isinstance(error, OmnibaseError) else type(error).__name__,
            )

    async def _watch_files(self, stamps: dict[str, Any]) -> None:
        """Look at the files for ever. One that cannot be read is told of once, and keeps the value it had."""
        while True:
            await asyncio.sleep(self._settings.secrets_file_check_seconds)
            for name in list(stamps):
                reference = self.references[name]
                stamp = await self.in_thread(partial(file_stamp, reference.path))
                if stamp == stamps[name]:
                    continue
                stamps[name] = stamp
                try:
                    values = await self.in_thread(partial(resolution.read_files, {name: reference}))
                except OmnibaseError as error:
                    self.status.renewal_failed([name], error)
                    continue
                await self._take_file(name, values)

    async def _take_file(self, name: str, values: dict[str, str]) -> None:
        self.status.renewed([name], "replaced" if await self.take(values) else "renewed")
        if name in resolution.VAULT_LOGIN and self._leases is not None:
            await self._leases.log_in_anew()

    def _keep(self, task: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(task, name=name))
        self._tasks[-1].add_done_callback(partial(_tell_of_end, since=time.monotonic()))


def _tell_of_end(task: asyncio.Task[None], since: float) -> None:
    """Let no fault of ours end the renewal unseen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        get_logger().error(
            LogEvent.SECRET_RENEWAL_FAILED,
            task=task.get_name(),
            seconds=round(time.monotonic() - since, 3),
            error=f"{type(error).__name__}: its task has ended, restart the process",
        )
