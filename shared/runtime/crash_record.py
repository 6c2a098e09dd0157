"""What the commits of a partition say about processes that died while they owned it.

A clean stop commits `clean`. Anything else found at an assignment means that the owner died. The text lies beside the
offset in Kafka, so that it survives every process; it costs nothing while nobody dies.
"""

from __future__ import annotations

from typing import Final

import msgspec

CLEAN: Final = "clean"
# Deaths of a process with one record running, alone, after which that record is not run again.
DEATHS_OF_A_RECORD: Final = 2
DEATHS_IN_ALL: Final = 3
NOBODY: Final = -1


class CrashRecord(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"deaths": "d", "until": "u", "running": "r", "suspect": "s", "times": "n"},
):
    """The story of one partition since it was last stopped cleanly.

    Attributes:
        deaths: of owners in a row, each before everything that may have killed it was finished.
        until: first offset that cannot be what killed the last one.
        running: offset of the record that runs alone now, else `NOBODY`.
        suspect / times: the record that ran alone when an owner died, and how many died so.
    """

    deaths: int = 0
    until: int = 0
    running: int = NOBODY
    suspect: int = NOBODY
    times: int = 0

    def metadata(self, position: int) -> str:
        """Return what to commit beside `position` while the partition is owned."""
        return _ENCODER.encode(self if position < self.until else _UNTROUBLED).decode()

    def is_guilty(self, offset: int) -> bool:
        """Return whether the record at this offset has killed the process so often that it must not run."""
        return self.deaths >= DEATHS_IN_ALL and offset == self.suspect and self.times >= DEATHS_OF_A_RECORD

    def naming(self, offset: int) -> CrashRecord:
        """Return the story in which the record at `offset` runs alone; `NOBODY` for none."""
        return msgspec.structs.replace(self, running=offset)


_UNTROUBLED: Final = CrashRecord()
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(CrashRecord)


def after(metadata: str | None, position: int, end: int) -> CrashRecord:
    """Return the story that a new owner goes on with.

    Args:
        metadata: beside the committed offset; none where only `topics apply` has committed.
        position: the committed offset.
        end: of the partition now; no record at or above it can have killed anybody.
    """
    if not metadata or metadata == CLEAN:
        return CrashRecord()
    try:
        last = _DECODER.decode(metadata)
    except msgspec.DecodeError:
        # Somebody else's commit, for example by Kafka's own tools: a person moved the offset.
        return CrashRecord()
    if position >= end:
        return CrashRecord()  # nothing is left that it could have died of
    if position >= last.until:
        return CrashRecord(deaths=1, until=end)
    suspect, times = last.suspect, last.times
    if last.running >= position:
        suspect, times = last.running, (times if last.running == suspect else 0) + 1
    return CrashRecord(deaths=last.deaths + 1, until=max(end, last.until), suspect=suspect, times=times)
