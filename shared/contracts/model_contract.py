"""Model contracts: the models that several nodes share, by service, in one `models.yaml` each."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from omnibase_infra.shared.contracts.loader import shown_path
from omnibase_infra.shared.contracts.model import Version
from omnibase_infra.shared.contracts.payload_schema import check_models
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.schema_check import check_value, did_you_mean, report_missing_keys
from omnibase_infra.shared.contracts.yaml_source import Path as Place
from omnibase_infra.shared.contracts.yaml_source import YamlSource, read_yaml
from omnibase_infra.shared.core.errors import ConfigurationError, ContractError, Problem

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MODELS_FILE: Final = "models.yaml"

_NUMBER: Final = {"type": "integer", "minimum": 0}
_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["name", "version", "description", "definitions"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "examples": ["postgres"]},
        "version": {
            "type": "object",
            "required": ["major", "minor", "patch"],
            "additionalProperties": False,
            "properties": {"major": _NUMBER, "minor": _NUMBER, "patch": _NUMBER},
        },
        "description": {"type": "string", "minLength": 1},
        "definitions": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": "^Model[A-Z][A-Za-z0-9]*$", "examples": ["ModelPostgresQueryRequest"]},
            "additionalProperties": {"type": "object"},
        },
    },
}


class ModelContract(msgspec.Struct, frozen=True):
    """The shared models of one service.

    Attributes:
        name: of the service, and of the folder that holds the contract and the models.
        definitions: JSON Schema by model name.
        sha256: of the file.
    """

    name: str
    version: Version
    description: str
    definitions: Mapping[str, Mapping[str, Any]]
    path: Path
    sha256: str

    def schema(self, model: str) -> dict[str, Any]:
        """Return a model as a JSON Schema document of its own, with the models it refers to.

        Raises:
            ConfigurationError: there is no such model; lists those there are.
        """
        if model not in self.definitions:
            raise ConfigurationError(
                f"{shown_path(self.path)} has no model {model!r}{did_you_mean(model, self.definitions)}; there are: "
                f"{', '.join(sorted(self.definitions))}"
            )
        needed = self._closure(model)
        document = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:omnibase:models:{self.name}:{model}:{self.version}",
            "title": model,
            **_with_local_references(self.definitions[model]),
        }
        if needed:
            definitions = {name: {"title": name, **_with_local_references(self.definitions[name])} for name in needed}
            document["$defs"] = definitions
        return document

    def _closure(self, model: str) -> list[str]:
        found: set[str] = set()
        frontier = [model]
        while frontier:
            for name in _referred(self.definitions[frontier.pop()]):
                if name not in found:
                    found.add(name)
                    frontier.append(name)
        return sorted(found)


def load_model_contract(path: Path) -> ModelContract:
    """Read and check a model contract.

    Raises:
        ContractError: every problem of the file, with line and column.
    """
    shown = shown_path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{(error.strerror or 'cannot be read').lower()}, expected a model contract"
        raise ContractError([Problem(shown, 1, 1, message, Rule.FILE_UNREADABLE.id)]) from error
    source = read_yaml(content, shown)
    if source.data is None and not source.problems:
        source.add(Rule.WRONG_TYPE, "the document is nothing, expected a mapping", source.position(()))
    if not source.problems:
        check_value(source, (), source.data, _validator())
        report_missing_keys(source)
    if not source.problems:
        _check(source, path)
    if source.problems:
        raise ContractError(sorted(set(source.problems)))
    data = source.data
    return ModelContract(
        name=data["name"],
        version=Version(**data["version"]),
        description=data["description"],
        definitions=data["definitions"],
        path=path,
        sha256=hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest(),
    )


def discover_model_contracts(folder: Path) -> list[Path]:
    """Return the model contracts `<folder>/<service>/models.yaml`, sorted."""
    return sorted(folder.glob(f"*/{MODELS_FILE}"))


def _check(source: YamlSource, file: Path) -> None:
    def report(rule: Rule, message: str, path: Place, *, of_key: bool = False) -> None:
        source.add(rule, message, source.position(path, of_key=of_key))

    if file.name == MODELS_FILE and source.data["name"] != file.resolve().parent.name:
        message = f"the folder is {file.resolve().parent.name!r}, expected it to be called {source.data['name']!r}"
        report(Rule.NAME_FOLDER, message, ("name",))
    check_models(source.data["definitions"], report)


@functools.cache
def _validator() -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(dict(_SCHEMA))


def _with_local_references(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_local_references(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: value.replace("#/definitions/", "#/$defs/") if key == "$ref" else _with_local_references(value)
        for key, value in schema.items()
    }


def _referred(schema: Any) -> Iterable[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _referred(item)
    elif isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.rsplit("/", 1)[-1]
            else:
                yield from _referred(value)
