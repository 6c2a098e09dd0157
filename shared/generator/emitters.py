"""Emitters: each reads the plan and yields files. A new output is a new emitter in `EMITTERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

import msgspec

from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.generator.documentation import emit_readme
from omnibase_infra.shared.generator.generated_tests import emit_unit_tests, integration_tests
from omnibase_infra.shared.generator.imports import import_lines, model_import, without_clashes
from omnibase_infra.shared.generator.kits.discovery import kit_of
from omnibase_infra.shared.generator.kits.interface import Kit
from omnibase_infra.shared.generator.plan import AliasPlan, GenerationPlan, OperationPlan, SourceFile
from omnibase_infra.shared.generator.rendering import TEMPLATES
from omnibase_infra.shared.generator.services import SERVICE_MODULES
from omnibase_infra.shared.registry.declared import DeclaredDependencies, DeclaredDependency

# Only those that a spec is made of are imported: a line that ruff has split does not close again.
_SPEC_STRUCTS: Final = ("DeadLetterSpec", "OperationSpec", "RateLimitSpec", "RetrySpec", "TopicSettings", "WorkerSpec")

Emitter = Callable[[GenerationPlan], Iterable[SourceFile]]


def emit_packages(plan: GenerationPlan) -> Iterator[SourceFile]:
    """Yield the package files that only say what their folder holds."""
    yield SourceFile("__init__.py", TEMPLATES.render("version_init.py.j2", plan=plan))
    folders = {
        "handlers": "Handlers, one per operation: they decode requests and call the node.",
        "processors": "Processors, one per operation: they do the work.",
        "registry": "What the runtime loads: the spec, and how the node is built.",
    }
    for folder, description in folders.items():
        content = TEMPLATES.render("package_init.py.j2", plan=plan, description=description)
        yield SourceFile(f"{folder}/__init__.py", content)


def emit_models(plan: GenerationPlan) -> Iterator[SourceFile]:
    """Yield one file per model, and the package that names them all."""
    for planned in plan.models:
        model = planned if isinstance(planned, AliasPlan) else without_clashes(planned)
        template = "model_alias.py.j2" if isinstance(model, AliasPlan) else "model_struct.py.j2"
        imports = import_lines(plan, model.sources, without=model.module)
        yield SourceFile(
            f"models/{model.module}.py", TEMPLATES.render(template, plan=plan, model=model, imports=imports)
        )
    yield SourceFile("models/__init__.py", TEMPLATES.render("models_init.py.j2", plan=plan))


def emit_port_and_node(plan: GenerationPlan) -> Iterator[SourceFile]:
    """Yield the port, the node behind it, and a handler per operation before it."""
    requests = [operation.details.request for operation in plan.operations]
    responses = [operation.details.response for operation in plan.operations]
    port = TEMPLATES.render("port.py.j2", plan=plan, models=model_import(plan, [*requests, *responses]))
    yield SourceFile("port.py", port)
    yield SourceFile("node.py", TEMPLATES.render("node.py.j2", plan=plan, models=model_import(plan, requests)))
    for operation in plan.operations:
        models = model_import(plan, [operation.details.request])
        content = TEMPLATES.render("handler.py.j2", plan=plan, operation=operation, models=models)
        yield SourceFile(f"handlers/{operation.name}.py", content)


def emit_registry(plan: GenerationPlan) -> Iterator[SourceFile]:
    """Yield the spec and the factory."""
    spec = struct_source(plan.spec)
    structs = [name for name in _SPEC_STRUCTS if f"{name}(" in spec]
    content = TEMPLATES.render("registry_spec.py.j2", plan=plan, spec=spec, structs=structs)
    yield SourceFile("registry/spec.py", content)
    declared = struct_source(_declared(plan))
    dependencies = TEMPLATES.render("registry_dependencies.py.j2", plan=plan, declared=declared)
    yield SourceFile("registry/dependencies.py", dependencies)
    yield SourceFile("registry/build.py", TEMPLATES.render("registry_build.py.j2", plan=plan))


def _declared(plan: GenerationPlan) -> DeclaredDependencies:
    entries = (
        DeclaredDependency(
            name=item.name,
            type=item.type,
            class_name=item.class_name,
            module=item.module or SERVICE_MODULES.get(item.class_name, ""),
            required=item.required,
        )
        for item in plan.contract.dependencies
    )
    return DeclaredDependencies(plan.source, tuple(entries))


def emit_locks(plan: GenerationPlan) -> Iterator[SourceFile]:
    """Yield the lock files."""
    yield from plan.locks


EMITTERS: Final[tuple[Emitter, ...]] = (
    emit_packages,
    emit_models,
    emit_port_and_node,
    emit_registry,
    emit_locks,
    emit_readme,
    emit_unit_tests,
)


def emit_all(plan: GenerationPlan, kits: Mapping[str, Kit]) -> list[SourceFile]:
    """Return every file of the plan, unformatted, sorted by root and path.

    Raises:
        ConfigurationError: two emitters write one file.
    """
    files = [file for emitter in EMITTERS for file in emitter(plan)]
    for kit, operations in operations_by_kit(plan, kits):
        files.extend(kit.emit(plan, operations))
    files.append(integration_tests(plan, operations_by_kit(plan, kits)))
    files.sort(key=lambda file: (file.root, file.path))
    for one, other in pairwise(files):
        if (one.root, one.path) == (other.root, other.path):
            raise ConfigurationError(f"two emitters write {one.path}; a kit must not write what the generator writes")
    return files


def operations_by_kit(plan: GenerationPlan, kits: Mapping[str, Kit]) -> Iterator[tuple[Kit, tuple[OperationPlan, ...]]]:
    """Yield each used kit with its operations, sorted by the kit's name."""
    for name in sorted({kit_of(kits, operation.kit).name for operation in plan.operations}):
        kit = kits[name]
        yield kit, tuple(operation for operation in plan.operations if kit_of(kits, operation.kit) is kit)


def struct_source(value: Any) -> str:
    """Return a struct as Python source, defaults left out."""
    if isinstance(value, tuple):
        items = [struct_source(item) for item in value]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if not isinstance(value, msgspec.Struct):
        return repr(value)
    fields = []
    for field in msgspec.structs.fields(type(value)):
        content = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if default is msgspec.NODEFAULT or content != default:
            fields.append(f"{field.name}={struct_source(content)}")
    return f"{type(value).__name__}({', '.join(fields)})"
