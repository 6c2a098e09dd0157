"""What is to be generated, as pure frozen data. The planner makes it, emitters read it, nothing changes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.generator.names import pascal_case, snake_case

Owner = Literal["generator", "people"]
Root = Literal["node", "tests"]


class FieldPlan(msgspec.Struct, frozen=True):
    """A field of a model.

    Attributes:
        annotation: Python source; the names in it are resolved by `imports`.
        default: Python source; empty for a required field.
        alias: its name in JSON where Python reserves that word; empty when it is `name`.
    """

    name: str
    annotation: str
    default: str = ""
    description: str = ""
    alias: str = ""

    @property
    def json_name(self) -> str:
        """Return its name in JSON."""
        return self.alias or self.name

    @property
    def value(self) -> str:
        """Return what stands behind `=`, as Python source; empty when nothing does."""
        if not self.alias:
            return self.default
        return f"field(name={self.alias!r}{f', default={self.default}' if self.default else ''})"


class StructPlan(msgspec.Struct, frozen=True):
    """A model that becomes a frozen msgspec Struct.

    Attributes:
        tag_field / tag: how a union tells it apart.
        kw_only: false for models that are made from many values in order, such as rows.
    """

    name: str
    description: str
    fields: tuple[FieldPlan, ...] = ()
    tag_field: str = ""
    tag: str = ""
    kw_only: bool = True

    @property
    def module(self) -> str:
        """Return the module that holds it."""
        return snake_case(self.name)

    @property
    def sources(self) -> Iterator[str]:
        """Yield every piece of Python source in it."""
        for field in self.fields:
            yield field.annotation
            yield field.value


class AliasPlan(msgspec.Struct, frozen=True):
    """A model that is another name for a type, such as a union of models."""

    name: str
    description: str
    value: str

    @property
    def module(self) -> str:
        """Return the module that holds it."""
        return snake_case(self.name)

    @property
    def sources(self) -> Iterator[str]:
        """Yield every piece of Python source in it."""
        yield self.value


ModelPlan: TypeAlias = StructPlan | AliasPlan


class ServicePlan(msgspec.Struct, frozen=True, order=True):
    """A service that processors are given by the container.

    Attributes:
        attribute: its name in constructors.
        example: Python source of one that is connected to nothing, for tests.
    """

    attribute: str
    class_name: str
    module: str
    example: str


class RefusalPlan(msgspec.Struct, frozen=True):
    """A payload that must be refused, and what the message must hold."""

    payload: Any
    message: str


class KitOperation(msgspec.Struct, frozen=True):
    """What a kit says about one of its operations.

    Attributes:
        request / response: model names.
        models: those the kit makes for it; the same model may come from several operations.
        services: what its processor's constructor takes, in order.
        isolation: Python source of the isolation level of a batch `requests`.
        payloads: JSON values that must be accepted, for tests and examples; the first is the README's.
        refusals: JSON values that must be refused.
        options: for the kit's own templates.
    """

    request: str
    response: str
    models: tuple[ModelPlan, ...] = ()
    services: tuple[ServicePlan, ...] = ()
    isolation: str = "None"
    payloads: tuple[Any, ...] = ()
    refusals: tuple[RefusalPlan, ...] = ()
    options: Mapping[str, Any] = {}


class OperationPlan(msgspec.Struct, frozen=True):
    """One operation of the node: what the contract says, what the kit says, what the runtime is told."""

    name: str
    kit: str
    description: str
    spec: OperationSpec
    details: KitOperation

    @property
    def class_prefix(self) -> str:
        """Return what its class names begin with."""
        return pascal_case(self.name)

    @property
    def handler(self) -> str:
        """Return the handler's class name."""
        return f"{self.class_prefix}Handler"

    @property
    def processor(self) -> str:
        """Return the processor's class name."""
        return f"{self.class_prefix}Processor"

    @property
    def outcome(self) -> str:
        """Return the name of its outcome union."""
        return f"{self.class_prefix}Outcome"


class SourceFile(msgspec.Struct, frozen=True):
    """A file to write. `path` is relative to its root; people's files are written only where there is none."""

    path: str
    content: str
    owner: Owner = "generator"
    root: Root = "node"


class GenerationPlan(msgspec.Struct, frozen=True):
    """Everything the emitters need to know about one node.

    Attributes:
        package: import path of the node's version folder.
        models: of all operations and definitions, sorted by name, each once.
        locks: files that keep what was learnt from servers, as their kits write them.
    """

    contract: Contract
    package: str
    spec: WorkerSpec
    operations: tuple[OperationPlan, ...]
    models: tuple[ModelPlan, ...]
    services: tuple[ServicePlan, ...]
    locks: tuple[SourceFile, ...] = ()

    @property
    def class_prefix(self) -> str:
        """Return what the node's own class names begin with, apart from the contract's `name`."""
        return pascal_case(self.contract.node)

    @property
    def port(self) -> str:
        """Return the class name of the node's port."""
        return f"{self.class_prefix}Port"

    @property
    def source(self) -> str:
        """Return how generated files name their contract."""
        return f"workers/{self.contract.node}/{self.contract.version.folder}/{self.contract.path.name}"

    @property
    def header(self) -> str:
        """Return the first three lines of a generated Python file."""
        return "\n".join(f"# {line}" for line in self.header_lines)

    @property
    def header_lines(self) -> tuple[str, str, str]:
        """Return the three lines that say where a generated file came from."""
        return (
            "Generated by omninode; do not edit.",
            f"source: {self.source}",
            f"contract-sha256: {self.contract.sha256}",
        )
