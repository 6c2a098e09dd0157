"""What was done about dead letters. Kafka cannot delete one record, so a compacted topic says which are settled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from omnibase_infra.shared.core.errors import CorruptLogError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.runtime.dead_letter_view import Attempt, DeadLetter, OriginalPlace, Place

ResolvedBy: TypeAlias = Literal["redriven", "discarded"]
DeadLetterState: TypeAlias = Literal["open", "redriven", "discarded"]


class Resolution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done about one dead letter. Written in the transaction that does it.

    Attributes:
        action: what was done.
        redrive_id: of the run of `omninode dlq` that did it; of a redriven record the `onex-redrive-id`.
        by: who ran it.
        at: when, RFC 3339 in UTC.
        reason: why it was discarded.
        edited: whether its payload was changed on the way.
        written_ms: time stamp of the dead letter, which tells it from another at the same place of a new topic.
        original / previous_redrive_id: what had been given up, so that a second dead letter of it is settled, too.
    """

    action: ResolvedBy
    redrive_id: str
    by: str
    at: str
    reason: str | None = None
    edited: bool = False
    written_ms: int = -1
    original: OriginalPlace | None = None
    previous_redrive_id: str = ""

    @classmethod
    def of(
        cls,
        letter: DeadLetter,
        action: ResolvedBy,
        *,
        redrive_id: str,
        by: str,
        at: str,
        reason: str | None = None,
        edited: bool = False,
    ) -> Resolution:
        """Return what is to be said of a dead letter."""
        return cls(
            action=action,
            redrive_id=redrive_id,
            by=by,
            at=at,
            reason=reason,
            edited=edited,
            written_ms=letter.timestamp_ms,
            original=letter.original,
            previous_redrive_id=letter.redrive_id,
        )

    @property
    def attempt(self) -> Attempt | None:
        """Return what had been given up; None when the dead letter did not say."""
        return None if self.original is None else Attempt(self.original, self.previous_redrive_id)


_DECODER: Final = msgspec.json.Decoder(Resolution)


def resolution_record(topic: TopicName, place: Place, resolution: Resolution | None) -> OutboundRecord:
    """Return the record that settles a dead letter; without a resolution, the tombstone that forgets it."""
    value = None if resolution is None else msgspec.json.encode(resolution)
    return OutboundRecord(str(topic), value, str(place).encode(), partition=0)


class Resolutions:
    """The resolutions of a worker's dead letters, as its topic holds them."""

    def __init__(self) -> None:
        self._by_place: dict[Place, Resolution] = {}
        self._by_attempt: dict[Attempt, Resolution] = {}

    def take(self, key: bytes | None, value: bytes | None, where: str) -> None:
        """Take a record of the topic, in the order of offsets.

        Args:
            key: place of the dead letter.
            value: what was done about it; None forgets it.
            where: the record, for people.

        Raises:
            CorruptLogError: it is no resolution. Going on would put settled work back to work.
        """
        try:
            place = Place.parse((key or b"").decode())
            resolution = None if value is None else _DECODER.decode(value)
        except (ValueError, msgspec.MsgspecError) as error:
            raise CorruptLogError(
                f"{where} is no resolution of a dead letter: {error}",
                hint="only `omninode dlq` writes to this topic; find out what else did",
            ) from error
        if resolution is not None:
            self._by_place[place] = resolution
        else:
            self._by_place.pop(place, None)

    def settle(self) -> None:
        """Make second dead letters of one failure known as settled; to be called after the last `take`."""
        self._by_attempt = {
            attempt: resolution for resolution in self._by_place.values() if (attempt := resolution.attempt) is not None
        }

    def of(self, letter: DeadLetter) -> Resolution | None:
        """Return what was done about a dead letter, None when it is open."""
        found = self._by_place.get(letter.place)
        if found is not None and found.written_ms == letter.timestamp_ms:
            return found
        attempt = letter.attempt
        return None if attempt is None else self._by_attempt.get(attempt)

    def state(self, letter: DeadLetter) -> DeadLetterState:
        """Return where a dead letter stands."""
        found = self.of(letter)
        return "open" if found is None else found.action

    def obsolete(self, letters: Iterable[DeadLetter], first_kept: Mapping[int, int]) -> Iterator[Place]:
        """Yield the places whose resolutions say nothing any more: their dead letters are gone from the log.

        Args:
            letters: all dead letters that are left.
            first_kept: the first offset still in the log, by partition.
        """
        alive = {letter.attempt for letter in letters}
        for place, resolution in self._by_place.items():
            if place.offset < first_kept.get(place.partition, 0) and resolution.attempt not in alive:
                yield place

    def __len__(self) -> int:
        return len(self._by_place)
