"""The custom kit: models from the contract's definitions, a processor scaffolded once and then owned by people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from omnibase_infra.shared.contracts.kits import BUILT_IN_KITS, SERVICES
from omnibase_infra.shared.contracts.model import Contract, Operation
from omnibase_infra.shared.core.errors import ContractError, Problem
from omnibase_infra.shared.generator.kits.interface import KitAnalysis, Servers, TestBlock
from omnibase_infra.shared.generator.plan import (
    AliasPlan,
    GenerationPlan,
    KitOperation,
    ModelPlan,
    OperationPlan,
    ServicePlan,
    SourceFile,
)
from omnibase_infra.shared.generator.rendering import TEMPLATES
from omnibase_infra.shared.generator.schema_samples import NoSampleError, schema_refusals, schema_sample
from omnibase_infra.shared.generator.services import service_plan

NO_ANSWER: Final = "ModelNoAnswer"


class CustomKit(msgspec.Struct, frozen=True):
    """Operations whose behaviour people write."""

    name: str = "custom"
    schemas: tuple[Any, ...] = (BUILT_IN_KITS["custom"],)

    def analyse(self, contract: Contract, servers: Servers) -> KitAnalysis:  # noqa: ARG002 - nothing to learn
        """Return nothing: the contract says it all."""
        return KitAnalysis()

    def plan_operation(self, contract: Contract, operation: Operation, facts: Any) -> KitOperation:  # noqa: ARG002
        """Return the operation's models by name, the services its `needs` stand for, and samples.

        Raises:
            ContractError: a definition has a pattern and no example.
        """
        request = str(operation.request)
        schema = contract.definitions[request]
        try:
            sample = schema_sample(schema, contract.definitions)
        except NoSampleError as error:
            raise ContractError([Problem(contract.path.name, 1, 1, f"definitions.{request}: {error}")]) from error
        no_answer: tuple[ModelPlan, ...] = (AliasPlan(NO_ANSWER, "The operation gives no answer.", "None"),)
        return KitOperation(
            request=request,
            response=operation.response or NO_ANSWER,
            models=() if operation.response else no_answer,
            services=tuple(_services(contract, operation.options.get("needs", ()))),
            payloads=(sample,),
            refusals=tuple(schema_refusals(schema, sample)),
        )

    def emit(self, plan: GenerationPlan, operations: Sequence[OperationPlan]) -> Iterable[SourceFile]:
        """Yield a processor to begin with for each operation."""
        for operation in operations:
            content = TEMPLATES.render("processor_custom.py.j2", plan=plan, operation=operation)
            yield SourceFile(f"processors/{operation.name}.py", content, owner="people")

    def integration_tests(
        self,
        plan: GenerationPlan,  # noqa: ARG002 - people test what they write
        operations: Sequence[OperationPlan],  # noqa: ARG002 - likewise
    ) -> TestBlock | None:
        """Return none: what people write, people test."""
        return None


def _services(contract: Contract, needs: Iterable[str]) -> Iterable[ServicePlan]:
    dependencies = {service.short_name: service.dependency for service in SERVICES}
    declared = {dependency.name: dependency for dependency in contract.dependencies}
    for need in needs:
        yield service_plan(declared[dependencies[need]])


KIT: Final = CustomKit()
