"""What a plan is made of. Plain values with physical names; none of them deletes anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Union

import msgspec


class Change(msgspec.Struct, frozen=True):
    """A setting before and after."""

    before: str | None
    after: str


class CreateTopic(msgspec.Struct, frozen=True, tag="create-topic", tag_field="action"):
    """A topic of the catalogue does not exist. `after` are topics that must have been prepared before it is created."""

    topic: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    after: tuple[str, ...] = ()


class AddPartitions(msgspec.Struct, frozen=True, tag="add-partitions", tag_field="action"):
    """A topic has fewer partitions than it should."""

    topic: str
    before: int
    after: int


class AlterConfig(msgspec.Struct, frozen=True, tag="alter-config", tag_field="action"):
    """Settings of a topic differ; settings that no contract decides are left alone."""

    topic: str
    changes: Mapping[str, Change]


class CommitFirstOffsets(msgspec.Struct, frozen=True, tag="commit-first-offsets", tag_field="action"):
    """A consumer group has no offsets where it is to begin. `offsets` by partition number."""

    group: str
    topic: str
    offsets: Mapping[int, int]


Action = Union[CreateTopic, AddPartitions, AlterConfig, CommitFirstOffsets]  # noqa: UP007 - msgspec reads it


class Refusal(msgspec.Struct, frozen=True):
    """Something that differs and is not changed. `subject` is a topic or a consumer group."""

    subject: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}" + (f" ({self.hint})" if self.hint else "")


class Plan(msgspec.Struct, frozen=True):
    """How to bring a cluster to the catalogue: actions in the order in which they must happen."""

    actions: tuple[Action, ...]
    refusals: tuple[Refusal, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether the cluster is as the contracts want it."""
        return not self.actions and not self.refusals
