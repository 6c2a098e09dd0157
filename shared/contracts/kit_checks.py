"""Operations against what their kits allow: known kit, known options, declared services."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from omnibase_infra.shared.contracts.draft import Draft, Located
from omnibase_infra.shared.contracts.kits import PROTOCOL_NAMES, SERVICES, KitSchema, KnownService
from omnibase_infra.shared.contracts.model import Dependency, Operation
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.schema_check import check_option, closest, did_you_mean, note_misspelt, unknown_key
from omnibase_infra.shared.contracts.yaml_source import Path, YamlSource
from omnibase_infra.shared.models import infrastructure

COMMON_KEYS: Final = frozenset(
    ("name", "description", "kit", "topic", "on", "answer", "batch", "concurrency", "timeout", "ordering")
)


def check_kit_options(source: YamlSource, data: Mapping[str, Any], kits: Mapping[str, KitSchema]) -> set[Path]:
    """Check the kit and the kit's options of every operation; return the paths that cannot be used."""
    unusable: set[Path] = set()
    for index, entry in enumerate(data.get("io_operations", [])):
        if isinstance(entry, dict):
            unusable |= _check_operation(source, entry, ("io_operations", index), kits)
    return unusable


def _check_operation(
    source: YamlSource, entry: Mapping[str, Any], path: Path, kits: Mapping[str, KitSchema]
) -> set[Path]:
    name = entry.get("kit")
    kit = kits.get(name) if isinstance(name, str) else None
    if kit is None:
        if isinstance(name, str):
            hint = did_you_mean(name, kits) or f", expected {', '.join(sorted(kits))}"
            source.add(Rule.UNKNOWN_KIT, f"unknown kit {name!r}{hint}", source.position((*path, "kit")))
        _check_keys_of_no_kit(source, entry, path, kits)
        return set()
    unusable: set[Path] = set()
    for key in entry:
        if key not in COMMON_KEYS and key not in kit.options:
            place = (*path, key)
            owners = sorted(other.name for other in kits.values() if key in other.options)
            message = (
                f"{key!r} is an option of {', '.join(owners)}, not of {kit.name}; remove it"
                if owners
                else unknown_key(key, COMMON_KEYS | kit.options.keys())
            )
            rule = Rule.KIT_OPTION if owners else Rule.UNKNOWN_KEY
            source.add(rule, message, source.position(place, of_key=True))
            unusable.add(place)
            note_misspelt(source, place, COMMON_KEYS | kit.options.keys(), entry)
    for key, option in kit.options.items():
        place = (*path, key)
        if key in entry:
            unusable |= check_option(source, place, entry[key], option.schema)
        elif option.required and place not in source.misspelt:
            detail = f"{option.description[0].lower()}{option.description[1:].rstrip('.')}"
            message = f"the kit {kit.name} needs the key {key!r} here: {detail}"
            source.add(Rule.KIT_OPTION, message, source.position(path))
    return unusable


def _check_keys_of_no_kit(
    source: YamlSource, entry: Mapping[str, Any], path: Path, kits: Mapping[str, KitSchema]
) -> None:
    """Without a kit every kit's options may be meant; what is none of them is unknown all the same."""
    known = COMMON_KEYS.union(*(kit.options for kit in kits.values()))
    for key in entry:
        if key not in known:
            source.add(Rule.UNKNOWN_KEY, unknown_key(key, known), source.position((*path, key), of_key=True))
            note_misspelt(source, (*path, key), known, entry)


def check_dependencies(draft: Draft) -> None:
    """Check services against what the container has and what operations need."""
    _check_names(draft)
    declared = declared_services(draft)
    used: set[str] = set()
    for located in draft.operations:
        used |= _check_operation_needs(draft, located, declared)
    if draft.contract.needs("postgres"):
        used.add("postgres")
    for dependency in draft.dependencies:
        service = _known(dependency.item)
        if dependency.item.type == "service" and service and service.short_name not in used:
            draft.report(
                Rule.DEPENDENCY_UNUSED,
                f"nothing needs the service {dependency.item.name!r}; name {service.short_name!r} in `needs` of the "
                "operation that uses it, or remove it",
                (*dependency.path, "name"),
            )


