"""Emit the tests of a node: of the node itself, of its handlers, and of its operations on real services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from omnibase_infra.shared.contracts.kits import BUILT_IN_KITS
from omnibase_infra.shared.generator.kits.interface import Kit
from omnibase_infra.shared.generator.plan import GenerationPlan, OperationPlan, SourceFile
from omnibase_infra.shared.generator.rendering import TEMPLATES


def emit_unit_tests(plan: GenerationPlan) -> Iterator[SourceFile]:
    """Yield the tests that need no service."""
    built_in = all(operation.kit in BUILT_IN_KITS for operation in plan.operations)
    node = TEMPLATES.render("test_node.py.j2", plan=plan, kits="" if built_in else ", schemas_of(installed_kits())")
    yield SourceFile("test_node.py", node, root="tests")
    payloads = [(operation.name, item) for operation in plan.operations for item in operation.details.payloads]
    refusals = [
        (operation.name, refusal.payload, refusal.message)
        for operation in plan.operations
        for refusal in operation.details.refusals
    ]
    handlers = TEMPLATES.render("test_handlers.py.j2", plan=plan, payloads=payloads, refusals=refusals)
    yield SourceFile("test_handlers.py", handlers, root="tests")


def integration_tests(plan: GenerationPlan, operations: Iterable[tuple[Kit, Sequence[OperationPlan]]]) -> SourceFile:
    """Return the tests on real services, a block from each kit that has some."""
    blocks = [block for kit, own in operations if (block := kit.integration_tests(plan, own))]
    content = TEMPLATES.render("test_integration.py.j2", plan=plan, blocks=blocks)
    return SourceFile("test_integration.py", content, root="tests")
