"""Which dead letters are meant, and how they fall into groups of one failure each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from omnibase_infra.shared.core.clock import rfc3339
from omnibase_infra.shared.runtime.dead_letter_resolutions import DeadLetterState
from omnibase_infra.shared.runtime.dead_letter_view import DeadLetter, Place

EXAMPLES: Final = 3


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant: those that fit every condition that is set, and one value of each.

    Attributes:
        codes: error codes.
        fingerprints: of failures, whole or their first digits.
        keys: record keys.
        types: CloudEvents types, whole or their event part (`execute-statement`), with `*` and `?`.
        since_ms / until_ms: when the dead letter was written, Unix milliseconds; the end is left out.
        places: where they lie.
        resolved: also those that were redriven or discarded.
    """

    codes: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    keys: tuple[bytes, ...] = ()
    types: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    places: tuple[Place, ...] = ()
    resolved: bool = False

    def passes(self, letter: DeadLetter, state: DeadLetterState) -> bool:
        """Return whether a dead letter is meant."""
        return (
            (self.resolved or state == "open")
            and (not self.codes or letter.code in self.codes)
            and (not self.fingerprints or letter.fingerprint.startswith(self.fingerprints))
            and (not self.keys or letter.key in self.keys)
            and (not self.places or letter.place in self.places)
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
            and (not self.types or any(_fits(letter.event_type, wanted) for wanted in self.types))
        )

    def described(self) -> dict[str, Any]:
        """Return the conditions that are set, as an audit event tells them."""
        conditions = {
            "code": list(self.codes),
            "fingerprint": list(self.fingerprints),
            "key": [key.decode("utf-8", "backslashreplace") for key in self.keys],
            "type": list(self.types),
            "since": None if self.since_ms is None else rfc3339(self.since_ms / 1000),
            "until": None if self.until_ms is None else rfc3339(self.until_ms / 1000),
            "offset": [str(place) for place in self.places],
            "all": self.resolved,
        }
        return {name: value for name, value in conditions.items() if value}


def _fits(event_type: str, wanted: str) -> bool:
    if "." in wanted:
        return fnmatchcase(event_type, wanted)
    segments = event_type.split(".")
    return len(segments) == 5 and fnmatchcase(segments[3], wanted)


class FailureGroup(msgspec.Struct, kw_only=True):
    """Dead letters of one failure: they differ in ids, numbers and quoted values only.

    Attributes:
        message: of the latest.
        open / redriven / discarded: how many stand where.
        first_ms / last_ms: when the first and the last were written, Unix milliseconds.
        examples: some of the latest.
    """

    fingerprint: str
    code: str = ""
    error_type: str = ""
    message: str = ""
    open: int = 0
    redriven: int = 0
    discarded: int = 0
    first_ms: int = 0
    last_ms: int = 0
    examples: list[Place] = []

    @property
    def count(self) -> int:
        """Return how many there are."""
        return self.open + self.redriven + self.discarded

    def add(self, letter: DeadLetter, state: DeadLetterState) -> None:
        """Count a dead letter."""
        self.first_ms = min(self.first_ms, letter.timestamp_ms) if self.count else letter.timestamp_ms
        if not self.count or letter.timestamp_ms >= self.last_ms:
            self.last_ms, self.message = letter.timestamp_ms, letter.message
            self.code, self.error_type = letter.code, letter.error_type
        self.examples = [*self.examples[1 - EXAMPLES :], letter.place]
        match state:
            case "open":
                self.open += 1
            case "redriven":
                self.redriven += 1
            case "discarded":
                self.discarded += 1


def grouped(letters: Iterable[tuple[DeadLetter, DeadLetterState]]) -> Sequence[FailureGroup]:
    """Return the groups of dead letters by fingerprint, the largest first."""
    groups: dict[str, FailureGroup] = {}
    for letter, state in letters:
        group = groups.get(letter.fingerprint)
        if group is None:
            group = groups[letter.fingerprint] = FailureGroup(fingerprint=letter.fingerprint)
        group.add(letter, state)
    return sorted(groups.values(), key=lambda group: (-group.count, group.fingerprint))
