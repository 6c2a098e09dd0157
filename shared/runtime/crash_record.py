"""What the commits of a partition say about processes that died while they owned it.

A clean stop commits `clean`. Anything else found at an assignment means that the owner died. The text lies beside the
offset in Kafka, so that it survives every process; it costs nothing while nobody dies. It also says of which topic, by
id, the offset is: in one of the same name that was made anew it means nothing.

    death 1: nobody was named ─▶ records run in named groups ─▶ death 2: a group is suspect
    ─▶ its records run alone, each named ─▶ death 3: the one that ran is guilty, and does not run again
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

CLEAN: Final = "clean"
# Kafka keeps 4,096 bytes beside an offset; so many offsets, twice, are far below.
GROUP_RECORDS: Final = 64
# A process has not started records further above its commit than this.
WINDOW_RECORDS: Final = 50_000


class CrashRecord(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"deaths": "d", "until": "u", "running": "r", "suspects": "s", "guilty": "g", "topic": "i"},
):
    """The story of one partition since it was last stopped cleanly.

    Attributes:
        deaths: of owners in a row, each before everything that may have killed it was finished.
        until: first offset that cannot be what killed the last one.
        running: offsets of the records that run now, one group at a time in the process.
        suspects: those of the group that ran when an owner died; they run alone.
        guilty: those that ran alone when an owner died, after they had been suspects.
        topic: id of the topic, nothing where it is not known.
    """

    deaths: int = 0
    until: int = 0
    running: tuple[int, ...] = ()
    suspects: tuple[int, ...] = ()
    guilty: tuple[int, ...] = ()
    topic: str = ""

    def metadata(self, position: int) -> str:
        """Return what to commit beside `position` while the partition is owned."""
        return _ENCODER.encode(self if position < self.until else CrashRecord(topic=self.topic)).decode()

    @property
    def clean(self) -> str:
        """Return what to commit when the partition is given up in good order."""
        return f"{CLEAN} {self.topic}" if self.topic else CLEAN

    def naming(self, offsets: Iterable[int]) -> CrashRecord:
        """Return the story in which these records run now."""
        return msgspec.structs.replace(self, running=tuple(offsets))

    def cleared(self, offsets: Iterable[int]) -> CrashRecord:
        """Return the story in which these have run, and nobody died of it."""
        left = set(self.suspects).difference(offsets)
        return msgspec.structs.replace(self, running=(), suspects=tuple(one for one in self.suspects if one in left))


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(CrashRecord)


def topic_id(metadata: str | None) -> str:
    """Return the id of the topic that a committed offset is of; nothing where its commit does not say."""
    if not metadata:
        return ""
    if metadata.startswith(CLEAN):
        return metadata.removeprefix(CLEAN).strip()
    try:
        return _DECODER.decode(metadata).topic
    except msgspec.DecodeError:
        return ""  # somebody else's commit


def after(metadata: str | None, position: int, end: int | None, topic: str = "") -> CrashRecord:
    """Return the story that a new owner goes on with.

    Args:
        metadata: beside the committed offset; none where only `topics apply` has committed.
        position: the committed offset.
        end: of the partition now; no record at or above it can have killed anybody. None when its leader did not say:
            then what was in doubt stays so, and nothing else.
        topic: id of the topic.
    """
    if not metadata or metadata.startswith(CLEAN):
        return CrashRecord(topic=topic)
    try:
        last = _DECODER.decode(metadata)
    except msgspec.DecodeError:
        # Somebody else's commit, for example by Kafka's own tools: a person moved the offset.
        return CrashRecord(topic=topic)
    if end is None:
        end = last.until
    if position >= end:
        return CrashRecord(topic=topic)
    until = min(end, position + WINDOW_RECORDS)
    if position >= last.until:
        return CrashRecord(deaths=1, until=until, topic=topic)
    # What was finished and lies below the commit has not killed anybody.
    running = [offset for offset in last.running if offset >= position]
    guilty = list(last.guilty)
    suspects = running or list(last.suspects)
    if len(running) == 1 and running[0] in last.suspects:
        guilty += running
        suspects = [offset for offset in last.suspects if offset not in running]
    return CrashRecord(
        deaths=last.deaths + 1,
        until=max(until, last.until),
        suspects=tuple(offset for offset in suspects if offset >= position),
        guilty=tuple(offset for offset in guilty if offset >= position),
        topic=topic,
    )
