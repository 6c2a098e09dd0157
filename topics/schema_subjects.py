"""Subjects of a schema registry: what each is called, which schema it gets and how that may change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec

from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.topics.payload_schemas import DIRECTIONS, PayloadSchema

BY_ROLE: Final = "BY_ROLE"


class RegisteredSchema(msgspec.Struct, frozen=True):
    """A schema as the registry has it: the subject's version, the registry's id, the document."""

    version: int
    id: int
    schema: str


class SchemaTarget(Protocol):
    """A registry. Blocking; raises `DependencyUnavailableError` when it is away and says no by errors of its own."""

    def subjects(self) -> list[str]:
        """Return the names of all subjects."""
        ...

    def latest(self, subject: str) -> RegisteredSchema | None:
        """Return the newest schema of a subject."""
        ...

    def lookup(self, subject: str, schema: str) -> RegisteredSchema | None:
        """Return where a subject has this very schema."""
        ...

    def register(self, subject: str, schema: str) -> int:
        """Make a schema the newest of a subject; return its id."""
        ...

    def refusals(self, subject: str, schema: str) -> list[str]:
        """Return why the schema would not be taken."""
        ...

    def compatibility(self, subject: str) -> str | None:
        """Return what is set on the subject itself."""
        ...

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set it."""
        ...


class Subject(msgspec.Struct, frozen=True):
    """What a subject is to be.

    Attributes:
        name: `<realm>.<CloudEvents type>`: a topic carries several types, so its name alone would not do.
        label: the worker, operation and role, for people.
        compatibility: the level set on it.
        document: the schema as it is registered.
    """

    name: str
    label: str
    compatibility: str
    document: Mapping[str, Any]

    @property
    def schema(self) -> str:
        """Return the schema's text."""
        return json.dumps(self.document, ensure_ascii=False)


def subjects_of(schemas: Iterable[PayloadSchema], realm: Realm, compatibility: str = BY_ROLE) -> list[Subject]:
    """Return the subject of each type of message, sorted; of several versions with one type the newest speaks.

    Args:
        schemas: of the generated nodes.
        realm: whose subjects; realms may share a registry.
        compatibility: a level for all, or `BY_ROLE`: requests BACKWARD and answers FORWARD.
    """
    newest: dict[str, PayloadSchema] = {}
    for item in sorted(schemas, key=lambda item: item.version):
        newest[item.event_type] = item
    return [_subject(newest[name], realm, compatibility) for name in sorted(newest)]


def _subject(item: PayloadSchema, realm: Realm, compatibility: str) -> Subject:
    level = DIRECTIONS[item.role] if compatibility == BY_ROLE else compatibility
    # A registry calls a new optional property backward compatible only where others are refused, and forward
    # compatible only where they are ignored.
    document = closed(item.schema) if level.startswith("BACKWARD") else item.schema
    # With a URN as `$id`, Karapace takes references within the document for addresses to be fetched; and since it holds
    # the contract's version, a release without a change would be another schema.
    document = {key: value for key, value in document.items() if key != "$id"}
    name = TopicName.parse(item.event_type).physical(realm)
    return Subject(name, f"{item.worker} {item.label}", level, document)


def closed(schema: Any) -> Any:
    """Return a schema that allows the properties it names and no others."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    names_properties = schema.get("type") == "object" and isinstance(schema.get("properties"), Mapping)
    return (
        {**found, "additionalProperties": False} if names_properties and "additionalProperties" not in found else found
    )
