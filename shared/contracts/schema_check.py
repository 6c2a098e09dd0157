"""The contract's JSON Schema, and what its validator finds, in words and with places."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.units import parse_cpu, parse_duration, parse_memory, parse_rate
from omnibase_infra.shared.contracts.yaml_source import Path, YamlSource
from omnibase_infra.shared.core.errors import InvalidNameError
from omnibase_infra.shared.core.naming import TopicName

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SCHEMA_FILE: Final = FilePath(__file__).with_name("contract.schema.json")

_TYPE_WORDS: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}
_FORMATS: Final[Mapping[str, str]] = {
    "node-class-name": "Node, a camel-case name and the node type, like NodeOrderStoreEffect",
    "model-class-name": "Model and a camel-case name, like ModelPriceRequest",
    "class-name": "a class name, like PostgresConnectionPool",
    "module-name": "a dotted module name",
    "snake-case": "snake case, like insert_order",
    "kit-name": "a kit's name, like postgres.statement",
}
_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "topic": TopicName.parse,
    "duration-text": parse_duration,
    "cpu-quantity": parse_cpu,
    "memory-quantity": parse_memory,
    "rate": parse_rate,
}
# Keys of the language that belong to node types this version does not generate yet.
LATER_KEYS: Final[Mapping[str, str]] = {
    "state_model": "reducer",
    "state_machine": "reducer",
    "intent_emission": "reducer",
    "snapshot": "reducer",
    "workflows": "orchestrator",
    "deadline": "orchestrator",
}


@functools.cache
def contract_schema() -> dict[str, Any]:
    """Return the JSON Schema of contract files. Shared: not to be changed."""
    schema: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return schema


@functools.cache
def _contract_validator() -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(contract_schema())


def check_schema(source: YamlSource) -> set[Path]:
    """Add every breach of the contract schema to the source's problems; return the paths that cannot be used."""
    return check_value(source, (), source.data, _contract_validator())


def check_option(source: YamlSource, path: Path, value: Any, schema: Mapping[str, Any]) -> set[Path]:
    """Check one value of the document against a schema of its own, like a kit's option."""
    from jsonschema import Draft202012Validator

    return check_value(source, path, value, Draft202012Validator(schema))


def check_value(source: YamlSource, root: Path, value: Any, validator: Validator) -> set[Path]:
    """Validate `value`, which lies at `root` in the document; return what cannot be used, misspelt keys included."""
    taken = {(problem.line, problem.column) for problem in source.problems}
    unusable: set[Path] = set()
    for error in validator.iter_errors(value):
        breach = _Breach(
            keyword="propertyNames" if "propertyNames" in error.absolute_schema_path else str(error.validator),
            value=error.instance,
            limit=error.validator_value,
            schema=error.schema,
            message=error.message,
            path=(*root, *error.absolute_path),
        )
        if breach.keyword == "required":
            key = breach.message.split("'")[1]
            source.missing[(*breach.path, key)] = _missing(breach, key)
            continue
        for rule, message, place, of_key in _explain(breach):
            position = source.position(place, of_key=of_key)
            # A value that YAML's own checks refused already has its message.
            if (position.line, position.column) not in taken or rule is Rule.UNKNOWN_KEY:
                source.add(rule, message, position)
            unusable.add(place)
            if rule is Rule.UNKNOWN_KEY:
                note_misspelt(source, place, breach.schema.get("properties", {}), breach.value)
    return unusable


def report_missing_keys(source: YamlSource) -> None:
    """Report required keys that are not there, once all misspelt ones are known."""
    for path, message in source.missing.items():
        if path not in source.misspelt:
            source.add(Rule.MISSING_KEY, message, source.position(path[:-1], of_key=True))


def note_misspelt(source: YamlSource, place: Path, known: Iterable[str], present: Mapping[str, Any]) -> None:
    """Note which absent key the unknown key at `place` was probably meant to be."""
    if meant := closest(str(place[-1]), [name for name in known if name not in present]):
        source.misspelt.add((*place[:-1], meant))


class _Breach(NamedTuple):
    """What the validator found: `value`, at `path`, breaks `keyword`, which demands `limit`."""

    keyword: str
    value: Any
    limit: Any
    schema: Any
    message: str
    path: Path


_Finding = tuple[Rule, str, Path, bool]


def _explain(error: _Breach) -> Iterable[_Finding]:
    keyword, path = error.keyword, error.path
    if keyword == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        for key in error.value:
            if key not in known:
                yield Rule.UNKNOWN_KEY, unknown_key(key, known, top=not path), (*path, key), True
    elif keyword == "propertyNames":
        yield Rule.MALFORMED, _malformed(error), (*path, str(error.value)), True
    elif keyword == "uniqueItems":
        yield from _repeated(error)
    else:
        rule, message = _explain_value(error)
        yield rule, message, path, False


