"""What a kit is. Third parties register theirs under the entry-point group `omnibase_infra.kits`.

    [project.entry-points."omnibase_infra.kits"]
    smtp = "my_package.smtp_kit:KIT"

`KIT` is an object with the members of `Kit`; the operations of a contract name it as `smtp` or `smtp.<form>`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from omnibase_infra.shared.contracts.kits import KitSchema
from omnibase_infra.shared.contracts.model import Contract, Operation
from omnibase_infra.shared.generator.plan import GenerationPlan, KitOperation, OperationPlan, SourceFile


class Servers(msgspec.Struct, frozen=True):
    """Where analysis may ask. Calling one starts a local server when nothing else is known, so call late.

    Attributes:
        postgres_dsn: returns a DSN whose user may create databases.
    """

    postgres_dsn: Callable[[], str]


class KitAnalysis(msgspec.Struct, frozen=True):
    """What a kit learnt about a contract.

    Attributes:
        facts: the kit's own frozen data, handed back to `plan_operation`.
        locks: files that keep it, so that the next run asks no server.
    """

    facts: Any = None
    locks: tuple[SourceFile, ...] = ()


class TestBlock(msgspec.Struct, frozen=True):
    """A piece of a generated test module: import lines, then code. Formatting sorts and merges imports."""

    __test__ = False

    imports: tuple[str, ...]
    code: str


class Kit(Protocol):
    """A service the generator knows. Called in the order written here, by one thread, once per contract.

    Only `analyse` may talk to a server; the others are pure: the same arguments give the same result.
    """

    @property
    def name(self) -> str:
        """Return the first part of its operations' `kit`, for example `postgres`."""
        ...

    @property
    def schemas(self) -> Sequence[KitSchema]:
        """Return what contracts may say about each form of its operations."""
        ...

    def analyse(self, contract: Contract, servers: Servers) -> KitAnalysis:
        """Learn what is needed about the contract's operations of this kit; from its lock file when it still holds.

        Raises:
            ContractError: something the contract refers to does not work; located.
            DependencyUnavailableError, LocalServiceError: a server is needed and cannot be asked.
        """
        ...

    def plan_operation(self, contract: Contract, operation: Operation, facts: Any) -> KitOperation:
        """Return models, services, samples of one operation.

        Raises:
            ContractError: it cannot be generated; located.
        """
        ...

    def emit(self, plan: GenerationPlan, operations: Sequence[OperationPlan]) -> Iterable[SourceFile]:
        """Yield `processors/<operation>.py` of each of its operations, and what they share.

        A processor is a class `<Operation>Processor` whose constructor takes the operation's services and whose
        `async run(requests, context)` returns an outcome per request. Python files are formatted afterwards.
        """
        ...

    def integration_tests(self, plan: GenerationPlan, operations: Sequence[OperationPlan]) -> TestBlock | None:
        """Return tests of its operations on the real service; None when there is nothing to try."""
        ...
