"""Says of a run whether anything was lost, done twice or out of order, from plain data alone.

    inputs = effects + dead letters + refused + in flight

Every input is in exactly one of these places, no effect happens twice, per key the sequence never goes back, and
nothing comes out that did not go in. `collector` takes the data from real topics and tables.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

_SHOWN: Final = 5

Outcome = Literal["completed", "failed"]


class Input(msgspec.Struct, frozen=True):
    """A record that a broker has confirmed.

    Attributes:
        id: of the message; sent twice under one id, it is one input.
        key: whose sequence it belongs to; None has no order.
        sequence: its number within the key, rising.
        is_command: whether its envelope can be read; what cannot be is a dead letter that nobody can be told of.
    """

    id: str
    key: str | None = None
    sequence: int = 0
    is_command: bool = True


class Effect(msgspec.Struct, frozen=True):
    """A row that an input left behind. A run's effects are given in the order in which they were committed."""

    id: str
    key: str
    sequence: int


class Answer(msgspec.Struct, frozen=True):
    """An answer as it lies on its topic. A run's answers are given in the order of their partition.

    Attributes:
        id: its own; the same each time it is sent again.
        cause: id of the input.
        outcome: by its type.
    """

    id: str
    cause: str
    outcome: Outcome


class Run(msgspec.Struct, frozen=True):
    """What is left of a run.

    Attributes:
        inputs: what went in.
        effects: rows, in order of their commits.
        answers: in the order of each partition.
        dead: ids of the inputs of the dead letters, one per dead letter.
        parked: ids of the inputs with an unfinished entry on a retry topic, one per entry.
        uncommitted: ids of inputs at or above the committed offset of their partition.
        answered: whether the operation answers at all.
    """

    inputs: Sequence[Input]
    effects: Sequence[Effect]
    answers: Sequence[Answer] = ()
    dead: Sequence[str] = ()
    parked: Sequence[str] = ()
    uncommitted: Sequence[str] = ()
    answered: bool = True


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found; ids, each list empty when all is well.

    Attributes:
        lost: inputs that are nowhere.
        doubled: inputs whose effect, dead letter or retry entry is there more than once.
        disordered: inputs whose effect or answer comes after a later one of its key.
        contradictory: inputs that are in two places, such as an effect and a dead letter.
        unexplained: effects, answers and dead letters of nothing that went in.
        unanswered: finished inputs without the answer that belongs to their end.
        misanswered: inputs with answers of different ids, of an outcome that is not theirs, or where none can be.
    """

    inputs: int
    effects: int
    dead: int
    refused: int
    in_flight: int
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    disordered: tuple[str, ...] = ()
    contradictory: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    misanswered: tuple[str, ...] = ()

    @property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """Return what is wrong, by kind."""
        kinds = ("lost", "doubled", "disordered", "contradictory", "unexplained", "unanswered", "misanswered")
        return {kind: found for kind in kinds if (found := getattr(self, kind))}

    @property
    def is_clean(self) -> bool:
        """Return whether the invariant holds."""
        return not self.findings

    @property
    def is_settled(self) -> bool:
        """Return whether nothing is under way any more."""
        return self.in_flight == 0

    def __str__(self) -> str:
        balance = (
            f"{self.inputs} inputs = {self.effects} effects + {self.dead} dead letters + {self.refused} refused"
            f" + {self.in_flight} in flight"
        )
        lines = [balance if not (self.lost or self.doubled or self.contradictory) else balance.replace("=", "≠", 1)]
        for kind, found in self.findings.items():
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            lines.append(f"  {kind}: {', '.join(found[:_SHOWN])}{more}")
        return "\n".join(lines)


def check(run: Run) -> Report:
    """Compare what went in with what came out."""
    inputs = {one.id: one for one in run.inputs}
    effects, dead, parked = (
        Counter(one.id for one in run.effects),
        Counter(run.dead),
        Counter(run.parked),
    )
    commands = {one.id for one in run.inputs if one.is_command}
    causes = {one.cause for one in run.answers}
    failed = {one.cause for one in run.answers if one.outcome == "failed"}
    refused = failed & inputs.keys() - effects.keys() - dead.keys()
    ended = effects.keys() | dead.keys() | refused
    waiting = (set(run.uncommitted) | parked.keys()) & inputs.keys() - ended
    unfinished = set(run.uncommitted) | parked.keys()
    return Report(
        inputs=len(inputs),
        effects=len(effects.keys() & inputs.keys()),
        dead=len(dead.keys() & inputs.keys() - effects.keys()),
        refused=len(refused),
        in_flight=len(waiting),
        lost=_sorted(inputs.keys() - ended - waiting),
        doubled=_sorted(one for places in (effects, dead, parked) for one, count in places.items() if count > 1),
        disordered=_disordered(run, inputs),
        contradictory=_sorted(effects.keys() & (dead.keys() | failed)),
        unexplained=_sorted((effects.keys() | dead.keys() | parked.keys() | causes) - inputs.keys()),
        unanswered=_sorted((effects.keys() | dead.keys()) & commands - causes - unfinished) if run.answered else (),
        misanswered=_misanswered(run, effects.keys()),
    )


def _disordered(run: Run, inputs: Mapping[str, Input]) -> tuple[str, ...]:
    """Return the inputs that come after a later one of their key, among the effects or among the answers."""
    found = set(_going_back((one.id, one.key, one.sequence) for one in run.effects))
    # An answer may be sent again after a crash; the first time it is there counts.
    first: dict[str, str] = {}
    for one in run.answers:
        first.setdefault(one.id, one.cause)
    asked = [inputs[cause] for cause in first.values() if cause in inputs]
    found.update(_going_back((one.id, one.key, one.sequence) for one in asked))
    return _sorted(found)


def _going_back(places: Iterable[tuple[str, str | None, int]]) -> Iterable[str]:
    highest: dict[str, int] = {}
    for message_id, key, sequence in places:
        if key is None:
            continue
        if sequence < highest.get(key, sequence):
            yield message_id
        else:
            highest[key] = sequence


def _misanswered(run: Run, done: Iterable[str]) -> tuple[str, ...]:
    ids: defaultdict[str, set[str]] = defaultdict(set)
    outcomes: defaultdict[str, set[Outcome]] = defaultdict(set)
    for one in run.answers:
        ids[one.cause].add(one.id)
        outcomes[one.cause].add(one.outcome)
    several = {cause for cause, own in ids.items() if len(own) > 1}
    # A completed answer promises an effect.
    empty = {cause for cause, own in outcomes.items() if "completed" in own} - set(done)
    nobodys = {one.id for one in run.inputs if not one.is_command} & ids.keys()
    return _sorted(several | empty | nobodys)


def _sorted(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(ids)))
