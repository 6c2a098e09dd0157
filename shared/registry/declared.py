"""What a contract lists under `dependencies`, as generated code carries it, and the view of the container it allows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from omnibase_infra.shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from omnibase_infra.shared.registry.container import ONEXContainer

T = TypeVar("T")


class ServiceNotDeclaredError(ConfigurationError):
    """A node reached for something that its contract does not list under `dependencies`."""

    code = "service-not-declared"


class DeclaredDependency(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a contract's `dependencies`.

    Attributes:
        module: where its class is, as far as anybody has said.
        required: whether the node cannot be built without it.
    """

    name: str
    type: Literal["service", "protocol", "model"]
    class_name: str
    module: str = ""
    required: bool = True


class DeclaredDependencies(msgspec.Struct, frozen=True):
    """The `dependencies` of one contract.

    Attributes:
        contract: where the contract lies, for people: `workers/order_store/v1_0_0/contract.yaml`.
    """

    contract: str
    entries: tuple[DeclaredDependency, ...] = ()


class DeclaredServices:
    """A container as one node sees it: what its contract lists can be had, nothing else can."""

    def __init__(self, container: ONEXContainer, declared: DeclaredDependencies) -> None:
        self._container = container
        self._declared = declared

    def get(self, service: type[T]) -> T:
        """Return a service that the contract lists.

        Raises:
            ServiceNotDeclaredError: it does not; says where, and which line to add.
            ServiceMissingError: it does, and nobody registered it in this process.
        """
        self._require(service.__name__, "service")
        return self._container.get(service, needed_by=self._declared.contract)

    def find(self, service: type[T]) -> T | None:
        """Return a service that the contract lists, or None when this process has none: for `required: false`.

        Raises:
            ServiceNotDeclaredError: the contract does not list it.
        """
        self._require(service.__name__, "service")
        return self._container.get(service) if service in self._container else None

    def protocol(self, class_name: str) -> Any:
        """Return the service that speaks a protocol which the contract lists, for example `ProtocolEventBus`.

        Raises:
            ServiceNotDeclaredError: the contract does not list it.
            ProtocolNotSpokenError: nobody speaks it in this process.
        """
        self._require(class_name, "protocol")
        return self._container.get_protocol(class_name, needed_by=self._declared.contract)

    def model(self, class_name: str) -> Any:
        """Return the class of a shared model that the contract lists.

        Raises:
            ServiceNotDeclaredError: the contract does not list it.
            ConfigurationError: its module has no such class.
        """
        entry = self._require(class_name, "model")
        module = entry.module or f"omnibase_infra.shared.models.infrastructure.{entry.name}"
        try:
            return getattr(import_module(module), class_name)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"{self._declared.contract} lists the model {class_name}, and {module} has none: {error}",
                hint=f"correct `module` of {entry.name} in the contract's `dependencies`",
            ) from error

    def require_all(self) -> None:
        """Check that everything the contract requires is there, before any work starts.

        Raises:
            ServiceMissingError, ProtocolNotSpokenError, ConfigurationError: the first thing that is not.
        """
        registered = {service.__name__ for service in self._container.services()}
        for entry in self._declared.entries:
            if not entry.required:
                continue
            if entry.type == "protocol":
                self.protocol(entry.class_name)
            elif entry.type == "model":
                self.model(entry.class_name)
            elif entry.class_name not in registered:
                raise self._container.missing(entry.class_name, needed_by=self._declared.contract)

    def _require(self, class_name: str, kind: str) -> DeclaredDependency:
        for entry in self._declared.entries:
            if entry.type == kind and entry.class_name == class_name:
                return entry
        listed = ", ".join(entry.name for entry in self._declared.entries) or "nothing"
        raise ServiceNotDeclaredError(
            f"{self._declared.contract} does not list the {kind} {class_name} under `dependencies` (listed: {listed})",
            hint=f"add `- {{name: {_dependency_name(class_name)}, type: {kind}, class_name: {class_name}}}` there "
            "and run `omninode generate`",
        )


def _dependency_name(class_name: str) -> str:
    """Return what contracts call a dependency of a class: its known name, else the class's own in snake case."""
    from omnibase_infra.shared.contracts.kits import SERVICES

    known = {service.class_name: service.dependency for service in SERVICES}
    spelt = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in class_name)
    return known.get(class_name, spelt.lstrip("_"))
