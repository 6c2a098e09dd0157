"""Every setting with its type, unit, default and meaning, as people read them: for the reference page and `config`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from omnibase_infra.shared.core.settings import Settings, secret_names, variable

SECTIONS: Final = (
    ("Realm", ("env", "tenant")),
    ("Kafka", ("kafka_",)),
    ("PostgreSQL", ("postgres_",)),
    ("Secrets", ("vault_", "secrets_")),
    ("Schema registry", ("schema_registry_",)),
    ("Logs", ("log_",)),
    ("Traces", ("otlp_", "trace_")),
    ("Traces", ("otlp_", "trace_")),
    ("Process", ("",)),
)
# Variables that are no settings of a process, each with its meaning.
OTHER_VARIABLES: Final = {
    "OMNIBASE_STATE_DIR": "Where local servers keep their state and the file `env`. Default: the nearest `.omnibase` "
    "folder upwards, else one beside the nearest `pyproject.toml` or `.git`.",
    "OMNIBASE_CONSUL_ADDR": "A Consul agent run by someone else; `omninode infra status` shows it.",
    "XDG_CACHE_HOME": "Where Kafka's jars and start-up cache are kept. Default: `~/.cache`.",
    "OMNIBASE_UPDATE_GOLDEN": "Tests of the generator: `1` writes the golden files anew instead of comparing.",
    "OMNIBASE_SIMULATION_SEEDS": "Tests: how many seeds the simulation of the runtime runs.",
}
_UNITS: Final = (("_seconds", "seconds"), ("_days", "days"), ("_bytes", "bytes"), ("_records", "records"))
_TYPES: Final = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "`true`, `false`",
    Path: "path",
    SecretStr: "secret",
}


class SettingEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One setting.

    Attributes:
        name: of the field.
        variable: the environment variable it is read from.
        section: what it is about.
        type: with the choices or bounds there are.
        unit: of a number; empty for none.
        default: as text; `unset` for none, `**required**` where there is no running without it.
        meaning: one or two sentences.
        secret: whether its value is never shown, and may be a reference.
    """

    name: str
    variable: str
    section: str
    type: str
    unit: str
    default: str
    meaning: str
    secret: bool


def setting_entries() -> Iterator[SettingEntry]:
    """Yield the settings by section, in the order in which they are declared."""
    left = list(Settings.model_fields)
    secrets = secret_names()
    for section, prefixes in SECTIONS:
        for name in [name for name in left if name.startswith(prefixes)]:
            left.remove(name)
            yield _entry(name, section, secret=name in secrets)


def _entry(name: str, section: str, *, secret: bool) -> SettingEntry:
    field = Settings.model_fields[name]
    bounds = ", ".join(f"{sign} {value:g}" for sign, value in _bounds(field.metadata))
    kind = _type_name(field.annotation)
    return SettingEntry(
        name=name,
        variable=variable(name),
        section=section,
        type=f"{kind} ({bounds})" if bounds else kind,
        unit=_unit(name),
        default=_default(field.default),
        meaning=field.description or "",
        secret=secret,
    )


def _bounds(metadata: Sequence[Any]) -> Iterator[tuple[str, float]]:
    for item in metadata:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (value := getattr(item, attribute, None)) is not None:
                yield sign, value


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    arguments = [one for one in get_args(annotation) if one is not type(None)]
    return _type_name(arguments[0]) if len(arguments) == 1 else _TYPES[annotation]


def _unit(name: str) -> str:
    for suffix, unit in _UNITS:
        if name.endswith(suffix):
            return unit
    return "connections" if name in ("postgres_pool_min", "postgres_pool_max") else ""


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "**required**"
    if value is None or value == "":
        return "unset"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
