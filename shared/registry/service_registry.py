"""What services a process has, how each is started and stopped, and in which order that must happen.

Plain definitions: nothing here is made or started. The container does that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from omnibase_infra.shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from omnibase_infra.shared.registry.container import ONEXContainer

T = TypeVar("T")

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0


class ServiceOrderError(ConfigurationError):
    """Services cannot be started in any order: one depends on itself, or on one that nobody registered."""

    code = "service-order"


@dataclass(frozen=True)
class ServiceDefinition(Generic[T]):
    """A service with a life cycle.

    Attributes:
        service: the type it is registered and asked for under.
        make: makes it out of the services it depends on, which are started; quick, opens nothing.
        depends_on: types of services that are started before it and stopped after it.
        start: opens it. What it has opened when it fails it closes itself; `stop` is not called then.
        stop: closes it; called once, also when others fail to stop.
        start_seconds / stop_seconds: how long each may take.
    """

    service: type[T]
    make: Callable[[ONEXContainer], T]
    depends_on: tuple[type[Any], ...] = ()
    start: Callable[[T], Awaitable[None]] | None = None
    stop: Callable[[T], Awaitable[None]] | None = None
    start_seconds: float = START_SECONDS
    stop_seconds: float = STOP_SECONDS

    @property
    def name(self) -> str:
        """Return what people call it: the name of its type."""
        return self.service.__name__


class ServiceRegistry:
    """The definitions of one process's services."""

    def __init__(self) -> None:
        self._definitions: dict[type[Any], ServiceDefinition[Any]] = {}

    def add(self, definition: ServiceDefinition[Any]) -> None:
        """Add a service.

        Raises:
            ConfigurationError: one of that type is there already.
        """
        if definition.service in self._definitions:
            raise ConfigurationError(
                f"the service {definition.name} is registered twice",
                hint="register it once, before the node is built",
            )
        self._definitions[definition.service] = definition

    def __contains__(self, service: type[Any]) -> bool:
        return service in self._definitions

    @property
    def names(self) -> list[str]:
        """Return the names of all services, in the order in which they were added."""
        return [definition.name for definition in self._definitions.values()]

    def start_order(self, present: Iterable[type[Any]] = ()) -> list[ServiceDefinition[Any]]:
        """Return every service after those it depends on; otherwise in the order in which they were added.

        Args:
            present: types of services that exist already and need no start.

        Raises:
            ServiceOrderError: a service depends on one that is not there, or, over others, on itself; names the path.
        """
        there = set(present)
        order: list[ServiceDefinition[Any]] = []
        done: set[type[Any]] = set()
        for definition in self._definitions.values():
            self._visit(definition, (), there, done, order)
        return order

    def _visit(
        self,
        definition: ServiceDefinition[Any],
        above: tuple[ServiceDefinition[Any], ...],
        there: set[type[Any]],
        done: set[type[Any]],
        order: list[ServiceDefinition[Any]],
    ) -> None:
        if definition.service in done:
            return
        if definition in above:
            path = [*(item.name for item in above[above.index(definition) :]), definition.name]
            raise ServiceOrderError(
                f"services depend on one another in a circle: {' → '.join(path)}",
                hint="let one of them be given the other's data instead",
            )
        for needed in definition.depends_on:
            if needed in self._definitions:
                self._visit(self._definitions[needed], (*above, definition), there, done, order)
            elif needed not in there:
                names = ", ".join([*self.names, *sorted(item.__name__ for item in there)]) or "none"
                raise ServiceOrderError(
                    f"the service {definition.name} depends on {needed.__name__}, and nobody registered it "
                    f"(registered: {names})",
                    hint=f"register {needed.__name__} before the container is started",
                )
        done.add(definition.service)
        order.append(definition)
