"""Plan, apply and check the subjects of a schema registry against the contracts. Nothing is ever deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from omnibase_infra.shared.contracts.compatibility import MODES, incompatibilities
from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.topics.schema_subjects import RegisteredSchema, SchemaTarget, Subject

_TRANSITIVE: Final = "_TRANSITIVE"


class SetCompatibility(msgspec.Struct, frozen=True, tag="set-compatibility"):
    """Set how a subject's schema may change. `before` is None where nothing is set on the subject itself."""

    subject: str
    before: str | None
    level: str

    def __str__(self) -> str:
        return f"{self.subject}: compatibility {self.level} (now {self.before or 'the default of the registry'})"


class RegisterSchema(msgspec.Struct, frozen=True, tag="register-schema"):
    """Register a schema. `follows` is the version that is newest now, 0 for a new subject."""

    subject: str
    label: str
    follows: int

    def __str__(self) -> str:
        return f"{self.subject}: {self.label}, " + (f"after version {self.follows}" if self.follows else "new")


SchemaAction = SetCompatibility | RegisterSchema


class SchemaRefusal(msgspec.Struct, frozen=True):
    """A schema that would break whoever uses the newest one. Nothing of its subject is changed."""

    subject: str
    label: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.subject}: {self.label} breaks what is registered: {'; '.join(self.reasons)}"


class SchemaPlan(msgspec.Struct, frozen=True):
    """What is to be done. `unchanged` are the subjects that are as the contracts say."""

    actions: tuple[SchemaAction, ...]
    refusals: tuple[SchemaRefusal, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether the registry is as the contracts say."""
        return not self.actions and not self.refusals


class SchemaFailure(msgspec.Struct, frozen=True):
    """An action that the registry did not do, and why."""

    action: SchemaAction
    reason: str


class SchemaReport(msgspec.Struct, frozen=True):
    """What was done, and what is left."""

    done: tuple[SchemaAction, ...]
    failed: tuple[SchemaFailure, ...] = ()
    refusals: tuple[SchemaRefusal, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is left."""
        return not self.failed and not self.refusals


def plan_schemas(target: SchemaTarget, subjects: Sequence[Subject]) -> SchemaPlan:
    """Compare the registry with the subjects that there should be; change nothing.

    Raises:
        DependencyUnavailableError: the registry is away.
        SchemaRegistryRefusedError: it does not let us look.
    """
    actions: list[SchemaAction] = []
    refusals: list[SchemaRefusal] = []
    unchanged: list[str] = []
    for subject in subjects:
        level, latest = target.compatibility(subject.name), target.latest(subject.name)
        same = latest is not None and json.loads(latest.schema) == subject.document
        if level == subject.compatibility and same:
            unchanged.append(subject.name)
            continue
        if latest is not None and not same and (reasons := _reasons(target, subject, latest, level)):
            refusals.append(SchemaRefusal(subject.name, subject.label, tuple(reasons)))
            continue
        if level != subject.compatibility:
            actions.append(SetCompatibility(subject.name, level, subject.compatibility))
        if not same:
            actions.append(RegisterSchema(subject.name, subject.label, latest.version if latest else 0))
    return SchemaPlan(tuple(actions), tuple(refusals), tuple(unchanged))


def apply_schemas(
    target: SchemaTarget,
    subjects: Sequence[Subject],
    progress: Callable[[SchemaAction, bool], None] | None = None,
) -> SchemaReport:
    """Bring the registry in line with the contracts; harmless when repeated or interrupted.

    The compatibility is set before a schema is registered, so that the registry judges by it. Where one action fails,
    the rest of its subject is left, and the other subjects go on.

    Args:
        target: the registry.
        subjects: what there should be.
        progress: is told each action and whether it was done.

    Raises:
        DependencyUnavailableError: the registry is away before anything was done.
    """
    planned = plan_schemas(target, subjects)
    documents = {subject.name: subject.schema for subject in subjects}
    done: list[SchemaAction] = []
    failed: list[SchemaFailure] = []
    stopped: set[str] = set()
    for action in planned.actions:
        if action.subject in stopped:
            failed.append(SchemaFailure(action, "left, since an earlier step of its subject failed"))
            continue
        try:
            if isinstance(action, SetCompatibility):
                target.set_compatibility(action.subject, action.level)
            else:
                target.register(action.subject, documents[action.subject])
        except OmnibaseError as error:
            failed.append(SchemaFailure(action, error.message))
            stopped.add(action.subject)
        else:
            done.append(action)
        if progress is not None:
            progress(action, action.subject not in stopped)
    return SchemaReport(tuple(done), tuple(failed), planned.refusals)


def stray_subjects(target: SchemaTarget, subjects: Sequence[Subject], realm: Realm) -> list[str]:
    """Return the subjects of the realm that no contract asks for, sorted.

    Raises:
        DependencyUnavailableError: the registry is away.
    """
    wanted = {subject.name for subject in subjects}
    return sorted(name for name in target.subjects() if name.startswith(f"{realm}.onex.") and name not in wanted)


def _reasons(target: SchemaTarget, subject: Subject, latest: RegisteredSchema, level: str | None) -> list[str]:
    """Return why the schema may not follow the newest one: by our own rules, and by the registry's as far as it is set.

    A registry judges by the level that is set now; our own rules know which it will be.
    """
    mode = subject.compatibility.removesuffix(_TRANSITIVE)
    wanted = mode if mode in MODES else "NONE"
    reasons = [str(item) for item in incompatibilities(json.loads(latest.schema), subject.document, wanted)]
    if not reasons and level == subject.compatibility:
        reasons = target.refusals(subject.name, subject.schema)
    return reasons
