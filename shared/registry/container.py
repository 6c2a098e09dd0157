"""ONEXContainer: the services of one process, made on first use and closed in reverse order. A thin face on svcs."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from omnibase_infra.shared.core.errors import ConfigurationError

T = TypeVar("T")


@contextmanager
def _without_web_integrations() -> Iterator[None]:
    """Let svcs believe that no web framework is installed.

    Importing svcs imports every framework it finds; with aiohttp around (Faust brings it) that is 200 ms of a
    worker's start for nothing. The names are free again afterwards, so `import svcs.aiohttp` keeps working.
    """
    names = [f"svcs.{name}" for name in ("aiohttp", "fastapi", "flask", "starlette")]
    blocked = [name for name in names if name not in sys.modules]
    modules = cast("dict[str, Any]", sys.modules)
    modules.update(dict.fromkeys(blocked))
    try:
        yield
    finally:
        for name in blocked:
            modules.pop(name, None)


with _without_web_integrations():
    import svcs


class ServiceMissingError(ConfigurationError):
    """Something asked the container for a service that nobody registered."""

    code = "service-missing"


class ServiceCloseError(ConfigurationError):
    """Closing services failed; all of them were closed or tried. `errors` holds what was raised, in order."""

    code = "service-close-failed"

    def __init__(self, errors: list[tuple[str, BaseException]]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"closing {name} failed: {error!r}" for name, error in errors))


class _Held:
    """A service as svcs keeps it. Bare, svcs would refuse one that is an async context manager, as pools are."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class ONEXContainer:
    """The services of one process, by type.

    Used from one event loop. `async with` closes it; what was made or handed over last is closed first.

        async with ONEXContainer() as container:
            container.register_value(PostgresConnectionPool, pool, close=pool.close)
            node = load_node("postgres_adapter", container)
    """

    def __init__(self) -> None:
        self._registry = svcs.Registry()
        self._services = svcs.Container(self._registry)
        self._closers: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._closed = False

    def register_value(self, service: type[T], value: T, *, close: Callable[[], Awaitable[None]] | None = None) -> None:
        """Give the container a service that exists; `close` is awaited when the container closes.

        Raises:
            ConfigurationError: a service of that type is registered already, or the container is closed.
        """
        self._check_new(service)
        self._registry.register_value(service, _Held(value), enter=False)
        if close is not None:
            self._closers.append((service.__name__, close))

    def register_factory(
        self,
        service: type[T],
        factory: Callable[[ONEXContainer], T],
        *,
        close: Callable[[T], Awaitable[None]] | None = None,
    ) -> None:
        """Tell the container how to make a service. It is made once, on first use; `close` only if it was made.

        Raises:
            ConfigurationError: a service of that type is registered already, or the container is closed.
        """
        self._check_new(service)

        def make() -> _Held:
            value = factory(self)
            if close is not None:
                self._closers.append((service.__name__, lambda: close(value)))
            return _Held(value)

        self._registry.register_factory(service, make, enter=False)

    def _check_new(self, service: type[Any]) -> None:
        self._check_open(service)
        if service in self._registry:
            raise ConfigurationError(
                f"the service {service.__name__} is registered twice",
                hint="register it once, before the node is built",
            )

    def _check_open(self, service: type[Any]) -> None:
        if self._closed:
            raise ConfigurationError(f"the container is closed, {service.__name__} came too late")

    def __contains__(self, service: type[Any]) -> bool:
        return service in self._registry

    def get(self, service: type[T], *, needed_by: str = "") -> T:
        """Return the service of that type, made now if nobody has asked for it yet.

        Args:
            service: the type it is registered under.
            needed_by: who asks, for the error message.

        Raises:
            ServiceMissingError: nobody registered it; says who needs it and what there is.
            ConfigurationError: the container is closed.
        """
        self._check_open(service)
        if service not in self._registry:
            asker = f"{needed_by} needs the service" if needed_by else "there is no service"
            names = sorted(registered.svc_type.__name__ for registered in self._registry)
            raise ServiceMissingError(
                f"{asker} {service.__name__}, and nobody registered it (registered: {', '.join(names) or 'none'})",
                hint=f"call container.register_value({service.__name__}, …) before the node is built",
            )
        return cast("T", cast("_Held", self._services.get(service)).value)

    async def aclose(self) -> None:
        """Close the services in reverse order, every one even if others fail. Twice is once.

        Raises:
            ServiceCloseError: some could not be closed.
        """
        if self._closed:
            return
        self._closed = True
        errors: list[tuple[str, BaseException]] = []
        while self._closers:
            name, close = self._closers.pop()
            try:
                await close()
            except Exception as error:  # noqa: BLE001 - the others must be closed, all are reported below
                errors.append((name, error))
        await self._services.aclose()
        await self._registry.aclose()
        if errors:
            raise ServiceCloseError(errors) from errors[0][1]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