def declared_services(draft: Draft) -> set[str]:
    """Return the services a contract declares; a misspelt one counts as the one that was probably meant."""
    known = [service.dependency for service in SERVICES]
    names = {located.item.name for located in draft.dependencies if located.item.type == "service"}
    return {name if name in known else closest(name, known) or name for name in names}


def _check_names(draft: Draft) -> None:
    seen: dict[str, Path] = {}
    for dependency, path in draft.dependencies:
        if not dependency.name:
            continue
        if dependency.name in seen:
            message = f"the dependency {dependency.name!r} is listed twice; remove one"
            draft.report(Rule.DEPENDENCY_TWICE, message, (*path, "name"))
        seen[dependency.name] = path
        if dependency.type != "service":
            _check_class(draft, dependency, path)
            continue
        service = _known(dependency)
        if service is None:
            names = [known.dependency for known in SERVICES]
            hint = did_you_mean(dependency.name, names) or f", expected {', '.join(names)}"
            message = f"the container has no service {dependency.name!r}{hint}"
            draft.report(Rule.DEPENDENCY_UNKNOWN, message, (*path, "name"))
        elif dependency.class_name and dependency.class_name != service.class_name:
            message = f"the service {dependency.name} is of class {service.class_name}, not {dependency.class_name}"
            draft.report(Rule.DEPENDENCY_UNKNOWN, message, (*path, "class_name"))


def _check_class(draft: Draft, dependency: Dependency, path: Path) -> None:
    """Check that a protocol is one of those there are, and that somebody knows where a model lives."""
    if not draft.has((*path, "type")) or not draft.whole(path):
        return  # what was meant cannot be told
    name = dependency.class_name
    if dependency.type == "protocol" and name and name not in PROTOCOL_NAMES:
        hint = did_you_mean(name, PROTOCOL_NAMES) or f", expected {', '.join(PROTOCOL_NAMES)}"
        draft.report(Rule.DEPENDENCY_UNKNOWN, f"there is no protocol {name!r}{hint}", (*path, "class_name"))
    elif (
        dependency.type == "model" and not dependency.module and name and not _is_infrastructure_model(dependency.name)
    ):
        message = f"nobody knows where {name} lives; state its `module`"
        draft.report(Rule.DEPENDENCY_UNKNOWN, message, (*path, "class_name"))


def _is_infrastructure_model(name: str) -> bool:
    return (FilePath(str(infrastructure.__file__)).parent / f"{name}.py").is_file()


def _check_operation_needs(draft: Draft, located: Located[Operation], declared: set[str]) -> set[str]:
    operation, path = located
    kit = draft.kits.get(operation.kit)
    if kit is None:
        return {service.short_name for service in SERVICES}  # unknown: nothing can be called unused
    by_short_name = {service.short_name: service for service in SERVICES}
    used: set[str] = {*operation.needs, *kit.uses}
    for index, name in enumerate(_stated_needs(draft, path)):
        if isinstance(name, str) and name not in by_short_name:
            hint = did_you_mean(name, by_short_name) or f", expected {', '.join(sorted(by_short_name))}"
            message = f"there is no service of the short name {name!r}{hint}"
            draft.report(Rule.KIT_DEPENDENCY, message, (*path, "needs", index))
    for name in sorted(used & by_short_name.keys()):
        service = by_short_name[name]
        if service.dependency not in declared and draft.whole(("dependencies",)):
            message = (
                f"{operation.name or 'the operation'} needs {name}: add "
                f"{{name: {service.dependency}, type: service, class_name: {service.class_name}}} to dependencies"
            )
            place = (*path, "needs") if draft.has((*path, "needs")) else (*path, "kit")
            draft.report(Rule.KIT_DEPENDENCY, message, place)
    return used


def _stated_needs(draft: Draft, path: Path) -> list[Any]:
    entry: Any = draft.data["io_operations"][path[1]]
    needs = entry.get("needs", [])
    return needs if isinstance(needs, list) else []


def _known(dependency: Dependency) -> KnownService | None:
    return next((service for service in SERVICES if service.dependency == dependency.name), None)
