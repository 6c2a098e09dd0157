"""ONEXContainer: the services of one process, with their life cycle. A thin face on svcs.

Services start after those they depend on and are closed in reverse order; a start that fails undoes what was started.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from omnibase_infra.shared.core.errors import ConfigurationError, OmnibaseError, ServiceStartError
from omnibase_infra.shared.registry.declared import DeclaredDependencies, DeclaredServices
from omnibase_infra.shared.registry.protocol_registry import ProtocolNotSpokenError, ProtocolRegistry
from omnibase_infra.shared.registry.service_registry import STOP_SECONDS, ServiceDefinition, ServiceRegistry

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


class _Closer(NamedTuple):
    """How something that was made or started is closed, and how long that may take."""

    name: str
    close: Callable[[], Awaitable[None]]
    seconds: float


class ONEXContainer:
    """The services of one process, by type.

    Used from one event loop. `async with` closes it; what was made, started or handed over last is closed first.

        async with ONEXContainer() as container:
            container.register_value(Settings, settings)
            container.register_service(ServiceDefinition(Pool, make_pool, start=Pool.open, stop=Pool.close))
            await container.start()
            node = load_node("postgres_adapter", container)
    """

    def __init__(self) -> None:
        self._registry = svcs.Registry()
        self._services = svcs.Container(self._registry)
        self._definitions = ServiceRegistry()
        self._protocols = ProtocolRegistry()
        self._closers: list[_Closer] = []
        self._closed = False

    def register_value(self, service: type[T], value: T, *, close: Callable[[], Awaitable[None]] | None = None) -> None:
        """Give the container a service that exists; `close` is awaited when the container closes, 10 s at most.

        Raises:
            ConfigurationError: a service of that type is registered already, or the container is closed.
        """
        self._check_new(service)
        self._registry.register_value(service, _Held(value), enter=False)
        if close is not None:
            self._closers.append(_Closer(service.__name__, close, STOP_SECONDS))

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
                self._closers.append(_Closer(service.__name__, lambda: close(value), STOP_SECONDS))
            return _Held(value)

        self._registry.register_factory(service, make, enter=False)

    def register_service(self, definition: ServiceDefinition[Any]) -> None:
        """Tell the container about a service with a life cycle; `start` makes and starts it.

        Raises:
            ConfigurationError: a service of that type is registered already, or the container is closed.
        """
        self._check_new(definition.service)
        self._definitions.add(definition)

    def bind_protocol(self, class_name: str, service: type[Any]) -> None:
        """Let a service stand for a protocol that contracts list, such as `ProtocolEventBus`.

        Raises:
            ProtocolNotSpokenError: the service lacks members of the protocol.
            ConfigurationError: there is no such protocol.
        """
        self._protocols.bind(class_name, service)

    async def start(self) -> None:
        """Make and start every service that was registered with a life cycle, each after those it depends on.

        Called once. When one fails, those that were started are stopped in reverse order before this raises.

        Raises:
            ServiceStartError: names the service; its cause is what that raised, or a TimeoutError.
            ServiceOrderError: there is no order; nothing was started.
        """
        order = self._definitions.start_order(self.services())
        before = len(self._closers)
        for definition in order:
            try:
                await self._start_one(definition)
            except BaseException as error:
                failures = await self._close_down_to(before)
                if not isinstance(error, Exception):
                    raise
                raise _start_error(definition, error, failures) from error

    async def _start_one(self, definition: ServiceDefinition[Any]) -> None:
        value = definition.make(self)
        if definition.start is not None:
            async with asyncio.timeout(definition.start_seconds):
                await definition.start(value)
        self._registry.register_value(definition.service, _Held(value), enter=False)
        if (stop := definition.stop) is not None:
            self._closers.append(_Closer(definition.name, lambda: stop(value), definition.stop_seconds))

    def _check_new(self, service: type[Any]) -> None:
        self._check_open(service)
        if service in self._registry or service in self._definitions:
            raise ConfigurationError(
                f"the service {service.__name__} is registered twice",
                hint="register it once, before the node is built",
            )

    def _check_open(self, service: type[Any]) -> None:
        if self._closed:
            raise ConfigurationError(f"the container is closed, {service.__name__} came too late")

    def __contains__(self, service: type[Any]) -> bool:
        return service in self._registry

    def services(self) -> list[type[Any]]:
        """Return the types of the services that can be had now."""
        return [cast("type[Any]", registered.svc_type) for registered in self._registry]

    def get(self, service: type[T], *, needed_by: str = "") -> T:
        """Return the service of that type, made now if nobody has asked for it yet.

        Args:
            service: the type it is registered under.
            needed_by: who asks, for the error message.

        Raises:
            ServiceMissingError: nobody registered it, or it is not started; says who needs it and what there is.
            ConfigurationError: the container is closed.
        """
        self._check_open(service)
        if service not in self._registry:
            raise self.missing(service.__name__, needed_by=needed_by)
        return cast("T", cast("_Held", self._services.get(service)).value)

    def get_protocol(self, class_name: str, *, needed_by: str = "") -> Any:
        """Return the service that speaks a protocol, for example `ProtocolEventBus`.

        Raises:
            ProtocolNotSpokenError: nobody speaks it in this process.
            ServiceMissingError: who speaks it is not there.
            ConfigurationError: there is no such protocol, or the container is closed.
        """
        service = self._protocols.service_for(class_name)
        if service is None:
            raise ProtocolNotSpokenError(
                f"{needed_by or 'somebody'} needs the protocol {class_name}, and no service of this process speaks it",
                hint=f"call container.bind_protocol({class_name!r}, …) before the node is built, or list it as `required: false`",
            )
        return self.get(service, needed_by=needed_by)

    def limited_to(self, declared: DeclaredDependencies) -> DeclaredServices:
        """Return the container as a node with this contract may use it."""
        return DeclaredServices(self, declared)

    def missing(self, name: str, *, needed_by: str = "") -> ServiceMissingError:
        """Return the error that says a service is not there, to be raised."""
        asker = f"{needed_by} needs the service" if needed_by else "there is no service"
        if name in self._definitions.names:
            return ServiceMissingError(f"{asker} {name}, and it is not started", hint="await container.start() first")
        names = sorted(item.__name__ for item in self.services())
        return ServiceMissingError(
            f"{asker} {name}, and nobody registered it (registered: {', '.join(names) or 'none'})",
            hint=f"call container.register_value({name}, …) before the node is built",
        )

    async def aclose(self) -> None:
        """Close the services in reverse order, every one even if others fail. Twice is once.

        Raises:
            ServiceCloseError: some could not be closed; it names them.
        """
        if self._closed:
            return
        self._closed = True
        errors = await self._close_down_to(0)
        await self._services.aclose()
        await self._registry.aclose()
        if errors:
            raise ServiceCloseError(errors) from errors[0][1]

    async def _close_down_to(self, kept: int) -> list[tuple[str, BaseException]]:
        """Close what was added after the first `kept`, last first; return what failed."""
        errors: list[tuple[str, BaseException]] = []
        while len(self._closers) > kept:
            closer = self._closers.pop()
            try:
                async with asyncio.timeout(closer.seconds):
                    await closer.close()
            except TimeoutError:
                errors.append((closer.name, TimeoutError(f"not done within {closer.seconds:g} s")))
            except Exception as error:  # noqa: BLE001 - the others must be closed, all are reported by the caller
                errors.append((closer.name, error))
        return errors

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _start_error(
    definition: ServiceDefinition[Any], error: Exception, failures: list[tuple[str, BaseException]]
) -> ServiceStartError:
    if isinstance(error, OmnibaseError):
        reason, hint = error.message, error.hint
    elif isinstance(error, TimeoutError):
        reason, hint = f"not done within {definition.start_seconds:g} s", ""
    else:
        reason, hint = f"{type(error).__name__}: {error}", ""
    message = f"{definition.name} did not start: {reason}"
    message += "".join(f"; stopping {name} failed, too: {failure!r}" for name, failure in failures)
    return ServiceStartError(message, service=definition.name, cause=error, hint=hint)
