"""Find the installed kits."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import cast

from omnibase_infra.shared.contracts.kits import KIT_ENTRY_POINTS, KitSchema
from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.generator.kits.interface import Kit


def installed_kits() -> Mapping[str, Kit]:
    """Return every kit by name, sorted.

    Raises:
        ConfigurationError: a kit cannot be imported, or two have one name.
    """
    kits: dict[str, Kit] = {}
    for entry in sorted(entry_points(group=KIT_ENTRY_POINTS), key=lambda entry: entry.name):
        try:
            kit = cast("Kit", entry.load())
        except Exception as error:
            raise ConfigurationError(
                f"the kit {entry.name!r} ({entry.value}) cannot be loaded: {error!r}",
                hint="repair or uninstall the package that brings it",
            ) from error
        if kit.name in kits:
            raise ConfigurationError(f"two kits are called {kit.name!r}; one of them is {entry.value}")
        kits[kit.name] = kit
    return kits


def schemas_of(kits: Mapping[str, Kit]) -> Mapping[str, KitSchema]:
    """Return what contracts may say about the kits' operations, by the name contracts use."""
    return {schema.name: schema for kit in kits.values() for schema in kit.schemas}


def kit_of(kits: Mapping[str, Kit], operation_kit: str) -> Kit:
    """Return the kit of an operation: `postgres.statement` belongs to `postgres`."""
    return kits[operation_kit.split(".", 1)[0]]
