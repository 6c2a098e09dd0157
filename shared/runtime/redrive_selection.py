"""Which dead letters a run acts on, each failure once, in the order in which their keys' records came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterSnapshot
from omnibase_infra.shared.runtime.dead_letter_view import Attempt, DeadLetter, Place


class SelectedDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter to act on, and others of the same failure: a worker that crashed may have written it twice."""

    letter: DeadLetter
    repeats: tuple[DeadLetter, ...] = ()

    @property
    def letters(self) -> tuple[DeadLetter, ...]:
        """Return all of them."""
        return (self.letter, *self.repeats)


class RefusedDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter that was meant and cannot be acted on."""

    letter: DeadLetter
    reason: str


class Selection(msgspec.Struct, frozen=True):
    """What a run is to act on, in order, and what it cannot."""

    chosen: tuple[SelectedDeadLetter, ...] = ()
    refused: tuple[RefusedDeadLetter, ...] = ()

    @property
    def count(self) -> int:
        """Return how many dead letters would be resolved."""
        return sum(len(item.letters) for item in self.chosen)


def make_selection(
    snapshot: DeadLetterSnapshot,
    letters: Iterable[DeadLetter],
    refusal: Callable[[DeadLetter], str],
    limit: int | None = None,
) -> Selection:
    """Return what a run acts on.

    Args:
        snapshot: all dead letters: repeats of a failure count, too, when the filter does not name them.
        letters: those that are meant.
        refusal: says why one cannot be acted on; empty when it can.
        limit: of the failures to act on; None is all.
    """
    refused: list[RefusedDeadLetter] = []
    first: dict[Attempt | Place, DeadLetter] = {}
    for letter in letters:
        if reason := refusal(letter):
            refused.append(RefusedDeadLetter(letter, reason))
        else:
            first.setdefault(letter.attempt or letter.place, letter)
    ordered = in_key_order(list(first.values()))[:limit]
    repeats: dict[Attempt, list[DeadLetter]] = {letter.attempt: [] for letter in ordered if letter.attempt is not None}
    for letter in snapshot.letters:
        found = repeats.get(letter.attempt) if letter.attempt is not None else None
        if found is not None:
            found.append(letter)
    chosen = (
        SelectedDeadLetter(letter, tuple(one for one in _repeats_of(letter, repeats) if one.place != letter.place))
        for letter in ordered
    )
    return Selection(tuple(chosen), tuple(refused))


def _repeats_of(letter: DeadLetter, repeats: dict[Attempt, list[DeadLetter]]) -> Sequence[DeadLetter]:
    return repeats[letter.attempt] if letter.attempt is not None else ()


def in_key_order(letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Return dead letters in the order of the log, but those of one key as their records came.

    They differ where a record died later than one behind it: after a delay, or when its redrive failed. Each then
    waits for the earlier ones of its key; nothing else moves.
    """
    by_key: dict[tuple[str, int, bytes], list[DeadLetter]] = {}
    turns: dict[Place, tuple[Place, int]] = {letter.place: (letter.place, 0) for letter in letters}
    for letter in letters:
        if letter.original is not None and letter.key is not None:
            by_key.setdefault((letter.original.topic, letter.original.partition, letter.key), []).append(letter)
    for of_key in by_key.values():
        latest = Place(-1, -1)
        for letter in sorted(of_key, key=_original_offset):
            latest = max(latest, letter.place)
            turns[letter.place] = (latest, _original_offset(letter))
    return sorted(letters, key=lambda letter: turns[letter.place])


def _original_offset(letter: DeadLetter) -> int:
    return -1 if letter.original is None else letter.original.offset


def batches(
    chosen: Iterable[SelectedDeadLetter], records: int, most_bytes: int
) -> Iterator[Sequence[SelectedDeadLetter]]:
    """Yield runs of at most so many records and so many bytes, but one record at least."""
    batch: list[SelectedDeadLetter] = []
    size = 0
    for item in chosen:
        if batch and (len(batch) == records or size + item.letter.size > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.letter.size
    if batch:
        yield batch