def _explain_value(error: _Breach) -> tuple[Rule, str]:
    keyword, value, limit = error.keyword, error.value, error.limit
    if keyword == "type":
        return Rule.WRONG_TYPE, f"expected {_types(limit)}, found {_found(value)}{_example(error)}"
    if keyword in ("enum", "const"):
        choices = [limit] if keyword == "const" else list(limit)
        return Rule.WRONG_CHOICE, not_one_of(value, choices)
    if keyword in ("pattern", "format"):
        return Rule.MALFORMED, _malformed(error)
    words = {
        "minimum": f"is below {limit}",
        "maximum": f"is above {limit}",
        "exclusiveMinimum": f"is not above {limit}",
        "exclusiveMaximum": f"is not below {limit}",
        "minLength": "is empty" if value == "" else f"is shorter than {limit} characters",
        "maxLength": f"is longer than {limit} characters",
        "minItems": "is empty" if value == [] else f"has fewer than {limit} items",
        "maxItems": f"has more than {limit} items",
    }
    if keyword in words:
        shown = "the list" if isinstance(value, list) else "the text" if isinstance(value, str) else str(value)
        return Rule.OUT_OF_RANGE, f"{shown} {words[keyword]}{_example(error)}"
    return Rule.MALFORMED, _shorten(error.message)


def _missing(error: _Breach, key: str) -> str:
    schema = _resolve(error.schema.get("properties", {}).get(key, {}))
    description = str(schema.get("description", "")).split(".")[0].split(":")[0].strip()
    detail = f": {description[0].lower()}{description[1:]}" if description else ""
    example = _example_text(schema)
    return f"the key {key!r} is missing here{detail}{f', like {example}' if example else ''}"


def _malformed(error: _Breach) -> str:
    value = str(error.value)
    kind = str(error.schema.get("format", ""))
    if parser := _PARSERS.get(kind):
        try:
            parser(value)
        except InvalidNameError as problem:
            return str(problem)
        except ValueError as problem:
            return _shorten(str(problem))
    expected = _FORMATS.get(kind) or f"text that matches {error.limit}"
    return f"{_shorten(repr(value))} is malformed, expected {expected}"


def _repeated(error: _Breach) -> Iterable[_Finding]:
    items = list(error.value)
    for index, item in enumerate(items):
        if item in items[:index]:
            first = items.index(item) + 1
            yield Rule.REPEATED, f"{_found(item)} repeats item {first} of the list", (*error.path, index), False


def unknown_key(key: str, known: Iterable[str], *, top: bool = False) -> str:
    """Say that a key is unknown, with the closest known one, or else all that are known here."""
    names = sorted(known)
    if top and key in LATER_KEYS:
        return f"the key {key!r} belongs to {LATER_KEYS[key]} nodes, not supported yet by this version of the generator"
    return f"unknown key {key!r}{did_you_mean(key, names) or ', expected ' + (', '.join(names) or 'none')}"


def not_one_of(value: Any, choices: Iterable[Any]) -> str:
    """Say that a value is not among the choices, with the closest one."""
    names = [str(choice) for choice in choices]
    hint = did_you_mean(value, names) if isinstance(value, str) else ""
    return f"{_found(value)} is not one of {', '.join(names)}{hint}"


def closest(text: str, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant, or None."""
    candidates = sorted(names)
    close = difflib.get_close_matches(text[:200], candidates, n=1, cutoff=0.6)
    if not close:
        flat = text.lower().replace("-", "_")
        close = [name for name in candidates if name.lower().replace("-", "_") == flat]
    return close[0] if close else None


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the name that was probably meant, or nothing."""
    meant = closest(text, names)
    return f"; did you mean {meant!r}?" if meant else ""


def _types(wanted: Any) -> str:
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    return " or ".join(_TYPE_WORDS.get(name, str(name)) for name in names)


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_shorten(repr(value))}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


def _example(error: _Breach) -> str:
    text = _example_text(error.schema)
    return f"; for example {text}" if text else ""


def _example_text(schema: Mapping[str, Any]) -> str:
    examples = schema.get("examples")
    if not examples:
        return ""
    text = examples[0] if isinstance(examples[0], str) else json.dumps(examples[0])
    return str(text) if len(text) <= 100 else ""


def _resolve(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    target = contract_schema()["$defs"].get(reference.removeprefix("#/$defs/"), {})
    return {**target, **schema}


def _shorten(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
